"""The lane of one app: its inbox, its waiting retries, its counts. Every path of a push ends in ``finish``, once.

A provider's service takes pushes from the lane, sends them, and returns each with one of three calls: ``resend``
(certainly not processed: send again at once, no attempt is counted), ``retry`` (send again after a wait, or fail),
``finish`` (an outcome). Lanes share nothing, so a slow app does not delay the others.

A lane asks the tracker of a push about its partition: pushes of a suspended partition wait, pushes of a lost partition
are dropped unfinished.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Generic, Protocol, TypeVar

import gevent
from gevent.queue import Empty, SimpleQueue

from pusher.backoff import BackOff
from pusher.broker.offsets import State
from pusher.push.feedback import SentFrom
from pusher.push.feedbacks import Feedbacks, MakeFeedback
from pusher.push.outcome import EXPIRED, INTERNAL_ERROR, WITHOUT_FEEDBACK, Kind, Outcome
from pusher.push.push import Push
from pusher.push.reporter import FeedbackReporter
from pusher.push.retry import RetryPolicy, RetryQueue
from pusher.telemetry import metrics
from pusher.telemetry.log import few, logger
from pusher.telemetry.stats import Counter, Stats

log = logger(__name__)
_few = few(log)

P = TypeVar("P", bound=Push)
P_co = TypeVar("P_co", bound=Push, covariant=True)
Clock = Callable[[], float]

#: Free resends in a row before a push waits between them: a peer that refuses everything must not cost a core.
_FREE_RESENDS_AT_ONCE = 3
_RESEND_BACK_OFF = BackOff(min_s=0.1, max_s=5.0)
#: A push that could not be made into a request is tried again so much later, so many times.
_AFTER_FAULT_S, _MOST_FAULTS = 60.0, 3
#: A gate is asked about so many pushes at a time.
_AT_THE_GATE = 256
#: Expired pushes that are finished before others get their turn: some 10 ms of work.
_SLICE = 250


#: Looked up for every outcome.
_EXPIRED, _DELIVERED = Kind.EXPIRED, Kind.DELIVERED


class Parse(Protocol[P_co]):
    """Makes a push from the value of a record."""

    def __call__(self, value: bytes | None, origin: str) -> P_co:
        """``origin`` names the record that the push came from first. Never waits; raises ``InvalidMessage``."""
        ...


class Gate(Protocol[P]):
    """Keeps back pushes of devices that have had enough."""

    def admit(self, pushes: list[P]) -> list[P]:
        """Returns the pushes that may be sent; the others are finished. May wait for a tenth of a second."""
        ...


@dataclass(frozen=True)
class LaneSettings:
    """The settings of one app's lane."""

    app: str
    platform: str
    #: Tag of ``send_notification_latency``: apns, gcm or fcm.
    client: str
    hostname: str
    retry: RetryPolicy
    #: Pushes in the inbox and in the retry queue above which the app's partitions are paused.
    high_water: int = 2_000
    #: Offsets that a partition may be read ahead of a push that waits aside.
    patience: int = 5_000
    #: Publish the outcomes of delivered pushes too.
    feedback_successes: bool = True


@dataclass
class Totals:
    """The outcomes of an app's messages since the start; the periodic summary prints the differences."""

    consumed: int = 0
    sent: int = 0
    #: Answers that were final.
    responses: int = 0
    #: Left to the next owner of their partition.
    dropped: int = 0
    outcomes: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))


