"""Apple as a platform: builds its parts from the settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from pusher.backoff import BackOff
from pusher.config.settings import of_provider
from pusher.config.values import Config
from pusher.errors import CredentialError, StartError
from pusher.providers.apns import guide, settings
from pusher.providers.apns.credentials import ClientCertificate, Credentials, ProviderToken, refuse_dates, shared
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser
from pusher.providers.apns.service import PRODUCTION_HOST, SANDBOX_HOST, ApnsService, ApnsSettings
from pusher.providers.apns.trial import ask_once
from pusher.providers.http2.pool import Policy
from pusher.providers.http2.transport import Origin
from pusher.providers.open_lane import OpenLane, compares
from pusher.providers.provider import Check, Guide, Provider, Rules, Shown, Told
from pusher.providers.proxy import Proxy, always
from pusher.providers.tls import TlsTrust
from pusher.push.fields import Json
from pusher.push.retry import RetryPolicy


def apns_credentials(config: Config, app: str) -> Credentials:
    """Reads an app's credentials for Apple. Raises ``CredentialError``."""
    trust = TlsTrust(config[settings.CA_FILE], config[settings.CRL_FILE])
    certificate = config.of(settings.CERT_PATH, app)
    key = config.of(settings.AUTH_KEY_PATH, app)
    if key:
        key_id, team_id = config.of(settings.KEY_ID, app), config.of(settings.TEAM_ID, app)
        if not (key_id and team_id):
            raise CredentialError(f"apns.certs.{app}.keyID and .teamID must be set beside .authKeyPath")
        credentials = Credentials(trust, token=shared(ProviderToken.load(key, key_id, team_id)))
    elif certificate:
        password = config.of(settings.CERT_PASSWORD, app)
        loaded = ClientCertificate.load(certificate, password)
        refuse_dates(loaded, time.time())
        credentials = Credentials(trust, certificate=loaded)
    else:
        raise CredentialError(f"set apns.certs.{app}.authKeyPath, keyID and teamID, or apns.certs.{app}.certPath")
    credentials.tls_context()
    return credentials


def apns_host(config: Config) -> str:
    """``apns.host``, or Apple's for the environment."""
    return config[settings.HOST] or (PRODUCTION_HOST if config.production else SANDBOX_HOST)


def apns_proxy(config: Config) -> Proxy | None:
    """The checks of the connection to Apple."""
    return always(config[settings.PROXY])(apns_host(config))


def _build_apns(config: Config, app: str, open_lane: OpenLane) -> ApnsService:
    credentials = apns_credentials(config, app)
    retry = RetryPolicy(config[settings.RETRY_INTERVAL], config[settings.RETRY_MAX_ATTEMPTS])
    parser = _parser(config, app)
    lane = open_lane("apns", parser, apns_feedback, retry, config[settings.PUSH_QUEUE_SIZE])
    how = ApnsSettings(
        host=apns_host(config),
        port=config[settings.PORT],
        proxy=apns_proxy(config),
        connections=config[settings.CONNECTION_POOL_SIZE],
        max_in_flight=config[settings.CONCURRENT_WORKERS],
        request_timeout_s=config[settings.REQUEST_TIMEOUT],
        policy=Policy(
            connect_timeout_s=config[settings.CONNECT_TIMEOUT],
            back_off=BackOff(config[settings.RECONNECT_INTERVAL], config[settings.RECONNECT_MAX_INTERVAL]),
        ),
        outage=RetryPolicy(
            config[settings.RETRY_INTERVAL], max_elapsed_s=config[settings.RETRY_MAX_ELAPSED], counted=False
        ),
    )
    return ApnsService(lane, how, credentials)


def _parser(config: Config, app: str) -> ApnsParser:
    return ApnsParser(config.of(settings.TOPIC, app), app, compares=compares(config, "apns", app))


def _reload_apns(service: ApnsService, config: Config, app: str) -> bool:
    credentials = apns_credentials(config, app)
    if credentials.same_as(service.credentials):
        return False
    service.reload(credentials)
    return True


def _apns_checks(config: Config) -> Iterator[Check]:
    for app in config[of_provider("apns").apps]:
        yield f"apns {app}", lambda app=app: _apns(config, app)  # type: ignore[misc]


def _apns(config: Config, app: str) -> str:
    """Apple takes the credentials: it is asked with a token that cannot exist, so that nothing is delivered."""
    credentials = apns_credentials(config, app)
    if not config.of(settings.TOPIC, app):
        raise StartError(f"apns.certs.{app}.topic is not set: then every message needs its own topic")
    origin = Origin(apns_host(config), config[settings.PORT], proxy=apns_proxy(config))
    return ask_once(credentials, origin, config.of(settings.TOPIC, app), config[settings.CONNECT_TIMEOUT])


def _message(shown: Shown) -> dict[str, Json]:
    if shown.dry_run:
        raise StartError("Apple does not support --dry-run; without it the push is delivered")
    aps: dict[str, Json] = {"alert": shown.words} if shown.words else {"content-available": 1}
    return {"DeviceToken": shown.token, "Payload": {**shown.data, "aps": aps}}


def _told(fields: Mapping[str, Json]) -> Told | None:
    if "ApnsID" not in fields:
        return None
    error = fields.get("Err")
    key = error.get("Key") if isinstance(error, dict) else ""
    return Told(fields["ApnsID"], fields.get("Sent") is True, (fields.get("Reason"), key), fields.get("DeviceToken"))


PROVIDER = Provider(
    "apns",
    "send pushes to Apple",
    _parser,
    _build_apns,
    _reload_apns,
    _apns_checks,
    _message,
    Rules(
        "reason",
        "devicetoken",
        ("sent", True),
        {
            "Unregistered": False,
            "ExpiredToken": False,
            "BadDeviceToken": True,
            "DeviceTokenNotForTopic": True,
        },
        # The token may be of another topic than the message's: only the sender knows whether that was the app's own.
        marked=frozenset({"DeviceTokenNotForTopic"}),
    ),
    _told,
    (Guide("apns", "an app that Apple's push service serves", guide.QUESTIONS, guide.NOTE, apns_credentials),),
    guide.HINTS,
)
