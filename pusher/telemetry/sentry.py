"""Reports to Sentry, through raven; nothing else imports it. Without a DSN every call does nothing.

Reporting never waits for Sentry: every event is sent by a greenlet of its own. When more than ``_OUTSTANDING`` are on
their way further ones are left out, so that a storm of errors cannot pile up. Local variables and command line
arguments stay out of the events, since they hold tokens, payloads and passwords.
"""

from __future__ import annotations

import datetime
import logging
import os
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from types import TracebackType

from gevent.pool import Pool
from raven import Client
from raven.exceptions import InvalidDsn
from raven.transport.base import AsyncTransport

from pusher import __version__
from pusher.config import ConfigError
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_OUTSTANDING = 50
_SEND_TIMEOUT_S = 10.0
_sending = Pool(_OUTSTANDING)
_client: Client | None = None


class _Transport(AsyncTransport):  # type: ignore[misc]  # carries no types
    """Posts events with a verified TLS context; raven's own transports need functions that Python has removed."""

    def __init__(self, **_options: str) -> None:
        self._tls = ssl.create_default_context()

    def async_send(
        self,
        url: str,
        data: bytes,
        headers: Mapping[str, str],
        success: Callable[[], None],
        failure: Callable[[Exception], None],
    ) -> None:
        """Called by raven with an event that is ready to be sent. Does not wait."""
        if _sending.full():
            _seldom.warning("full", "too many Sentry events at once, some are left out")
        else:
            _sending.spawn(self._send, url, data, headers, success, failure)

    def _send(
        self,
        url: str,
        data: bytes,
        headers: Mapping[str, str],
        success: Callable[[], None],
        failure: Callable[[Exception], None],
    ) -> None:
        request = urllib.request.Request(url, data, dict(headers))  # noqa: S310  # setup() admits only http and https
        try:
            urllib.request.urlopen(request, timeout=_SEND_TIMEOUT_S, context=self._tls).close()  # noqa: S310
        except Exception as error:  # noqa: BLE001  # whatever it was, only raven's back-off is concerned
            _seldom.warning("failed", "Sentry cannot be reached", error=str(error))
            failure(error)
        else:
            success()


def setup(dsn: str, command: str) -> None:
    """Turns reporting on; ``dsn`` "" means the variable SENTRY_DSN, or off. Raises ConfigError for a bad DSN."""
    global _client  # noqa: PLW0603  # one Sentry a process
    _client = None
    dsn = dsn or os.environ.get("SENTRY_DSN", "")
    if not dsn:
        return
    logging.getLogger("sentry.errors").setLevel(logging.CRITICAL)  # _send says it once a minute
    try:
        _client = _open(dsn, command)
    except (InvalidDsn, ValueError, AttributeError):
        raise ConfigError(
            "sentry.url: not a Sentry DSN; give one such as https://key@host/project, or none to turn Sentry off"
        ) from None


def _open(dsn: str, command: str) -> Client:
    if not dsn.startswith(("http://", "https://")):
        raise ValueError
    return Client(
        dsn,
        transport=_Transport,
        tags={"version": __version__, "cmd": command},
        context={},
        capture_locals=False,
        include_versions=False,
        install_sys_hook=False,
        install_logging_hook=False,
        hook_libraries=(),
        enable_breadcrumbs=False,
    )


def report(message: str, **tags: str) -> None:
    """Reports a message. Does not wait."""
    if _client is not None:
        _client.captureMessage(message, date=_now(), tags=tags)


def report_exception(exc_info: ExcInfo | None = None, **tags: str) -> None:
    """Reports an exception with its trace; None: the one that is being handled. Does not wait."""
    if _client is not None:
        _client.captureException(exc_info=exc_info, date=_now(), tags=tags)


def _now() -> datetime.datetime:
    """As raven expects it, UTC without saying so; its own way to get it is deprecated."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def flush(timeout_s: float) -> bool:
    """Waits until everything reported was sent, at most ``timeout_s``; says whether it was."""
    return bool(_sending.join(timeout=timeout_s))
