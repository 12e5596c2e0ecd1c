"""Sentry's current client, sentry-sdk: envelopes. Only its conversion of exceptions to events is used.

Its integrations, breadcrumbs, sessions and background thread stay off.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from sentry_sdk import Client
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from sentry_sdk.utils import event_from_exception

from pusher.telemetry.sentry.posting import Post
from pusher.telemetry.sentry.reporter import ExcInfo


class _Transport(Transport):
    """Posts envelopes."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._post = Post()

    def capture_envelope(self, envelope: Envelope) -> None:
        """Does not wait."""
        if self.parsed_dsn is not None:
            auth = self.parsed_dsn.to_auth("pusher")
            headers = {"Content-Type": "application/x-sentry-envelope", "X-Sentry-Auth": auth.to_header()}
            self._post(auth.get_api_url(), envelope.serialize(), headers)


class SentrySdk:
    """A ``SentryReporter``. Raises ValueError for a bad DSN."""

    def __init__(self, dsn: str, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)
        self._client: Any = Client(
            dsn,
            transport=_Transport,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            send_client_reports=False,
            auto_session_tracking=False,
            max_breadcrumbs=0,
        )

    def message(self, text: str, tags: Mapping[str, str]) -> None:
        """See ``SentryReporter``."""
        self._client.capture_event({"message": text, "level": "error", "tags": self._tags | dict(tags)})

    def exception(self, exc_info: ExcInfo | None, tags: Mapping[str, str]) -> None:
        """See ``SentryReporter``."""
        found: Any = exc_info or sys.exc_info()
        event, hint = event_from_exception(found, client_options=self._client.options)
        self._client.capture_event({**event, "tags": self._tags | dict(tags)}, hint)
