"""What the status page shows, as plain data: the history's lines, and how things stand now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pusher.daemon.admin.history import PERIOD_S, POINTS, App, History
from pusher.telemetry import figures
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Sample

_APP_TAGS = ("platform", "game")
_PARTITION_TAGS = (*_APP_TAGS, "topic", "partition")
_PARTITION_VALUES = {figures.CONSUMER_LAG: "lag", figures.OLDEST_UNFINISHED: "oldest_s"}


def status(samples: Iterable[Sample], history: History) -> dict[str, Any]:
    """``apps``: of each its figures (``now``), ``outcomes``, ``reasons`` and ``series``; ``partitions``."""
    now: dict[App, dict[str, float]] = {}
    outcomes: dict[App, dict[str, float]] = {}
    partitions: dict[tuple[str, ...], dict[str, float]] = {}
    for metric, tags, value, *_ in samples:
        if metric is figures.OUTCOMES:
            outcomes.setdefault((tags[0], tags[1]), {})[tags[2]] = value
        elif _is_figure(metric, _APP_TAGS):
            now.setdefault((tags[0], tags[1]), {})[metric.name] = value
        elif metric in _PARTITION_VALUES:
            partitions.setdefault(tags, {})[_PARTITION_VALUES[metric]] = value
    return {
        "period_s": PERIOD_S,
        "points": POINTS,
        "apps": [
            {
                "platform": app[0],
                "game": app[1],
                "now": now.get(app, {}),
                "outcomes": outcomes.get(app, {}),
                "reasons": history.reasons(app),
                "series": history.series(app),
            }
            for app in sorted({*now, *history.apps()})
        ],
        "partitions": [
            dict(zip(_PARTITION_TAGS, tags, strict=True)) | values for tags, values in sorted(partitions.items())
        ],
    }


def _is_figure(metric: Metric, tags: tuple[str, ...]) -> bool:
    return metric.tags == tags and metric in figures.ALL
