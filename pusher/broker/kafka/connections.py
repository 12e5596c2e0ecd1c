"""Explains to an operator why connections to Kafka cannot be established."""

from __future__ import annotations

from typing import Any

from kafka.errors import AuthorizationError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError

#: Of the messages of OpenSSL: what is in the way, and what to look at.
_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not accepted (kafka.caFile)",
    "WRONG_VERSION_NUMBER": "it does not speak TLS (kafka.securityProtocol)",
    "ALERT_CERTIFICATE_REQUIRED": "it requires a client certificate (kafka.certFile)",
    "ALERT_BAD_CERTIFICATE": "it refuses the client certificate (kafka.certFile)",
    "ALERT_UNKNOWN_CA": "it does not know the issuer of the client certificate (kafka.certFile)",
    "ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate (kafka.certFile)",
    "ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired (kafka.certFile)",
}
_CLOSED = (
    "socket disconnected",
    "Invalid frame length",
    "ECONNRESET",
    "UNEXPECTED_EOF",
    "EOF occurred",
    "closed (EOF)",
)
_NETWORK = {
    "DNS Resolution failure": "the name does not resolve (advertised.listeners of the broker?)",
    "ECONNREFUSED": "connection refused",
    "ETIMEDOUT": "no answer",
    "EHOSTUNREACH": "no route to this host",
}


class Connections:
    """The connections of one client, and what keeps each broker from being reached."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        #: By the broker's number, in the order of the first failure.
        self._troubles: dict[object, str] = {}
        #: Whether a broker refuses us for what we are or show, which does not pass by waiting.
        self.refused = False
        self._open = manager.get_connection
        for node, connection in list(manager._conns.items()):  # noqa: SLF001  # those that are begun already
            self._watch(node, connection)
        manager.get_connection = self._opened

    @property
    def trouble(self) -> str:
        """Why a broker is not reached, with its host and port; "" when nothing is in the way."""
        return next(iter(self._troubles.values()), "")

    @property
    def isolated(self) -> str:
        """Why none of the brokers that are known is reached; "" while one is."""
        known = self._manager.cluster.brokers()
        return self.trouble if known and all(broker.node_id in self._troubles for broker in known) else ""

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections with these settings."""
        self._manager.config.update(settings)
        self._manager._auth_failures.clear()  # noqa: SLF001  # else a login once refused is not tried again

    def _opened(self, node: Any, *args: Any, **settings: Any) -> Any:
        known = self._manager._conns.get(node)  # noqa: SLF001
        connection = self._open(node, *args, **settings)
        if connection is not known:
            self._watch(node, connection)
        return connection

    def _watch(self, node: Any, connection: Any) -> None:
        broker = self._manager.cluster.broker_metadata(node)
        where = f"{broker.host}:{broker.port}" if broker is not None else str(node)
        connection.init_future.add_callback(lambda _: self._established(node))
        connection.init_future.add_errback(lambda error: self._failed(node, where, error))
        connection.close_future.add_errback(lambda error: self._lost(node, where, error))

    def _established(self, node: object) -> None:
        self._troubles.pop(node, None)
        self.refused = False

    def _failed(self, node: object, where: str, error: Exception) -> None:
        self.refused = is_refusal(error)
        self._troubles[node] = f"{where}: {explain(error)}"

    def _lost(self, node: object, where: str, error: Exception) -> None:
        """A listener that demands a login answers the first request, and closes at the second."""
        if not self._manager.cluster.brokers() and node not in self._troubles:
            self._failed(node, where, error)


def is_refusal(error: Exception) -> bool:
    """Whether a broker refuses a login or a certificate, or we refuse its."""
    refusals = SaslAuthenticationFailedError, AuthorizationError, UnsupportedSaslMechanismError
    return isinstance(error, refusals) or any(word in str(error) for word in _TLS)


def explain(error: Exception) -> str:
    """The meaning of a failure to connect, in one line."""
    text = str(error)
    own = text.partition("Error: ")[2] or text
    for word, meaning in _TLS.items():
        if word in text:
            return f"TLS fails, {meaning}: {text.partition('] ')[2].partition(' (_ssl')[0] or text}"
    if isinstance(error, SaslAuthenticationFailedError):
        return f"authentication failed, user, password or token is wrong: {own}"
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"the broker does not offer this kafka.saslMechanism: {own}"
    if any(word in text for word in _CLOSED) or text in {"", type(error).__name__}:
        if "Handshake" in text:
            return (
                "the connection was closed during the TLS handshake: a listener without TLS? (kafka.securityProtocol)"
            )
        return "the connection was closed at once: a TLS or SASL listener? (kafka.securityProtocol)"
    return next((meaning for word, meaning in _NETWORK.items() if word in text), own)
