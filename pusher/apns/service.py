"""Sends one app's pushes to Apple: from its lane to the links, and each answer back to the lane.

Two greenlets: the sender takes what the lane has, as much as the links have room for, and hands it over in one go; the
responder reads lists of ended exchanges. What an end means for a push is a table (``_ENDS``).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import gevent
from gevent.queue import SimpleQueue

from pusher.apns.credentials import Credentials
from pusher.apns.message import ApnsPush, Kind
from pusher.apns.reasons import read_answer
from pusher.broker.interface import Health
from pusher.http2.exchange import End, Exchange
from pusher.http2.header_block import Fields
from pusher.http2.pool import Policy, Pool
from pusher.http2.transport import Origin
from pusher.outcome import CONNECTION_ERROR, DELIVERED, TIMEOUT, Outcome
from pusher.pipeline import Lane
from pusher.retry import parse_retry_after
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

PRODUCTION_HOST = "api.push.apple.com"
SANDBOX_HOST = "api.sandbox.push.apple.com"
#: Pushes handed to the links in one go: some 16 KiB, one TLS record.
_BATCH = 64
_WAIT_S = 0.5
#: After so many answers in a row that refuse the credentials, only a probe goes out each minute.
_HOLD_AFTER_REFUSALS = 20
_PROBE_EVERY_S = 60.0
#: More kinds of requests than an app has; a producer that invents topics must not fill the memory.
_MAX_KINDS = 64


@dataclass(frozen=True)
class ApnsSettings:
    """How an app talks to Apple."""

    host: str
    port: int = 443
    connections: int = 1
    max_in_flight: int = 300
    request_timeout_s: float = 60.0
    policy: Policy = field(default_factory=Policy)


class ApnsService:
    """One app's way to Apple."""

    def __init__(
        self,
        lane: Lane[ApnsPush],
        settings: ApnsSettings,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lane = lane
        self._credentials = credentials
        self._clock = clock
        self._answers: SimpleQueue[list[Exchange]] = SimpleQueue()
        self.pool = Pool(
            Origin(settings.host, settings.port),
            self._tls,
            self._answers,
            size=settings.connections,
            max_in_flight=settings.max_in_flight,
            timeout_s=settings.request_timeout_s,
            name=lane.settings.app,
            policy=settings.policy,
        )
        self._token = ""
        self._fields: dict[Kind, Fields] = {}
        #: Answers in a row that refused the credentials.
        self._refusals = 0
        self._next_probe = 0.0

    # --- life ---------------------------------------------------------------------------------------------------------
    def loops(self) -> dict[str, Callable[[], None]]:
        """What has to run in a greenlet of its own."""
        return {"sender": self.run_sender, "responder": self.run_responder}

    def start(self) -> None:
        """Opens the links. Returns at once."""
        self.pool.start()

    def close(self, grace_s: float) -> None:
        """Closes the links; waits up to ``grace_s`` for open streams."""
        self.pool.close(grace_s)

    def reload(self, credentials: Credentials) -> None:
        """New credentials for new links; the old links finish their streams."""
        self._credentials = credentials
        self._refusals = 0
        self.pool.replace("new credentials")

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return self.pool.in_flight

    @property
    def held(self) -> bool:
        """Whether Apple refuses the credentials and only probes go out."""
        return self._refusals >= _HOLD_AFTER_REFUSALS

    def health(self) -> Health:
        """Whether pushes can be sent now."""
        if self.held:
            return Health(False, "Apple refuses the app's credentials")
        state = self.pool.state()
        return Health(state.ready, state.reason)

    # --- sending ------------------------------------------------------------------------------------------------------
    def run_sender(self) -> None:
        """Sends for ever."""
        while True:
            room = min(self.pool.wait_for_room(_WAIT_S), _BATCH)
            if room and self.held:
                room = self._probe_room()
            if not room:
                continue
            pushes = self.lane.take(room, _WAIT_S)
            if pushes:
                self._next_probe = self._clock() + _PROBE_EVERY_S
                self.lane.handed_over(pushes)
                self.pool.send([self._exchange(push) for push in pushes])

    def _exchange(self, push: ApnsPush) -> Exchange:
        return Exchange(push, self._fields_of(push.kind), push.path, push.literals, push.body)

    def _fields_of(self, kind: Kind) -> Fields:
        token = self._credentials.token
        if token is not None:
            current = token.current()
            if current is not self._token:
                self._token = current
                self._fields.clear()
        fields = self._fields.get(kind)
        if fields is None:
            if len(self._fields) >= _MAX_KINDS:
                self._fields.clear()
            fields = self._fields[kind] = _fields(kind, self._token)
        return fields

    def _tls(self) -> ssl.SSLContext:
        return self._credentials.tls_context()

    def _probe_room(self) -> int:
        """Credentials are refused: one push a minute finds out whether they are again accepted. May wait."""
        wait_s = self._next_probe - self._clock()
        if wait_s > 0:
            gevent.sleep(min(wait_s, _WAIT_S))
            return 0
        return 1

    # --- answers ------------------------------------------------------------------------------------------------------
    def run_responder(self) -> None:
        """Gives answers back to the lane for ever."""
        while True:
            for exchange in self._answers.get():
                if exchange.status == 200 and exchange.end is End.RESPONSE:
                    self._refusals = 0
                    self.lane.finish(exchange.subject, DELIVERED)
                else:
                    self._ENDS[exchange.end](self, exchange)

    def _unprocessed(self, exchange: Exchange) -> None:
        self.lane.resend(exchange.subject)

    def _unknown_fate(self, exchange: Exchange) -> None:
        self.lane.retry(exchange.subject, CONNECTION_ERROR)

    def _timed_out(self, exchange: Exchange) -> None:
        self.lane.retry(exchange.subject, TIMEOUT)

    def _refused(self, exchange: Exchange) -> None:
        """An answer that is not 200."""
        push: ApnsPush = exchange.subject
        outcome, meaning = read_answer(exchange.status, exchange.body_in)
        if not meaning.credentials:
            self._refusals = 0
        elif self._credentials_refused(exchange, outcome):
            self.lane.retry(push, outcome, retry_after_s=0.0)
            return
        if meaning.retry:
            self.lane.retry(push, outcome, _retry_after_s(exchange))
        else:
            self.lane.finish(push, outcome)

    def _credentials_refused(self, exchange: Exchange, outcome: Outcome) -> bool:
        """Counts and logs it; True when a newer token makes another try worthwhile."""
        if outcome.reason == "ExpiredProviderToken" and self._newer_token(exchange):
            return True
        self._refusals += 1
        _seldom.error(
            self.lane.settings.app,
            "Apple refuses the app's credentials: check key, key id, team id, topic and environment (-p)",
            game=self.lane.settings.app,
            reason=outcome.reason,
        )
        return False

    def _newer_token(self, exchange: Exchange) -> bool:
        token = self._credentials.token
        if token is None:
            return False
        if exchange.fields.value(b"authorization") != _bearer(token.current()):
            return True
        if not token.renew():
            return False
        # A connection on which a token expired stays unusable with the new one.
        self.pool.replace("Apple says that the provider token has expired", opened_before=exchange.sent_at)
        return True

    _ENDS: ClassVar[dict[End, Callable[[ApnsService, Exchange], None]]] = {
        End.RESPONSE: _refused,
        End.UNPROCESSED: _unprocessed,
        End.RESET: _unknown_fate,
        End.LOST: _unknown_fate,
        End.TIMEOUT: _timed_out,
    }


def _fields(kind: Kind, token: str) -> Fields:
    """The header fields that all pushes of a kind share."""
    fields = [
        (b"authorization", _bearer(token)),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"apns-topic", kind.topic),
        (b"apns-push-type", kind.push_type),
        (b"apns-priority", kind.priority),
    ]
    return Fields(*[(name, value) for name, value in fields if value])


def _bearer(token: str) -> bytes:
    return b"bearer " + token.encode() if token else b""


def _retry_after_s(exchange: Exchange) -> float | None:
    value = exchange.header(b"retry-after")
    return None if value is None else parse_retry_after(value.decode("ascii", "replace"), time.time())
