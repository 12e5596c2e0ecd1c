"""Counters, gauges and timings, added up in the process and handed to StatsD at every flush.

Adding is a few machine instructions and never waits; everything that costs is done at the flush, by one greenlet.
Totals since the start stay available to the admin port through :meth:`Stats.snapshot`.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections import Counter as Counts
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple, TypeVar

import gevent

from pusher.config import Config, settings
from pusher.telemetry import metrics
from pusher.telemetry.dogstatsd import DogStatsd
from pusher.telemetry.metrics import Metric
from pusher.telemetry.runtime import sample_runtime

#: Upper bounds of a timing's buckets, in milliseconds.
BOUNDS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
#: A timing sends at most this many observations a flush, with their rate; all of them count for its buckets.
_OBSERVATIONS = 200
_RUNTIME_PERIOD_S = 30.0
#: Different tags of one metric. Names of topics and reasons come from others, who may invent any number of them.
MAX_SERIES = 1_000
#: Stands for the last tag of all further ones, and for all tags where even that is too much.
OTHER = "other"
#: Characters of a tag's value.
MAX_TAG_CHARACTERS = 200

_S = TypeVar("_S", "Counter", "Gauge", "Timing")


class Sample(NamedTuple):
    """State of one series since the start. Counts and gauges have a value; timings a sum, a number and buckets."""

    metric: Metric
    tags: tuple[str, ...]
    value: float
    observations: int = 0
    #: Observations in each bucket of ``BOUNDS_MS``, not added up; the last is for those above all bounds.
    buckets: tuple[int, ...] = ()


class Counter:
    """Adds up."""

    __slots__ = ("_line", "_sent", "metric", "tags", "total")

    def __init__(self, metric: Metric, tags: tuple[str, ...]) -> None:
        self.metric, self.tags = metric, tags
        self._line = _template(metric, tags, "%d|c")
        #: Ever since the start.
        self.total = 0
        self._sent = 0

    def add(self, number: int = 1) -> None:
        """Never waits."""
        self.total += number

    def take(self) -> Iterator[str]:
        """The line that says what was added since the last call, if anything was."""
        added, self._sent = self.total - self._sent, self.total
        if added:
            yield self._line % added

    def sample(self) -> Sample:
        """The total."""
        return Sample(self.metric, self.tags, self.total)


class Gauge:
    """Says how much there is now."""

    __slots__ = ("_changed", "_line", "metric", "tags", "value")

    def __init__(self, metric: Metric, tags: tuple[str, ...]) -> None:
        self.metric, self.tags = metric, tags
        self._line = _template(metric, tags, "%f|g")
        self.value = 0.0
        self._changed = False

    def set(self, value: float) -> None:
        """Never waits."""
        self.value = value
        self._changed = True

    def take(self) -> Iterator[str]:
        """The line with the value when it was set since the last call."""
        if self._changed:
            self._changed = False
            yield self._line % self.value

    def sample(self) -> Sample:
        """The value."""
        return Sample(self.metric, self.tags, self.value)


class Timing:
    """Collects durations in milliseconds."""

    __slots__ = ("_buckets", "_count", "_line", "_sum_ms", "_values", "metric", "observe", "tags")

    def __init__(self, metric: Metric, tags: tuple[str, ...]) -> None:
        self.metric, self.tags = metric, tags
        self._line = _template(metric, tags, "%f|ms%s")
        self._values: list[float] = []
        #: ``observe(ms)`` notes a duration and never waits: it is the list's own method, for speed.
        self.observe = self._values.append
        self._count = 0
        self._sum_ms = 0.0
        self._buckets = [0] * (len(BOUNDS_MS) + 1)

    def take(self) -> Iterator[str]:
        """A line for each duration since the last call, or for as many of them as are sent."""
        values = self._drain()
        rate = ""
        if len(values) > _OBSERVATIONS:
            rate = f"|@{_OBSERVATIONS / len(values):.6f}"
            values = random.sample(values, _OBSERVATIONS)
        return (self._line % (value, rate) for value in values)

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


_UNSAFE = str.maketrans({"\n": None, "\r": None, "|": "_", ",": "_"})


def _template(metric: Metric, tags: tuple[str, ...], value: str) -> str:
    """``name:VALUE|type|#tag:value,...`` with the place of the value left open."""
    if len(tags) != len(metric.tags):
        raise ValueError(f"{metric.name} has the tags {metric.tags}, not {tags}")
    pairs = (f"{name}:{text.translate(_UNSAFE)}" for name, text in zip(metric.tags, tags, strict=True))
    tail = f"|#{','.join(pairs)}" if tags else ""
    return f"{metric.name}:{value}{tail.replace('%', '%%')}"


class Stats:
    """All series of the process. One greenlet runs :meth:`run`; everybody adds."""

    def __init__(self, hostname: str, statsd: DogStatsd | None = None, flush_interval_s: float = 1.0) -> None:
        self._hostname, self._statsd, self._interval_s = hostname, statsd, flush_interval_s
        self._counters: dict[tuple[Metric, tuple[str, ...]], Counter] = {}
        self._gauges: dict[tuple[Metric, tuple[str, ...]], Gauge] = {}
        self._timings: dict[tuple[Metric, tuple[str, ...]], Timing] = {}
        self._numbers: Counts[Metric] = Counts()

    @classmethod
    def from_config(cls, config: Config, hostname: str) -> Stats:
        """As configured; without a reporter nothing leaves the process."""
        statsd = None
        if "statsd" in config[settings.STATS_REPORTERS]:
            statsd = DogStatsd(config[settings.STATSD_HOST], config[settings.STATSD_PREFIX])
        return cls(hostname, statsd, config[settings.STATSD_FLUSH_INTERVAL])

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
        """Hands StatsD what was added since the last flush. Waits only for the socket."""
        lines = [line for series in self._series() for line in series.take()]
        if self._statsd is not None:
            self._statsd.send(lines)

    def run(self) -> None:
        """Flushes, and measures the process, for ever."""
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
