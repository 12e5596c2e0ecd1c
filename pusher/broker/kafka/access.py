"""The access to Kafka as kafka-python's settings."""

from __future__ import annotations

from typing import Any

from kafka.errors import SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

from pusher.broker.access import Access, KafkaTokens, Login, TokenError
from pusher.errors import StartError


class KafkaLogin(Login):
    """The access that is in use."""

    def __init__(self, access: Access) -> None:
        super().__init__(access, client_settings)


def client_settings(access: Access) -> dict[str, Any]:
    """The settings of every client. Reads the files; raises ``StartError`` with one line."""
    found: dict[str, Any] = {"client_id": access.client_id, "security_protocol": access.security_protocol}
    if access.encrypted:
        found["ssl_context"] = access.tls()
    if access.group_protocol != "classic":
        raise StartError(f"kafka.groupProtocol: {access.group_protocol} needs kafka.client confluent-kafka")
    tokens = access.login()
    if tokens:
        return found | {"sasl_mechanism": access.sasl_mechanism, "sasl_oauth_token_provider": _Tokens(tokens)}
    if access.logs_in:
        found |= {
            "sasl_mechanism": access.sasl_mechanism,
            "sasl_plain_username": access.sasl_username,
            "sasl_plain_password": access.sasl_password,
        }
    return found


def consumer_settings(access: Access) -> dict[str, Any]:
    """The settings of consumers besides."""
    return {"isolation_level": access.isolation_level, "client_rack": access.rack}


def member_settings(access: Access) -> dict[str, Any]:
    """The settings of a group's member besides."""
    return consumer_settings(access) | {"group_instance_id": access.group_instance_id or None}


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]  # the library is untyped
    def __init__(self, source: KafkaTokens) -> None:
        self._source = source

    def token(self) -> str:
        """See ``KafkaTokens``. Raises SaslAuthenticationFailedError."""
        try:
            return self._source.token()
        except TokenError as error:
            raise SaslAuthenticationFailedError(str(error)) from None
