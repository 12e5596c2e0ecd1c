"""The last fifteen minutes of the process, a point every five seconds, for the status page.

One row of ``RATES`` or ``LEVELS`` is one line of a chart. The ring is bounded, and so is what a point holds: numbers of
each app, and of its reasons those that occurred.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import gevent

from pusher.telemetry import figures, metrics
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import BOUNDS_MS, Sample

PERIOD_S = 5.0
POINTS = 180
#: Reasons of failures that the page shows for an app.
_REASONS = 12

App = tuple[str, str]


class Rate(NamedTuple):
    """A count, shown per second."""

    name: str
    metric: Metric
    #: Value of the metric's tag ``outcome``; "" takes all.
    outcome: str = ""


#: How pushes end.
OUTCOMES = ("delivered", "rejected", "failed", "expired", "invalid", "limited")
RATES = (
    Rate("sent", metrics.SENT),
    Rate("retried", metrics.RETRIED),
    *(Rate(kind, figures.OUTCOMES, kind) for kind in OUTCOMES),
    Rate("feedbacks", figures.FEEDBACKS),
    Rate("deleted", metrics.TOKENS_DELETE_SUCCESS),
    Rate("nonexistent", metrics.TOKENS_DELETE_NONEXISTENT),
    Rate("errors", metrics.TOKENS_DELETE_ERROR),
    Rate("held", metrics.GUARD_HELD),
)
#: What is shown as it is, the sum over a metric's other tags.
LEVELS = {"lag": figures.CONSUMER_LAG, "in_flight": figures.IN_FLIGHT, "inbox": figures.INBOX}
#: Where the reasons of failures are counted.
_REASON_METRICS = (metrics.FAILED, metrics.INVALID)
_LATENCY = metrics.SEND_NOTIFICATION_LATENCY
QUANTILES = {"p50": 0.5, "p99": 0.99}


class GameTotals:
    """The sums of the samples of one moment, by app."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.sums: defaultdict[App, Counter[str]] = defaultdict(Counter)
        self.levels: defaultdict[App, Counter[str]] = defaultdict(Counter)
        self.reasons: defaultdict[App, Counter[str]] = defaultdict(Counter)
        self.buckets: dict[App, tuple[int, ...]] = {}
        for sample in samples:
            tags = dict(zip(sample.metric.tags, sample.tags, strict=True))
            if "game" in tags and "platform" in tags:
                self._add((tags["platform"], tags["game"]), tags, sample)

    def _add(self, app: App, tags: dict[str, str], sample: Sample) -> None:
        for rate in RATES:
            if sample.metric is rate.metric and rate.outcome in ("", tags.get("outcome")):
                self.sums[app][rate.name] += int(sample.value)
        for name, metric in LEVELS.items():
            if sample.metric is metric:
                self.levels[app][name] += int(sample.value)
        if sample.metric in _REASON_METRICS:
            self.reasons[app][tags["reason"]] += int(sample.value)
        if sample.metric is _LATENCY:
            self.buckets[app] = sample.buckets


class Point(NamedTuple):
    """The changes of an app between two points: numbers by line, and reasons by number."""

    values: dict[str, float | None]
    reasons: Counter[str]


class History:
    """``samples`` says how things stand; ``run`` belongs into a greenlet of its own."""

    def __init__(self, samples: Callable[[], Iterable[Sample]], clock: Callable[[], float] = time.monotonic) -> None:
        self._samples, self._clock = samples, clock
        self._before = GameTotals(())
        self._looked_at: float | None = None
        self._points: deque[dict[App, Point]] = deque(maxlen=POINTS)

    def run(self) -> None:
        """Adds a point every five seconds, without end."""
        while True:
            self.look()
            gevent.sleep(PERIOD_S)

    def look(self) -> None:
        """Notes what happened since the last look; the first one only begins. Never waits."""
        now, totals = self._clock(), GameTotals(self._samples())
        if self._looked_at is not None:
            elapsed_s = max(now - self._looked_at, 0.001)
            apps = totals.sums.keys() | totals.levels.keys()
            self._points.append({app: _point(app, self._before, totals, elapsed_s) for app in apps})
        self._before, self._looked_at = totals, now

    def apps(self) -> list[App]:
        """The apps with any data, in order."""
        return sorted({app for point in self._points for app in point})

    def series(self, app: App) -> dict[str, list[float | None]]:
        """The lines of an app, the oldest point first; None for a missing number."""
        found = [point[app].values if app in point else {} for point in self._points]
        names = {name: None for values in found for name in values}
        return {name: [values.get(name) for values in found] for name in names}

    def latest(self, app: App) -> dict[str, float | None]:
        """The newest point of an app's lines."""
        return self._points[-1][app].values if self._points and app in self._points[-1] else {}

    def ended(self, app: App) -> Counter[str]:
        """How many of an app's pushes ended in which way."""
        total: Counter[str] = Counter()
        for point in self._points:
            if app in point:
                total.update({name: round((point[app].values.get(name) or 0) * PERIOD_S) for name in OUTCOMES})
        return total

    def last_reason(self, app: App) -> dict[str, str | float] | None:
        """Why a push of an app failed last, and how long ago that was at most, in seconds."""
        for age, point in enumerate(reversed(self._points)):
            if app in point and point[app].reasons:
                return {"reason": point[app].reasons.most_common(1)[0][0], "ago_s": (age + 1) * PERIOD_S}
        return None

    def reasons(self, app: App) -> list[tuple[str, int]]:
        """Why pushes of an app failed, the most frequent first."""
        total: Counter[str] = Counter()
        for point in self._points:
            if app in point:
                total.update(point[app].reasons)
        return total.most_common(_REASONS)


def _point(app: App, before: GameTotals, now: GameTotals, elapsed_s: float) -> Point:
    values: dict[str, float | None] = {
        name: round((total - before.sums[app][name]) / elapsed_s, 2) for name, total in now.sums[app].items()
    }
    values |= now.levels[app]
    if app in now.buckets:
        old = before.buckets.get(app, (0,) * len(now.buckets[app]))
        added = [total - part for total, part in zip(now.buckets[app], old, strict=True)]
        values |= {name: quantile(added, share) for name, share in QUANTILES.items()}
    return Point(values, now.reasons[app] - before.reasons[app])


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Milliseconds below which this share of the observations lies; straight within a bucket, None without any."""
    rank = share * sum(buckets)
    if not rank:
        return None
    reached, lower = 0, 0.0
    for number, upper in zip(buckets, BOUNDS_MS, strict=False):
        if reached + number >= rank:
            return round(lower + (upper - lower) * (rank - reached) / number, 2)
        reached, lower = reached + number, upper
    return lower
