"""Draws a soak: `python -m tests.faults.soak.chart soak.jsonl docs/images/soak.svg`.

Panels one below the other share the axis of minutes. The ground is light whatever the page's is, so that the chart can
be read in a dark page too. Wants nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

Sample = Mapping[str, Any]
Point = tuple[float, float]

WIDTH, LEFT, RIGHT, TOP = 960, 70, 24, 56
PANEL, GAP = 120, 48
#: Told apart by those who see no colours by their brightness.
COLOURS = ("#0b5cad", "#d9730d", "#2a7d3f", "#7a3e9d", "#5a6570")
GROUND, INK, GRID, MARK = "#fbfcfd", "#24292f", "#dfe3e8", "#c93c37"


class Line(NamedTuple):
    """One line of a panel."""

    name: str
    points: list[Point]


class Panel(NamedTuple):
    """Lines that share an axis of values, which begins at 0 or is logarithmic."""

    title: str
    lines: list[Line]
    logarithmic: bool = False


def panels(samples: Sequence[Sample]) -> list[Panel]:
    """What is drawn."""
    return [
        Panel("pushes settled a second", [Line("all apps", rates(samples))]),
        Panel("load of the machine's two processors: processes that run or wait to", [Line("1 min", loads(samples))]),
        Panel("CPU, share of one processor", _of_daemons(samples, "cpu")),
        Panel("resident memory, MB", _of_daemons(samples, "rss_mb")),
        Panel("open file descriptors", _of_daemons(samples, "fds")),
        Panel("greenlets", _of_daemons(samples, "greenlets")),
        Panel("median latency, Kafka to feedback, ms", _of_streams(samples, "p50_ms"), logarithmic=True),
        Panel("99th percentile of the same, ms", _of_streams(samples, "p99_ms"), logarithmic=True),
    ]


def rates(samples: Sequence[Sample]) -> list[Point]:
    """Between each two samples."""
    return [
        (later["at_s"] / 60, (later["settled"] - earlier["settled"]) / (later["at_s"] - earlier["at_s"]))
        for earlier, later in pairwise(samples)
    ]


def loads(samples: Sequence[Sample]) -> list[Point]:
    """Load average, which all programs of the machine make."""
    return [(sample["at_s"] / 60, sample["load"]) for sample in samples]


def smooth(points: Sequence[Point], most: int = 240) -> list[Point]:
    """At most so many points: of each few neighbours the middle one."""
    step = math.ceil(len(points) / most)
    groups = [sorted(points[at : at + step], key=lambda point: point[1]) for at in range(0, len(points), max(step, 1))]
    return [(min(point[0] for point in group), group[len(group) // 2][1]) for group in groups]


def _of_daemons(samples: Sequence[Sample], name: str) -> list[Line]:
    return _lines(samples, "daemons", name)


def _of_streams(samples: Sequence[Sample], name: str) -> list[Line]:
    return _lines(samples, "latency", name)


def _lines(samples: Sequence[Sample], group: str, name: str) -> list[Line]:
    points: dict[str, list[Point]] = {}
    for sample in samples:
        for owner, figures in sample[group].items():
            points.setdefault(owner, []).append((sample["at_s"] / 60, figures[name]))
    return [Line(owner, smooth(found)) for owner, found in points.items()]


class Axis(NamedTuple):
    """From a value to a share of a panel's height, and the values that are written beside it."""

    share: Callable[[float], float]
    ticks: list[float]


def axis(panel: Panel) -> Axis:
    """Wide enough for all lines."""
    values = [value for line in panel.lines for _, value in line.points] or [1.0]
    return _logarithmic(values) if panel.logarithmic else _linear(max(values))


def _linear(most: float) -> Axis:
    step = _round_step(most / 3 or 1)
    ticks = [step * number for number in range(max(1, math.ceil(most / step)) + 1)]
    return Axis(lambda value: value / ticks[-1], ticks)


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _logarithmic(values: Iterable[float]) -> Axis:
    known = [max(value, 1.0) for value in values]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known) + 1))
    ticks = [10.0**power for power in range(low, high + 1)]
    return Axis(lambda value: (math.log10(max(value, 1.0)) - low) / (high - low), ticks)


