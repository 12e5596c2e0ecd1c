"""From an app's lane to the links of its pool and back, for providers that speak HTTP/2.

There are two greenlets. The sender takes as many pushes from the lane as the links have room for, and hands them over
together. The responder reads lists of ended exchanges. The meaning of an end without an answer is the same for all
providers and is decided here; the provider's service judges answers. Only the dispatcher acts on the lane.

A provider that accepts nothing gets only a few pushes: some from time to time while it postpones all of them, one a
minute while it refuses the credentials. The others wait without using up their attempts, and other apps get the core.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import gevent
from gevent.queue import SimpleQueue

from pusher.providers.http2.exchange import End, Exchange
from pusher.providers.http2.pool import Pool
from pusher.providers.judgement import Finish, Judgement, Proof, Resend, Retry, Verdict
from pusher.push.lane import Lane
from pusher.push.outcome import CONNECTION_ERROR, INTERNAL_ERROR, TIMEOUT, Kind
from pusher.push.push import Push
from pusher.push.retry import RetryPolicy, parse_retry_after
from pusher.telemetry.health import Health

P = TypeVar("P", bound=Push)

#: Pushes handed to the links in one go: some 16 KiB, one TLS record.
_BATCH = 64
_WAIT_S = 0.5
#: The longest wait for a push: one that comes ends it, and all else that the sender looks at may wait as long.
_IDLE_S = 10.0
#: After so many answers in a row that refuse the credentials, only a probe goes out each minute.
_HOLD_AFTER_REFUSALS = 20
_PROBE_EVERY_S = 60.0
#: After so many ends in a row that put their push off, so few go out in each ``_SLOW_S``.
_SLOW_AFTER = 128
#: After so many, the first push that is accepted ends an outage: what waits for that is sent at once.
_OUTAGE_AFTER = 20
_SLOW_BATCH = 16
_SLOW_S = 0.05

Answers = SimpleQueue[list[Exchange]]

#: Looked up for every answer.
_RESPONSE, _NO_PROOF, _GOOD = End.RESPONSE, Proof.NONE, Proof.GOOD
_WITHOUT_ANSWER: dict[End, Verdict] = {
    End.UNPROCESSED: Resend(),
    End.RESET: Retry(CONNECTION_ERROR),
    End.TIMEOUT: Retry(TIMEOUT),
    End.LOST: Retry(CONNECTION_ERROR),
}


class Pacer(Protocol):
    """Says how many pushes may go, for all apps that share what is limited. Times are monotonic seconds."""

    def room(self, now: float) -> int:
        """How many may go."""
        ...

    def wait_s(self, now: float) -> float:
        """How long none may, when ``room`` has just said so."""
        ...

    def take(self, wanted: int, now: float) -> int:
        """How many of ``wanted`` go now; they count as sent."""
        ...

    def failed(self) -> None:
        """A request had no answer, or there is no link."""
        ...


class Dispatcher(Generic[P]):
    """Sends a lane's pushes over a pool.

    ``exchange_of`` makes the request of a push. ``judge`` says what an answer means; it sees every answer once and does
    not wait. ``ready`` waits up to some seconds until requests can be made, such as for an access token. ``pacer``
    gives what limits the number of pushes now. ``outage`` is the policy of what had no answer, else the lane's.
    """

    def __init__(
        self,
        lane: Lane[P],
        open_pool: Callable[[Answers], Pool],
        exchange_of: Callable[[P], Exchange],
        judge: Callable[[Exchange], Judgement],
        ready: Callable[[float], bool] = lambda _: True,
        pacer: Callable[[], Pacer] | None = None,
        outage: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lane = lane
        self._pacer, self._outage = pacer, outage
        self._answers: Answers = SimpleQueue()
        self.pool = open_pool(self._answers)
        self.pool.demand = lambda: bool(lane.waiting or lane.retries)
        self._exchange_of, self._judge, self._ready, self._clock = exchange_of, judge, ready, clock
        #: Answers in a row that refused the credentials.
        self._refusals = 0
        #: Ends in a row that put their push off.
        self._put_off = 0
        self._sent_at = 0.0

    def loops(self) -> dict[str, Callable[[], None]]:
        """Functions that must each run in their own greenlet, by name."""
        return {"sender": self._send, "responder": self._respond}

    @property
    def held(self) -> bool:
        """Whether the provider refuses the credentials and only probes go out."""
        return self._refusals >= _HOLD_AFTER_REFUSALS

    def health(self) -> Health:
        """Whether pushes can be sent now."""
        if self.held:
            return Health(False, "the provider refuses the app's credentials")
        state = self.pool.state()
        return Health(state.ready, state.reason)

    def credentials_changed(self) -> None:
        """There are new credentials, of which nothing is known yet."""
        self._refusals = 0

    # --- sending ------------------------------------------------------------------------------------------------------
    def _send(self) -> None:
        while True:
            room = self._room()
            pushes = self.lane.take(room, _IDLE_S) if room else []
            if pushes and self._ready(0.0):
                self._hand_over(pushes)
            else:
                # what was true when the wait for them began is so no more
                self._put_back(pushes)

    def _hand_over(self, pushes: list[P]) -> None:
        now = self._sent_at = self._clock()
        if self._pacer is not None:
            granted = self._pacer().take(len(pushes), now)
            self._put_back(pushes[granted:])
            pushes = pushes[:granted]
        try:
            exchanges = [self._exchange_of(push) for push in pushes]
        except Exception:
            self._hand_over_the_good(pushes)
            raise
        self.lane.handed_over(pushes)
        self.pool.send(exchanges)

    def _hand_over_the_good(self, pushes: list[P]) -> None:
        """Handles a batch with pushes that cannot be made into requests, because of a fault in pusher."""
        good, exchanges = [], []
        for push in pushes:
            try:
                exchanges.append(self._exchange_of(push))
            except Exception:  # noqa: BLE001 - it is raised by the caller
                self.lane.give_back(push)
            else:
                good.append(push)
        self.lane.handed_over(good)
        self.pool.send(exchanges)

    def _put_back(self, pushes: list[P]) -> None:
        for push in pushes:
            self.lane.defer(push, 0.0)

    def _room(self) -> int:
        """How many pushes may be sent now; waits up to ``_WAIT_S`` if none may."""
        if not self._ready(_WAIT_S):
            return 0
        room = self.pool.wait_for_room(_WAIT_S)
        batch, pause_s = self._pace()
        wait_s = self._sent_at + pause_s - self._clock()
        if wait_s > 0:
            gevent.sleep(min(wait_s, _WAIT_S))
            return 0
        room = min(room, batch)
        return room if self._pacer is None else self._paced(room, self._pacer())

    def _paced(self, room: int, pacer: Pacer) -> int:
        if not room and not self.pool.state().links:
            pacer.failed()
        now = self._clock()
        allowed = pacer.room(now)
        if not allowed:
            gevent.sleep(min(pacer.wait_s(now), _WAIT_S))
        return min(room, allowed)

    def _pace(self) -> tuple[int, float]:
        """How many pushes make a batch, and how long nothing is sent after it (s)."""
        if self.held:
            return 1, _PROBE_EVERY_S
        if self._put_off >= _SLOW_AFTER:
            return _SLOW_BATCH, _SLOW_S
        return _BATCH, 0.0

    # --- answers ------------------------------------------------------------------------------------------------------
    def _respond(self) -> None:
        while True:
            exchanges = deque(self._answers.get())
            try:
                while exchanges:
                    self._ended(exchanges[0])
                    exchanges.popleft()
            except Exception:
                # The answer that cannot be judged is put off like one that says nothing; the others are judged next.
                faulty = exchanges.popleft()
                self._answers.put(list(exchanges))
                self._act(faulty, Retry(INTERNAL_ERROR))
                raise
            # A queue that always has more never waits: others get their turn here.
            gevent.sleep(0)

    def _ended(self, exchange: Exchange) -> None:
        if exchange.end is not _RESPONSE:
            if self._pacer is not None:
                self._pacer().failed()
            verdict = _WITHOUT_ANSWER[exchange.end]
            if self._outage is not None and isinstance(verdict, Retry):
                verdict = Retry(verdict.failure, policy=self._outage)
            self._act(exchange, verdict)
            return
        verdict, credentials = self._judge(exchange)
        if credentials is not _NO_PROOF:
            self._refusals = 0 if credentials is _GOOD else self._refusals + 1
        self._act(exchange, verdict)

    def _act(self, exchange: Exchange, verdict: Verdict) -> None:
        push: P = exchange.subject
        if isinstance(verdict, Finish):
            if self._put_off >= _OUTAGE_AFTER and verdict.outcome.kind is Kind.DELIVERED:
                self.lane.outage_is_over()
            self._put_off = 0
            self.lane.finish(push, verdict.outcome)
        elif isinstance(verdict, Retry):
            self._put_off += 1
            wait_s = retry_after(exchange) if verdict.wait_s is None else verdict.wait_s
            self.lane.retry(push, verdict.failure, wait_s, verdict.policy, aside=verdict.aside)
        else:
            self.lane.resend(push, verdict.wait_s)


def retry_after(exchange: Exchange) -> float | None:
    """How long (s) the answer asks to wait; None if it does not say."""
    value = exchange.header(b"retry-after")
    return None if value is None else parse_retry_after(value.decode("ascii", "replace"), time.time())
