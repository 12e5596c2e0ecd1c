"""Explains to an operator why librdkafka does not reach its brokers.

The library calls ``note`` and ``log`` in any thread, so this module uses neither gevent nor the log.
"""

from __future__ import annotations

import re

from confluent_kafka import KafkaError

_NO_TLS = "the connection was closed during the TLS handshake: a listener without TLS? (kafka.securityProtocol)"
#: Of the library's and OpenSSL's messages: what is in the way, and what to look at.
_TLS = {
    "certificate verify failed": "its certificate is not accepted (kafka.caFile)",
    "could not be verified": "its certificate is not accepted (kafka.caFile)",
    "wrong version number": _NO_TLS,
    "packet length too long": _NO_TLS,
    "certificate required": "it requires a client certificate (kafka.certFile)",
    "bad certificate": "it refuses the client certificate (kafka.certFile)",
    "unknown ca": "it does not know the issuer of the client certificate (kafka.certFile)",
    "certificate unknown": "it does not accept the client certificate (kafka.certFile)",
    "certificate expired": "the client certificate has expired (kafka.certFile)",
    "certificate has expired": "its certificate has expired",
}
_NETWORK = {
    "Connection refused": "connection refused",
    "timed out": "no answer",
    "No route to host": "no route to this host",
    "Network is unreachable": "no route to this host",
}
_CLOSED = "the connection was closed at once: a TLS or SASL listener? (kafka.securityProtocol)"
_CLOSED_WORDS = ("disconnect", "closed", "broken pipe", "reset by peer", "security.protocol")
#: "sasl_ssl://host:port/bootstrap: what happened"
_WHERE = re.compile(r"^(?:\w+://)?([^/\s]+:\d+)/\w+: (.*)$", re.DOTALL)
_FENCED = str(KafkaError(KafkaError.FENCED_INSTANCE_ID).str())
_PASSING = re.compile(r" \(after \d+ms in state [^)]*\)")


class BrokerTroubles:
    """Why each broker of one client cannot be reached."""

    def __init__(self) -> None:
        self._answered = False
        #: By host and port, in the order of the first failure.
        self._reasons: dict[str, str] = {}
        #: Whether no broker is connected; until one answered, none is.
        self.down = True
        #: Whether a broker refuses us for what we are or show, which does not pass by waiting.
        self.refused = False
        #: The library is beyond use; "" while it is not.
        self.fatal = ""
        #: Whether that is because another member with the same group.instance.id has taken the place of this one.
        self.fenced = False

    def note(self, error: KafkaError) -> None:
        """The library's ``error_cb``."""
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001  # the library's own name
            self.note_fatal(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self.down = True
            return
        where, reason = explain(error.code(), error.str())
        if where:
            self.refused = error.code() in _REFUSALS or any(word in error.str().lower() for word in _TLS)
            self._reasons[where] = f"{where}: {reason}"

    def note_fatal(self, error: KafkaError) -> None:
        """The library cannot be used any more. Only the text has the cause."""
        self.fatal = error.str()
        self.fenced = self.fenced or _FENCED in self.fatal

    def note_login(self, reason: str) -> None:
        """There is no token to log in with."""
        self._reasons["login"] = reason

    def log(self, _level: int, _format: str, facility: str, _client: str, text: str) -> None:
        """The library's ``logger``. One line matters that does not come to ``note``: it was hung up on at once.

        A listener that demands a login answers the first request, which asks for versions, and closes at the second.
        """
        first = "/bootstrap: " in text and not self._answered
        at_once = "in state APIVERSION_QUERY" in text or ("in state UP" in text and first)
        if facility == "FAIL" and at_once:
            where, reason = explain(KafkaError._TRANSPORT, text.partition("]: ")[2])  # noqa: SLF001
            self._reasons[where] = f"{where}: {reason}"

    def clear(self) -> None:
        """A broker has answered."""
        self._answered = True
        self.down = self.refused = False
        self._reasons = {}

    @property
    def text(self) -> str:
        """Why a broker is not reached, with its host and port; "" when nothing is in the way."""
        return next(iter(list(self._reasons.values())), "")


_REFUSALS = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}  # noqa: SLF001


def explain(code: int, line: str) -> tuple[str, str]:
    """Where a connection fails, "" if it is none, and what that means, in one line."""
    found = _WHERE.match(line)
    if found is None:
        return "", line
    text = _PASSING.sub("", found[2]).replace("\n", " ")
    return found[1], _meaning(code, text, in_handshake="in state SSL_HANDSHAKE" in line)


def _meaning(code: int, text: str, *, in_handshake: bool) -> str:
    lower = text.lower()
    known = [f"TLS fails, {meaning}" for word, meaning in _TLS.items() if word in lower]
    if code in _REFUSALS and not known:
        offered = not ("mechanism" in lower and ("unsupported" in lower or "not enabled" in lower))
        why = "authentication failed, user, password or token is wrong"
        known = [f"{why if offered else 'the broker does not offer this kafka.saslMechanism'}: {text}"]
    if code == KafkaError._RESOLVE:  # noqa: SLF001
        known += ["the name does not resolve (advertised.listeners of the broker?)"]
    known += [meaning for word, meaning in _NETWORK.items() if word in text]
    if "ssl handshake" in lower or code == KafkaError._SSL:  # noqa: SLF001
        known += [f"TLS fails, a listener without TLS? (kafka.securityProtocol): {text}"]
    if any(word in lower for word in _CLOSED_WORDS):
        known += [f"TLS fails, {_NO_TLS}" if in_handshake else _CLOSED]
    return next(iter(known), text)
