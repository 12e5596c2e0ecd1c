"""Whether a figure stayed flat: the median of the last quarter of a run against that of the second.

The first quarter is left out: caches fill, the group is joined. A median does not mind the seconds of a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple


class Tolerance(NamedTuple):
    """A late median may be `factor` times the early one plus `slack`."""

    factor: float
    slack: float
    unit: str


#: What has to stay flat, of each daemon or of each stream.
TOLERANCES = {
    "rss_mb": Tolerance(1.05, 2, "MB"),
    "blocks": Tolerance(1.05, 10_000, ""),
    "fds": Tolerance(1, 2, ""),
    "greenlets": Tolerance(1, 5, ""),
    "p50_ms": Tolerance(1.5, 20, "ms"),
    "p99_ms": Tolerance(1.5, 50, "ms"),
}


class Flatness(NamedTuple):
    """One figure of one daemon or stream."""

    owner: str
    name: str
    early: float
    late: float
    #: The most that `late` may be.
    limit: float

    @property
    def good(self) -> bool:
        return self.late <= self.limit

    def __str__(self) -> str:
        unit = TOLERANCES[self.name].unit
        figures = f"{self.early:,.1f} -> {self.late:,.1f} {unit}".rstrip()
        return f"{self.owner}: {self.name} {figures}, at most {self.limit:,.1f}: {'flat' if self.good else 'GREW'}"


def flatness(samples: Sequence[Mapping[str, Any]]) -> list[Flatness]:
    """Of every figure that has a tolerance. Samples have `at_s` and, by owner, `daemons` and `latency`."""
    end_s = max(sample["at_s"] for sample in samples)
    early = _series([sample for sample in samples if end_s / 4 < sample["at_s"] <= end_s / 2])
    late = _series([sample for sample in samples if end_s * 3 / 4 < sample["at_s"]])
    found = []
    for owner, name in sorted(early.keys() & late.keys()):
        before = median(early[owner, name])
        limit = before * TOLERANCES[name].factor + TOLERANCES[name].slack
        found.append(Flatness(owner, name, before, median(late[owner, name]), limit))
    return found


def _series(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    series: dict[tuple[str, str], list[float]] = {}
    for owner, name, value in _figures(samples):
        if name in TOLERANCES:
            series.setdefault((owner, name), []).append(value)
    return series


def _figures(samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    for sample in samples:
        for group in ("daemons", "latency"):
            for owner, figures in sample[group].items():
                for name, value in figures.items():
                    yield owner, name, value