class Drawing:
    """The text of the picture as it grows."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._minutes: float = max(sample["at_s"] for sample in samples) / 60
        self._panels = panels(samples)
        self._events = [(sample["at_s"] / 60, event) for sample in samples for event in sample["events"]]
        self._height = TOP + len(self._panels) * (PANEL + GAP) + 20
        self._parts: list[str] = []

    def text(self) -> str:
        """The whole."""
        attributes = (
            f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._height}" width="{WIDTH}" '
            f'height="{self._height}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}" role="img"'
        )
        self._parts = [
            f"<svg {attributes}>",
            f"<title>{self._minutes:.0f} minutes of pusher: rate, CPU, memory, descriptors, greenlets, latency</title>",
            f'<rect width="{WIDTH}" height="{self._height}" rx="8" fill="{GROUND}"/>',
        ]
        self._legend()
        for number, panel in enumerate(self._panels):
            self._panel(panel, TOP + GAP / 2 + number * (PANEL + GAP))
        return "\n".join([*self._parts, "</svg>", ""])

    def _legend(self) -> None:
        self._label(LEFT, 24, f"{self._minutes:.0f} minutes of pusher", extra='font-size="16" font-weight="600"')
        self._label(LEFT, 44, "thin red lines: a fault; thick ones: Kafka killed and restarted")

    def _panel(self, panel: Panel, top: float) -> None:
        scale = axis(panel)
        self._label(LEFT, top - 8, panel.title, extra='font-weight="600"')
        for tick in scale.ticks:
            y = self._y(scale, top, tick)
            self._parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
            self._label(
                LEFT - 8, y + 4, f"{tick:,.0f}" if tick >= 1 or not tick else f"{tick:.6g}", extra='text-anchor="end"'
            )
        self._faults(top)
        self._minutes_below(top + PANEL)
        x = WIDTH - RIGHT
        for line, colour in reversed(list(zip(panel.lines, COLOURS, strict=False))):
            self._line(line, colour, scale, top)
            self._label(x, top - 8, line.name, extra=f'fill="{colour}" text-anchor="end" font-weight="600"')
            x -= 7 * len(line.name) + 18

    def _line(self, line: Line, colour: str, scale: Axis, top: float) -> None:
        path = " ".join(f"{self._x(minute):.1f},{self._y(scale, top, value):.1f}" for minute, value in line.points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')

    def _faults(self, top: float) -> None:
        for minute, event in self._events:
            width, opacity = (2.5, 0.5) if "Kafka" in event else (1, 0.25)
            self._parts.append(
                f'<path d="M{self._x(minute):.1f} {top:.1f}v{PANEL}" stroke="{MARK}" stroke-width="{width}" '
                f'stroke-opacity="{opacity}"><title>{escape(event)}</title></path>'
            )

    def _minutes_below(self, bottom: float) -> None:
        for minute in _linear(self._minutes).ticks:
            if minute <= self._minutes:
                self._label(self._x(minute), bottom + 15, f"{minute:g} min", extra='text-anchor="middle"')

    def _label(self, x: float, y: float, text: str, *, extra: str = "") -> None:
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>')

    def _x(self, minute: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * minute / self._minutes

    def _y(self, scale: Axis, top: float, value: float) -> float:
        return top + PANEL * (1 - scale.share(value))


def draw(samples: Sequence[Sample]) -> str:
    """The chart as SVG."""
    return Drawing(samples).text()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak.chart", description=__doc__)
    parser.add_argument("samples", type=Path, help="the JSON lines of a soak")
    parser.add_argument("chart", type=Path, help="the SVG to write")
    arguments = parser.parse_args()
    samples = [json.loads(line) for line in arguments.samples.read_text().splitlines()]
    arguments.chart.write_text(draw(samples))


if __name__ == "__main__":
    main()
