"""The feedback reporter ``webhook``: posts outcomes as lines of JSON to a configured address.

An answer 2xx means that all of them are stored. After any other answer, or none, the outcomes are sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pusher.config import Setting
from pusher.config.kinds import Path, Secret, Text
from pusher.errors import StartError
from pusher.providers.http1 import Client, ExchangeFailed, Request, exchange
from pusher.providers.tls import TlsTrust
from pusher.push.reporter import Around
from pusher.push.storing import Reported, Storing
from pusher.telemetry.metrics import Metric

URL = Setting("feedback.webhook.url", Text(), "", "Where outcomes are sent.")
CA_FILE = Setting("feedback.webhook.caFile", Path(), "", "PEM certificates that are trusted besides the system's.")
TOKEN = Setting("feedback.webhook.token", Secret(), "", 'Bearer token of the requests; "" = none.')

STORED = Metric("webhook_stored", "count", ("platform", "game"), "Outcomes that the webhook has taken.")
_TIMEOUT_S = 10.0


def open_reporter(around: Around) -> Storing:
    """Opens the reporter; the entry point names this function."""
    webhook = Webhook(around)
    return Storing(around, "webhook", webhook.store, webhook.check)


class Webhook:
    """Posts outcomes to the address."""

    def __init__(self, around: Around) -> None:
        config, self._stats = around.config, around.stats
        self._url = config[URL]
        if not self._url:
            raise StartError(f"set {URL.key}, the address of the feedback reporter webhook")
        self._client = Client(partial(TlsTrust(config[CA_FILE]).context))
        self._headers = {"content-type": "application/x-ndjson"}
        if config[TOKEN]:
            self._headers["authorization"] = f"Bearer {config[TOKEN]}"

    def store(self, outcomes: Sequence[Reported]) -> None:
        """Posts the outcomes and waits for the answer; raises if it is not 2xx."""
        self._post(b"".join(outcome.value + b"\n" for outcome in outcomes))
        for outcome in outcomes:
            self._stats.counter(STORED, outcome.platform, outcome.game).add()

    def check(self) -> str:
        """Posts an empty request, which gets the same answer as one with outcomes."""
        try:
            self._post(b"")
        except ExchangeFailed as error:
            raise OSError(str(error)) from None
        return f"{self._url} accepts outcomes"

    def _post(self, body: bytes) -> None:
        answer = exchange(Request("POST", self._url, self._headers, body), self._client, _TIMEOUT_S)
        if not 200 <= answer.status < 300:
            raise ExchangeFailed(f"{self._url} answered {answer.status}")
