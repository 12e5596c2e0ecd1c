"""The access to Kafka as librdkafka's settings."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.hub import Hub

from pusher.broker.access import Access, KafkaTokens, Login, expiry
from pusher.broker.librdkafka.native import in_hub
from pusher.broker.librdkafka.troubles import BrokerTroubles

#: Upper bound of the pause between two attempts to connect; the library's own default is 10 s.
_RECONNECT_MAX_MS = 1000
#: How long the library may wait for an answer to an ordinary request, and for a connection.
_REQUEST_MS = 10_000
#: What the library takes for the life of a token that does not say when it expires.
_TOKEN_LASTS_S = 60.0
#: Settings that a running client accepts without being created again.
_CREDENTIALS = {"sasl.username", "sasl.password"}


class LibrdkafkaLogin(Login):
    """The access that is in use."""

    def __init__(self, access: Access) -> None:
        super().__init__(access, client_settings)


def client_settings(access: Access) -> dict[str, Any]:
    """The base of every client: ``conf`` for the library, the source of tokens, a digest of the files.

    Reads the files; raises ``StartError`` with one line.
    """
    conf: dict[str, Any] = {"client.id": access.client_id, "security.protocol": access.security_protocol}
    files = []
    if access.encrypted:
        access.tls()  # says in one line what is wrong with the files
        conf["ssl.ca.location"] = access.ca_file or ssl.get_default_verify_paths().cafile or "probe"
        conf["ssl.endpoint.identification.algorithm"] = "https"
        if access.cert_file:
            key_file = access.key_file or access.cert_file
            conf |= {"ssl.certificate.location": access.cert_file, "ssl.key.location": key_file}
            files = [access.cert_file, key_file]
            if access.key_password:
                conf["ssl.key.password"] = access.key_password
        files += [access.ca_file] if access.ca_file else []
    tokens = access.login()
    if access.logs_in:
        conf["sasl.mechanism"] = access.sasl_mechanism
    if access.logs_in and not tokens:
        conf |= {"sasl.username": access.sasl_username, "sasl.password": access.sasl_password}
    origin = f"{access.sasl_token_file}\n{access.sasl_token_command}"
    contents = [Path(file).read_bytes() for file in files]
    digest = hashlib.sha256(b"\n".join([origin.encode(), *contents])).hexdigest()
    return {"conf": conf, "tokens": tokens, "digest": digest}


def same_but_credentials(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a client with the new credentials can keep working with new settings."""
    lasting = [{key: value for key, value in each["conf"].items() if key not in _CREDENTIALS} for each in (old, new)]
    return lasting[0] == lasting[1] and old["digest"] == new["digest"]


def consumer_settings(access: Access) -> dict[str, Any]:
    """The settings of consumers besides."""
    return {"isolation.level": access.isolation_level, "client.rack": access.rack}


def connection(brokers: str, settings: dict[str, Any], troubles: BrokerTroubles) -> dict[str, Any]:
    """The settings that every client is made with. Called in the hub."""
    conf: dict[str, Any] = settings["conf"] | {
        "bootstrap.servers": brokers,
        "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
        "socket.connection.setup.timeout.ms": _REQUEST_MS,
        "socket.timeout.ms": _REQUEST_MS,
        "error_cb": troubles.note,
        "logger": troubles,
    }
    if settings["tokens"]:
        conf["oauth_cb"] = _token_of(settings["tokens"], gevent.get_hub(), troubles)
    return conf


def _token_of(tokens: KafkaTokens, hub: Hub, troubles: BrokerTroubles) -> Callable[[str], tuple[str, float]]:
    def token(_config: str) -> tuple[str, float]:
        """Called in a thread of the library, which waits while the hub reads the file or runs the command."""
        try:
            found = in_hub(hub, tokens.token)
        except Exception as error:
            troubles.note_login(str(error))
            raise
        expires = expiry(found)
        return found, time.time() + _TOKEN_LASTS_S if expires is None else expires

    return token