class Lane(Generic[P]):
    """One app's inbox, retries and outcomes."""

    def __init__(
        self,
        settings: LaneSettings,
        parse: Parse[P],
        make_feedback: MakeFeedback,
        reporters: Sequence[FeedbackReporter],
        stats: Stats,
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self.settings = settings
        self.parse = parse
        self.totals = Totals()
        self.retries: RetryQueue[P] = RetryQueue()
        #: Set at a stop: nothing more is taken for sending.
        self.closed = False
        #: Set by the service while the provider refuses the app: its partitions are paused.
        self.held = False
        #: What pushes pass before they are taken for the first time; None: nothing.
        self.gate: Gate[P] | None = None
        #: Messages that were submitted and have no outcome yet.
        self.in_hand = 0
        #: Pushes that wait to be taken, retries not counted.
        self.waiting = 0
        self._clock, self._wall_clock = clock, wall_clock
        origin = SentFrom(settings.app, settings.platform, settings.hostname)
        #: Where outcomes go; nowhere without a reporter.
        self._feedbacks = [Feedbacks(origin, make_feedback, reporter, clock, wall_clock) for reporter in reporters]
        self._inbox: SimpleQueue[Sequence[P]] = SimpleQueue()
        self._opened: deque[P] = deque()
        self._suspended: list[P] = []
        #: What was taken last and not handed over yet, and by whom.
        self._taken: Sequence[P] = ()
        self._taker: object = None
        tags = (settings.platform, settings.app)
        self._stats, self._tags = stats, tags
        self._sent: dict[str, Counter] = {}
        self._acked = stats.counter(metrics.ACK, *tags)
        self._expired = stats.counter(metrics.EXPIRED, *tags)
        self._queue_latency = stats.timing(metrics.QUEUE_LATENCY, *tags)
        self._send_latency = stats.timing(metrics.SEND_NOTIFICATION_LATENCY, *tags, settings.client)

    # --- in -----------------------------------------------------------------------------------------------------------
    @property
    def blocked(self) -> str:
        """Why the app cannot send, in one line; "" while it can."""
        return "; ".join(feedbacks.blocked for feedbacks in self._feedbacks if feedbacks.blocked)

    @property
    def full(self) -> bool:
        """Whether the app's partitions should be paused."""
        high_water = self.settings.high_water
        # what waits aside has room of its own
        retries = len(self.retries) - min(self.retries.aside, high_water)
        waiting = self.waiting + retries + len(self._suspended)
        return self.held or waiting >= high_water or bool(self.blocked)

    def put(self, pushes: Sequence[P]) -> None:
        """Into the inbox. Never waits: who calls has looked at ``full``."""
        self.waiting += len(pushes)
        self._inbox.put(pushes)

    def expire(self) -> None:
        """Finishes what expired while it waited, for apps whose link is down. Called about once a second.

        Others get their turn meanwhile.
        """
        self._open_all()
        now_ms = self._now_ms()
        if any(_is_over(push, now_ms) for push in self._opened):
            kept = deque(push for push in self._opened if not _is_over(push, now_ms))
            over = [push for push in self._opened if _is_over(push, now_ms)]
            self._opened, self.waiting = kept, len(kept)
            self._finish_all(over)
        self._finish_all(self.retries.drain(lambda _, push: not _is_over(push, now_ms)))

    # --- for senders --------------------------------------------------------------------------------------------------
    def take(self, limit: int, timeout_s: float) -> list[P]:
        """At most ``limit`` pushes to send now, due retries first; waits up to ``timeout_s`` for the first.

        Drops what belongs to a lost partition and finishes what has expired.
        """
        self._taker = gevent.getcurrent()
        if self.gate is not None:
            return self._take_through(self.gate, limit, timeout_s)
        self._taken = taken = self._take(limit, timeout_s)
        return taken

    def take_back(self) -> None:
        """Called by a greenlet that has failed: should it have taken pushes and not handed them over, they go back.

        One of them may have been what it failed of: they are tried again as by ``give_back``.
        """
        if self._taker is not gevent.getcurrent():
            return
        taken, self._taken = self._taken, ()
        self._open_all()
        waiting = {*self._opened, *self._suspended, *self.retries.items()}
        for push in taken:
            if not push.finished and push not in waiting:
                self.give_back(push)

    def _take_through(self, gate: Gate[P], limit: int, timeout_s: float) -> list[P]:
        """As ``_take``; the gate is asked about more than are wanted, because asking it costs a round trip."""
        known = sum(1 for _ in takewhile(lambda push: getattr(push, "admitted", False), islice(self._opened, limit)))
        self._taken = self._take(known or max(limit, _AT_THE_GATE), timeout_s)
        passed = gate.admit([*self._taken])
        self._taken, later = passed[:limit], passed[limit:]
        self._opened.extendleft(reversed(later))
        self.waiting += len(later)
        return passed[:limit]

    def _take(self, limit: int, timeout_s: float) -> list[P]:
        taken = self._ready(limit)
        while not taken and self.waiting and not self.closed:
            # All of those were lost or over: look on at once, but let others have their turn.
            gevent.sleep(0)
            taken = self._ready(limit)
        if taken:
            return taken
        due = self.retries.next_due
        if due is not None:
            timeout_s = max(0.0, min(timeout_s, due - self._clock()))
        with suppress(Empty):
            arrived = self._inbox.get(timeout=timeout_s)  # what is opened may be another queue after the wait
            self._opened.extend(arrived)
        return self._ready(limit)

    def handed_over(self, pushes: Iterable[P]) -> None:
        """These were given to a connection."""
        self._taken = ()
        now, now_ms = self._clock(), self._now_ms()
        for push in pushes:
            push.attempts += 1
            if not push.first_sent_at:
                push.first_sent_at = now
                if push.timestamp_ms > 0:
                    self._queue_latency.observe(max(0, now_ms - push.timestamp_ms))
                self.totals.sent += 1
                self._sent_counter(push.tracker.key.topic).add()

    def bring_forward(self) -> None:
        """Pushes that wait aside are due now where their partition was read far ahead of them, and would soon stop."""
        patience = self.settings.patience
        if self.retries.aside:
            self.retries.bring_forward(self._clock(), lambda push: push.tracker.span > patience, aside_alone=True)

    # --- back from providers ------------------------------------------------------------------------------------------
    def resend(self, push: P, wait_s: float = 0.0) -> None:
        """The provider certainly did not process it: sends it again after ``wait_s``, without counting an attempt."""
        if push.finished:
            return
        push.attempts = max(0, push.attempts - 1)
        if wait_s:
            self._again(push, wait_s)
            return
        push.free_resends += 1
        self._again(push, _RESEND_BACK_OFF.delay_s(push.free_resends - _FREE_RESENDS_AT_ONCE))

    def defer(self, push: P, wait_s: float) -> None:
        """A push was taken but not handed over: it is sent again after ``wait_s``."""
        self._again(push, wait_s)

    def give_back(self, push: P) -> None:
        """A fault in pusher prevented a request: the push is tried again later, and in the end fails."""
        push.free_resends += 1
        if push.free_resends > _MOST_FAULTS:
            self.finish(push, INTERNAL_ERROR)
        else:
            self._again(push, _AFTER_FAULT_S)

    def retry(
        self,
        push: P,
        failure: Outcome,
        retry_after_s: float | None = None,
        policy: RetryPolicy | None = None,
        *,
        aside: bool = False,
    ) -> None:
        """Again after a wait; ``failure`` is its outcome when ``policy``, else the lane's, allows no further send.

        What waits ``aside`` does not fill the inbox.
        """
        if push.finished:
            return
        push.free_resends = 0
        elapsed_s = self._clock() - push.first_sent_at
        policy = policy or self.settings.retry
        push.in_outage = not policy.counted
        push.uncounted += push.in_outage
        counted = push.attempts - push.uncounted if policy.counted else push.uncounted
        wait_s = policy.wait_s(counted, retry_after_s, elapsed_s)
        if wait_s is None or (push.ttl_s is not None and elapsed_s + wait_s > push.ttl_s):
            self.finish(push, failure)
            return
        self._stats.counter(metrics.RETRIED, *self._tags, failure.key).add()
        self._again(push, wait_s, aside=aside)

    def outage_is_over(self) -> None:
        """The provider takes pushes again: what waits because of its outage is due now."""
        self.retries.bring_forward(self._clock(), lambda push: push.in_outage)
        self._inbox.put(())

    def finish(self, push: P, outcome: Outcome) -> None:
        """Ends a push. A later call, such as that of an answer after a time-out, changes nothing."""
        if push.finished:
            return
        kind = outcome.kind
        wanted = self.settings.feedback_successes if kind is _DELIVERED else kind not in WITHOUT_FEEDBACK
        if wanted and self._feedbacks:
            push.untold = len(self._feedbacks)
            for feedbacks in self._feedbacks:
                # Should making the feedback fail, the push has not ended and is not lost.
                feedbacks.tell(push, outcome)
        else:
            push.tracker.finish(push.offset)
        push.finished = True
        self.in_hand -= 1
        self._count(push, outcome)

    def publish(self, make: Callable[[SentFrom, int], bytes], stored: Callable[[], object]) -> None:
        """Feeds back what is the outcome of no push; ``make`` gets the present time in s.

        ``stored`` is called when every reporter has it, at once where nothing is fed back, and not at all where it
        cannot be stored now: its sender must send it again. Never waits.
        """
        if not self._feedbacks:
            stored()
        missing = itertools.count(1 - len(self._feedbacks))
        for feedbacks in self._feedbacks:
            feedbacks.publish(make, lambda: None if next(missing) else stored())

    # --- upkeep -------------------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """About once a second: what expired, and feedbacks whose topic was missing. Others get their turn meanwhile."""
        self.expire()
        for feedbacks in self._feedbacks:
            feedbacks.tell_refused_again()

    def leave_late_retries(self, due_after: float) -> None:
        """At a stop: retries that are due after ``due_after`` (monotonic s) are left uncommitted to the next owner."""
        self._drop(self.retries.drain(lambda due, _: due <= due_after))

    def leave_all(self) -> None:
        """At a stop that sends nothing more: everything that waits is left uncommitted."""
        self.closed = True
        self._open_all()
        self._drop(self._opened)
        self._drop(self.retries.drain(lambda *_: False))
        self._opened.clear()
        self.waiting = 0

    # --- inside -------------------------------------------------------------------------------------------------------
    def _ready(self, limit: int) -> list[P]:
        if self.closed:
            return []
        if self._suspended:
            self._wake_suspended()
        candidates = self.retries.pop_due(self._clock(), limit) if self.retries else []
        opened = self._opened
        fresh = 0
        while len(candidates) < limit:
            if not opened:
                try:
                    opened.extend(self._inbox.get_nowait())
                except Empty:
                    break
                continue
            candidates.append(opened.popleft())
            fresh += 1
        self.waiting -= fresh
        self._taken = candidates
        now_ms = self._now_ms()
        active = State.ACTIVE
        return [
            push
            for push in candidates
            if (push.tracker.state is active and not push.finished and not 0 < push.expires_ms < now_ms)
            or self._set_aside(push, now_ms)
        ]

    def _set_aside(self, push: P, now_ms: float) -> bool:
        """Deals with a push that is not to be sent now; always false."""
        if push.finished:
            return False
        if push.tracker.state is State.GONE:
            self._drop([push])
        elif _is_over(push, now_ms):
            self.finish(push, EXPIRED)
        else:
            self._suspended.append(push)
        return False

    def _wake_suspended(self) -> None:
        pushes, self._suspended = self._suspended, []
        for push in pushes:
            if push.tracker.state is State.SUSPENDED:
                self._suspended.append(push)
            else:
                self.retries.push(0.0, push)

    def _again(self, push: P, wait_s: float, *, aside: bool = False) -> None:
        self.retries.push(self._clock() + wait_s, push, aside=aside)
        # Wakes a taker, so that it looks at what is due next.
        self._inbox.put(())

    def _open_all(self) -> None:
        while not self._inbox.empty():
            self._opened.extend(self._inbox.get_nowait())

    def _finish_all(self, pushes: Sequence[P]) -> None:
        """Should finishing one fail, it and those behind it wait again."""
        finished = 0
        try:
            for push in pushes:
                self.finish(push, EXPIRED)
                finished += 1
                if not finished % _SLICE:
                    gevent.sleep(0)
        except Exception:
            for push in pushes[finished:]:
                self._again(push, _AFTER_FAULT_S)
            raise

    def _drop(self, pushes: Iterable[P]) -> None:
        for push in pushes:
            if not push.finished:
                push.finished = True
                self.in_hand -= 1
                self.totals.dropped += 1

    def _count(self, push: P, outcome: Outcome) -> None:
        kind = outcome.kind
        self.totals.outcomes[kind] += 1
        if kind is _EXPIRED:
            self._expired.add()
            left_out = _few.turn((self.settings.app, "expired"), "push expired before it could be sent")
            if left_out is not None:
                log.warning("push expired before it could be sent", **self._where(push), **left_out)
            return
        if kind is Kind.LIMITED:
            return
        if push.first_sent_at:
            self.totals.responses += 1
            self._send_latency.observe((self._clock() - push.first_sent_at) * 1000)
        if kind is _DELIVERED:
            self._acked.add()
        else:
            self._stats.counter(metrics.FAILED, *self._tags, outcome.key).add()
            log.debug(
                "push failed", reason=outcome.reason, status=outcome.status, token=push.token, **self._where(push)
            )

    def _where(self, push: P) -> dict[str, object]:
        topic, partition = push.tracker.key
        return {"game": self.settings.app, "topic": topic, "partition": partition, "offset": push.offset}

    def _sent_counter(self, topic: str) -> Counter:
        counter = self._sent.get(topic)
        if counter is None:
            counter = self._sent[topic] = self._stats.counter(metrics.SENT, *self._tags, topic)
        return counter

    def _now_ms(self) -> float:
        return self._wall_clock() * 1000


def _is_over(push: Push, now_ms: float) -> bool:
    return 0 < push.expires_ms < now_ms
