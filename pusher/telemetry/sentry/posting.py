"""Sends events to Sentry: each in its own greenlet, over verified TLS, with a limit on how many at once."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Mapping

from gevent.pool import Pool

from pusher.telemetry.log import Seldom, logger

log = logger(__name__)

_OUTSTANDING = 50
_SEND_TIMEOUT_S = 10.0
_sending = Pool(_OUTSTANDING)


class Post:
    """Posts to Sentry with the certificates that the system trusts."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()
        self._seldom = Seldom(log, period_s=60)

    def __call__(self, url: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Does not wait, and raises nothing: what cannot be sent is a warning a minute."""
        if _sending.full():
            self._seldom.warning("full", "too many Sentry events at once, some are dropped")
        else:
            _sending.spawn(self._post, url, data, headers)

    def _post(self, url: str, data: bytes, headers: Mapping[str, str]) -> None:
        request = urllib.request.Request(url, data, dict(headers))  # noqa: S310  # setup() admits only http and https
        try:
            urllib.request.urlopen(request, timeout=_SEND_TIMEOUT_S, context=self._tls).close()  # noqa: S310
        except Exception as error:  # noqa: BLE001  # whatever it was, it must not cost more than the event
            self._seldom.warning("failed", "Sentry cannot be reached", error=str(error))


def flush(timeout_s: float) -> bool:
    """Waits until everything was sent, at most ``timeout_s``; says whether it was."""
    return bool(_sending.join(timeout=timeout_s))
