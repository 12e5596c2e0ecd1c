"""Counters, gauges and timings, added up in the process and handed to the reporters at every flush.

Adding is a few machine instructions and never waits; everything that costs is done at the flush, by one greenlet.
Totals since the start stay available to the admin port through :meth:`Stats.snapshot`.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, TypeVar

import gevent

from pusher.telemetry import metrics
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.metrics import Metric
from pusher.telemetry.runtime import sample_runtime
from pusher.telemetry.watch import Watch

_seldom = Seldom(logger(__name__), period_s=60)

#: Upper bounds of a timing's buckets, in milliseconds.
BOUNDS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
_RUNTIME_PERIOD_S = 30.0
#: What a reporter gets for a report; then the next one has its turn.
REPORT_TIMEOUT_S = 5.0
#: Different tags of one metric. Names of topics and reasons come from others, who may invent any number of them.
MAX_SERIES = 1_000
#: Stands for the last tag of all further ones, and for all tags where even that is too much.
OTHER = "other"
#: Characters of a tag's value.
MAX_TAG_CHARACTERS = 200

_S = TypeVar("_S", "Counter", "Gauge", "Timing")


class Sample(NamedTuple):
    """One series: its state since the start, and what was added since the last report."""

    metric: Metric
    tags: tuple[str, ...]
    #: Of a count its total, of a gauge its value, of a timing the sum of its durations (ms).
    value: float
    #: Durations of a timing, and how many of them are in each bucket of ``BOUNDS_MS``, not added up; the last bucket is
    #: for those above all bounds.
    observations: int = 0
    buckets: tuple[int, ...] = ()
    #: Of a count, since the last report.
    added: float = 0
    #: Of a timing, since the last report, ascending (ms).
    durations_ms: Sequence[float] = ()


class Reporter(Protocol):
    """Takes the numbers somewhere else. The doors are in ``pusher.stats``."""

    def report(self, samples: Sequence[Sample]) -> None:
        """Gets each series that has changed since the last report.

        May wait, up to ``REPORT_TIMEOUT_S`` in all; what it raises is logged, and its samples are not given again.
        """
        ...

    def check(self) -> str:
        """For ``--check``: says that it can be used. May wait some seconds; raises ``OSError`` with one line if not."""
        ...


class Counter:
    """Adds up."""

    __slots__ = ("_reported", "metric", "tags", "total")

    def __init__(self, metric: Metric, tags: tuple[str, ...]) -> None:
        self.metric, self.tags = metric, tags
        #: Ever since the start.
        self.total = 0
        self._reported = 0

    def add(self, number: int = 1) -> None:
        """Never waits."""
        self.total += number

    def take(self) -> Sample | None:
        """The value added since the last call, if any."""
        added, self._reported = self.total - self._reported, self.total
        return Sample(self.metric, self.tags, self.total, added=added) if added else None

    def sample(self) -> Sample:
        """The total."""
        return Sample(self.metric, self.tags, self.total)


class Gauge:
    """Says how much there is now."""

    __slots__ = ("_changed", "metric", "tags", "value")

    def __init__(self, metric: Metric, tags: tuple[str, ...]) -> None:
        self.metric, self.tags = metric, tags
        self.value = 0.0
        self._changed = False

    def set(self, value: float) -> None:
        """Never waits."""
        self.value = value
        self._changed = True

    def take(self) -> Sample | None:
        """The value when it was set since the last call."""
        if not self._changed:
            return None
        self._changed = False
        return self.sample()

    def sample(self) -> Sample:
        """The value."""
        return Sample(self.metric, self.tags, self.value)


class Timing:
    """Collects durations in milliseconds."""

    __slots__ = ("_buckets", "_count", "_sum_ms", "_values", "metric", "observe", "tags")

    def __init__(self, metric: Metric, tags: tuple[str, ...]) -> None:
        self.metric, self.tags = metric, tags
        self._values: list[float] = []
        #: ``observe(ms)`` notes a duration and never waits: it is the list's own method, for speed.
        self.observe = self._values.append
        self._count = 0
        self._sum_ms = 0.0
        self._buckets = [0] * (len(BOUNDS_MS) + 1)

    def take(self) -> Sample | None:
        """The durations since the last call, if there were any."""
        values = self._drain()
        return self.sample()._replace(durations_ms=values) if values else None

    def _drain(self) -> list[float]:
        """Adds what was collected to the totals and forgets it."""
        values = sorted(self._values)
        self._values.clear()
        self._count += len(values)
        self._sum_ms += sum(values)
        before = 0
        for index, bound in enumerate(BOUNDS_MS):
            end = bisect_right(values, bound)
            self._buckets[index] += end - before
            before = end
        self._buckets[-1] += len(values) - before
        return values

    def sample(self) -> Sample:
        """Totals of everything taken so far."""
        return Sample(self.metric, self.tags, self._sum_ms, self._count, tuple(self._buckets))


class Stats:
    """All series of the process. One greenlet runs :meth:`run`; any code may add."""

    def __init__(self, hostname: str, reporters: Sequence[Reporter] = (), flush_interval_s: float = 1.0) -> None:
        self._hostname, self._reporters, self._interval_s = hostname, reporters, flush_interval_s
        self._counters: dict[tuple[Metric, tuple[str, ...]], Counter] = {}
        self._gauges: dict[tuple[Metric, tuple[str, ...]], Gauge] = {}
        self._timings: dict[tuple[Metric, tuple[str, ...]], Timing] = {}
        self._numbers: Counts[Metric] = Counts()

    def counter(self, metric: Metric, *tags: str) -> Counter:
        """The counter of these tag values; the same object at every call."""
        try:
            return self._counters[metric, tags]
        except KeyError:
            return self._add(self._counters, Counter, metric, tags)

    def gauge(self, metric: Metric, *tags: str) -> Gauge:
        """The gauge of these tag values; the same object at every call."""
        try:
            return self._gauges[metric, tags]
        except KeyError:
            return self._add(self._gauges, Gauge, metric, tags)

    def timing(self, metric: Metric, *tags: str) -> Timing:
        """The timing of these tag values; the same object at every call."""
        try:
            return self._timings[metric, tags]
        except KeyError:
            return self._add(self._timings, Timing, metric, tags)

    def _add(
        self,
        known: dict[tuple[Metric, tuple[str, ...]], _S],
        kind: Callable[[Metric, tuple[str, ...]], _S],
        metric: Metric,
        tags: tuple[str, ...],
    ) -> _S:
        """A new series, or, when there are too many, the one that stands for others."""
        if len(tags) != len(metric.tags):
            raise ValueError(f"{metric.name} has the tags {metric.tags}, not {tags}")
        tags = tuple(text[:MAX_TAG_CHARACTERS] for text in tags)
        if self._numbers[metric] >= MAX_SERIES:
            tags = (*tags[:-1], OTHER)
        if self._numbers[metric] >= 2 * MAX_SERIES:
            tags = (OTHER,) * len(tags)
        if (metric, tags) not in known:
            self._numbers[metric] += 1
            known[metric, tags] = kind(metric, tags)
        return known[metric, tags]

    def _series(self) -> Iterator[Counter | Gauge | Timing]:
        return chain(self._counters.values(), self._gauges.values(), self._timings.values())

    def snapshot(self) -> list[Sample]:
        """Every series as of the last flush, counters and gauges as of now. Never waits."""
        return [series.sample() for series in self._series()]

    def flush(self) -> None:
        """Hands the reporters what was added since the last flush. Waits for them; raises nothing of theirs."""
        samples = [sample for series in self._series() if (sample := series.take()) is not None]
        for reporter in self._reporters:
            self._report(reporter, samples)

    def _report(self, reporter: Reporter, samples: Sequence[Sample]) -> None:
        """A reporter's trouble is its own."""
        name = f"{type(reporter).__module__}.{type(reporter).__qualname__}"
        try:
            with gevent.Timeout(REPORT_TIMEOUT_S), Watch() as watch:
                reporter.report(samples)
        except gevent.Timeout:
            _seldom.error(name, "a stats reporter took too long, its report is cancelled", reporter=name)
        except Exception as error:  # noqa: BLE001 - plugged in: whatever it raises costs its own report
            _seldom.error(name, "a stats reporter failed", reporter=name, error=repr(error))
        else:
            if watch.too_long:
                longest_s = round(watch.longest_s, 1)
                _seldom.error(name, "a stats reporter blocks all other greenlets", reporter=name, longest_s=longest_s)

    def run(self) -> None:
        """Flushes, and measures the process, without end."""
        sampled_at = -_RUNTIME_PERIOD_S
        while True:
            if time.monotonic() - sampled_at >= _RUNTIME_PERIOD_S:
                sampled_at = time.monotonic()
                self._measure()
            gevent.sleep(self._interval_s)
            self.flush()

    def _measure(self) -> None:
        runtime = sample_runtime()
        for metric, value in (
            (metrics.NUM_GOROUTINE, runtime.greenlets),
            (metrics.ALLOCATED_NOT_FREED, runtime.resident_bytes),
            (metrics.HEAP_OBJECTS, runtime.blocks),
            (metrics.NEXT_GC_BYTES, runtime.peak_bytes),
        ):
            self.gauge(metric, self._hostname).set(value)
