"""What the status page shows, as plain data: a line of each app, and one app with its history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pusher.daemon.admin.history import OUTCOMES, PERIOD_S, POINTS, App, History
from pusher.telemetry import figures
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Sample

_APP_TAGS = ("platform", "game")
_PARTITION_VALUES = {figures.CONSUMER_LAG: "lag", figures.OLDEST_UNFINISHED: "oldest_s"}
#: What a line shows of the last five seconds.
_LATEST = ("feedbacks", "deleted", "p50", "p99")
#: Outcomes that are no success.
_REFUSED = ("rejected", "failed")

Unready = Mapping[str, Sequence[str]]


class Standing:
    """The current state, by app."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.figures: dict[App, dict[str, float]] = {}
        self.outcomes: dict[App, dict[str, float]] = {}
        self._partitions: dict[App, dict[tuple[str, str], dict[str, float]]] = {}
        for metric, tags, value, *_ in samples:
            if metric is figures.OUTCOMES:
                self.outcomes.setdefault((tags[0], tags[1]), {})[tags[2]] = value
            elif metric.tags == _APP_TAGS and metric in figures.ALL:
                self.figures.setdefault((tags[0], tags[1]), {})[metric.name] = value
            elif metric in _PARTITION_VALUES:
                self._note(metric, tags, value)

    def _note(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        of_app = self._partitions.setdefault((tags[0], tags[1]), {})
        of_app.setdefault((tags[2], tags[3]), {})[_PARTITION_VALUES[metric]] = value

    def partitions(self, app: App) -> list[dict[str, Any]]:
        """Of an app: ``topic``, ``partition``, ``lag``, ``oldest_s``."""
        found = sorted(self._partitions.get(app, {}).items())
        return [{"topic": topic, "partition": partition} | values for (topic, partition), values in found]


def overview(samples: Iterable[Sample], history: History, unready: Unready) -> dict[str, Any]:
    """``apps``: a line of each; it stays small whatever their number."""
    standing = Standing(samples)
    apps = sorted({*standing.figures, *history.apps()})
    return {"apps": [_line(app, standing, history, unready) for app in apps]}


def of_app(samples: Iterable[Sample], history: History, unready: Unready, app: App) -> dict[str, Any]:
    """``app``: its line, with ``outcomes`` and ``reasons`` of failures, the ``series`` of charts, ``partitions``."""
    standing = Standing(samples)
    more = {
        "outcomes": standing.outcomes.get(app, {}),
        "reasons": history.reasons(app),
        "series": history.series(app),
        "partitions": standing.partitions(app),
    }
    return {"period_s": PERIOD_S, "points": POINTS, "app": _line(app, standing, history, unready) | more}


def _line(app: App, standing: Standing, history: History, unready: Unready) -> dict[str, Any]:
    latest, ended = history.latest(app), history.ended(app)
    partitions = standing.partitions(app)
    return {
        "platform": app[0],
        "game": app[1],
        "not_ready": list(unready.get(app[1], ())),
        "now": standing.figures.get(app, {}),
        "rate": sum(latest.get(name) or 0 for name in OUTCOMES),
        "refused": sum(ended[name] for name in _REFUSED),
        "ended": sum(ended.values()),
        "lag": sum(partition.get("lag", 0) for partition in partitions),
        "oldest_s": max((partition.get("oldest_s", 0) for partition in partitions), default=0),
        "last_error": history.last_reason(app),
    } | {name: latest.get(name) for name in _LATEST}
