"""Sentry's older client, raven: events to the endpoint ``store``."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping

from raven import Client
from raven.exceptions import InvalidDsn
from raven.transport.base import AsyncTransport

from pusher.telemetry.sentry.posting import Post
from pusher.telemetry.sentry.reporter import ExcInfo


class _Transport(AsyncTransport):  # type: ignore[misc]  # carries no types
    """Raven's own transports need functions that Python has removed."""

    def __init__(self, **_options: str) -> None:
        self._post = Post()

    def async_send(
        self,
        url: str,
        data: bytes,
        headers: Mapping[str, str],
        success: Callable[[], None],
        _failure: Callable[[Exception], None],
    ) -> None:
        """Called by raven with an event that is ready to be sent. Does not wait."""
        self._post(url, data, headers)
        success()  # raven's back-off after failures would leave out what comes when Sentry is back


class Raven:
    """A ``SentryReporter``. Raises ValueError for a bad DSN."""

    def __init__(self, dsn: str, tags: Mapping[str, str]) -> None:
        logging.getLogger("sentry.errors").setLevel(logging.CRITICAL)  # Post says it once a minute
        try:
            self._client = Client(
                dsn,
                transport=_Transport,
                tags=dict(tags),
                context={},
                capture_locals=False,
                include_versions=False,
                install_sys_hook=False,
                install_logging_hook=False,
                hook_libraries=(),
                enable_breadcrumbs=False,
            )
        except (InvalidDsn, AttributeError) as error:
            raise ValueError from error

    def message(self, text: str, tags: Mapping[str, str]) -> None:
        """See ``SentryReporter``."""
        self._client.captureMessage(text, date=_now(), tags=dict(tags))

    def exception(self, exc_info: ExcInfo | None, tags: Mapping[str, str]) -> None:
        """See ``SentryReporter``."""
        self._client.captureException(exc_info=exc_info, date=_now(), tags=dict(tags))


def _now() -> datetime.datetime:
    """As raven expects it, UTC without saying so; its own way to get it is deprecated."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
