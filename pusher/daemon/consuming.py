"""The consuming greenlet: all calls on a source come from here."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import gevent
from gevent.event import Event

from pusher.broker.interface import Record, Source
from pusher.broker.offsets import TopicPartition, Tracker
from pusher.providers.budget import PAUSE_S, SLICE_S
from pusher.telemetry import metrics
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Stats

_POLL_S = 1.0
#: Records that are submitted in one go: a parser needs up to some 15 ms for 60 KB that are nested on purpose.
_SLICE = 100
_SLICE_OCTETS = 32 * 1024

Submit = Callable[[Tracker, Sequence[Record]], None]


class ReadTimes:
    """When the unfinished messages of each partition were read: one entry a delivery, none of those that are over."""

    def __init__(self) -> None:
        self._deliveries: dict[TopicPartition, tuple[Tracker, deque[tuple[int, float]]]] = {}

    def note(self, tracker: Tracker, first_offset: int, now: float) -> None:
        """A delivery that begins at ``first_offset`` was read."""
        entry = self._deliveries.get(tracker.key)
        if entry is None or entry[0] is not tracker:
            entry = self._deliveries[tracker.key] = (tracker, deque())
        _forget_finished(entry[1], tracker.low)
        entry[1].append((first_offset, now))

    def oldest(self, tracker: Tracker) -> float | None:
        """When the lowest unfinished message was read; None when all are finished."""
        entry = self._deliveries.get(tracker.key)
        if entry is None or entry[0] is not tracker or not tracker.span:
            return None
        _forget_finished(entry[1], tracker.low)
        return entry[1][0][1]


def _forget_finished(deliveries: deque[tuple[int, float]], low: int) -> None:
    while len(deliveries) > 1 and deliveries[1][0] <= low:
        deliveries.popleft()


class Consuming:
    """Moves records from a source to ``submit`` and commits finished offsets, until ``end`` is called."""

    def __init__(
        self,
        source: Source,
        submit: Submit,
        is_full: Callable[[str], bool],
        commit_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._submit, self._is_full = submit, is_full
        self._commit_interval_s, self._clock = commit_interval_s, clock
        #: Read nothing more, but stay in the group and commit.
        self.draining = False
        self._refresh = False
        self._read_times = ReadTimes()
        self._polled_at = clock()
        #: Time that submitting has taken since others had their turn.
        self._worked_s = 0.0
        #: Of each metric what the stats know of, by topic.
        self._counted: dict[Metric, Counter[str]] = {}
        self._ending = False
        self._ended = Event()

    def run(self) -> None:
        """Runs in its own greenlet until ``end`` is called."""
        commit_at = self._clock() + self._commit_interval_s
        while not self._ending:
            if self._refresh:
                self._refresh = False
                self.source.refresh()
            self._polled_at = self._clock()
            deliveries = self.source.poll(_POLL_S, self._full)
            if not deliveries:
                gevent.sleep(0)  # others have their turn, also beside a source that does not wait
            for tracker, records in deliveries:
                self._read_times.note(tracker, records[0].offset, self._clock())
                for part in slices(records):
                    self._submit_in_turns(tracker, part)
            if self._clock() >= commit_at:
                self.source.commit()
                commit_at = self._clock() + self._commit_interval_s
        self._ended.set()

    def _submit_in_turns(self, tracker: Tracker, records: Sequence[Record]) -> None:
        """Others have their turn after a slice of work, timers and sockets too; a few records cost no turn each."""
        began = self._clock()
        self._submit(tracker, records)
        self._worked_s += self._clock() - began
        if self._worked_s >= SLICE_S:
            gevent.sleep(PAUSE_S)
            self._worked_s = 0.0

    @property
    def poll_age_s(self) -> float:
        """Since the source was last asked for records."""
        return self._clock() - self._polled_at

    def oldest_s(self) -> dict[TopicPartition, float]:
        """For each owned partition how long ago its oldest unfinished message was read; 0 when there is none."""
        now = self._clock()
        read_at = {key: self._read_times.oldest(tracker) for key, tracker in self.source.assignment.trackers.items()}
        return {key: 0.0 if at is None else now - at for key, at in read_at.items()}

    def count_skipped(self, stats: Stats) -> None:
        """Counts what was passed over since the last call: positions out of range, messages before the start."""
        found = (
            (metrics.OFFSET_OUT_OF_RANGE, self.source.out_of_range),
            (metrics.START_SKIPPED, self.source.start_skipped),
        )
        for metric, numbers in found:
            for topic, number in (numbers - self._counted.get(metric, Counter())).items():
                stats.counter(metric, topic).add(number)
            self._counted[metric] = Counter(numbers)

    def refresh(self) -> None:
        """Notes that the wanted topics have changed. Returns at once."""
        self._refresh = True

    def end(self, timeout_s: float) -> bool:
        """Lets the loop end after its present round, so that the source may be closed; waits for it."""
        self.draining = self._ending = True
        return bool(self._ended.wait(timeout_s))

    def leave_group(self, left_s: float) -> str:
        """A step of the stop order: the last commit, and the group knows at once that this member is gone."""
        if not self.end(left_s):
            return "the source did not answer"
        self.source.close()
        return ""

    def _full(self, topic: str) -> bool:
        return self.draining or self._is_full(topic)


def slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records in parts between which others have their turn: some milliseconds of work, whatever their size."""
    start = octets = 0
    for end, record in enumerate(records):
        size = len(record.value or b"")
        if end > start and (end - start >= _SLICE or octets + size > _SLICE_OCTETS):
            yield records[start:end]
            start, octets = end, 0
        octets += size
    if records:
        yield records[start:]
