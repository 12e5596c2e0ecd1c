"""Line charts as SVG, by hand: a drawing library would be a dependency for a few hundred lines of text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
#: of Okabe and Ito: told apart by colour-blind readers too
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """What it shows, and whether equal distances are equal factors."""

    label: str
    logarithmic: bool = False


class _Scale:
    """Places values on a stretch of the drawing."""

    def __init__(self, values: Iterable[float], begin: float, end: float, *, logarithmic: bool) -> None:
        found = [value for value in values if value > 0 or not logarithmic]
        self._logarithmic = logarithmic
        self._begin, self._end = begin, end
        if logarithmic:
            self._low = float(math.floor(math.log10(min(found))))
            self._high = max(self._low + 1, math.ceil(math.log10(max(found))))
        else:
            self._low, self._high = 0.0, max(found) * 1.1 or 1.0

    def place(self, value: float) -> float:
        """Where a value lies."""
        position = math.log10(value) if self._logarithmic else value
        return self._begin + (position - self._low) / (self._high - self._low) * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Round values along the stretch."""
        if self._logarithmic:
            return [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        rough = self._high / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough)
        return [number * step for number in range(int(self._high / step) + 1)]


def chart(title: str, x: Axis, y: Axis, lines: Mapping[str, Points], limits: Mapping[str, Points] | None = None) -> str:
    """An SVG of lines by name; limits, where given under the same names, are drawn dashed in the same colour."""
    drawn = [*lines.values(), *(limits or {}).values()]
    across = _Scale((x for points in drawn for x, _ in points), LEFT, WIDTH - RIGHT, logarithmic=x.logarithmic)
    up = _Scale((y for points in drawn for _, y in points), HEIGHT - BOTTOM, TOP, logarithmic=y.logarithmic)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
        *_frame(across, up, x, y),
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts += _line(points, across, up, colour)
        parts += _line((limits or {}).get(name, ()), across, up, colour, dashed=True)
        parts += _legend(number, name, colour)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis) -> list[str]:
    parts = []
    for value in across.ticks():
        parts.append(_stroke(across.place(value), TOP, across.place(value), HEIGHT - BOTTOM, "#dddddd"))
        parts.append(_text(across.place(value), HEIGHT - BOTTOM + 16, f"{value:,g}", anchor="middle"))
    for value in up.ticks():
        parts.append(_stroke(LEFT, up.place(value), WIDTH - RIGHT, up.place(value), "#dddddd"))
        parts.append(_text(LEFT - 6, up.place(value) + 4, f"{value:,g}", anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x.label, anchor="middle"))
    turned = _text(0, 0, y.label, anchor="middle")
    parts.append(f'<g transform="translate(16 {middle:.0f}) rotate(-90)">{turned}</g>')
    return parts


def _line(points: Points, across: _Scale, up: _Scale, colour: str, *, dashed: bool = False) -> list[str]:
    if not points:
        return []
    places = [(f"{across.place(x):.1f}", f"{up.place(y):.1f}") for x, y in points]
    dashes = ' stroke-dasharray="4 4" opacity="0.7"' if dashed else ""
    through = " ".join(f"{x},{y}" for x, y in places)
    line = f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    dots = [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
    return [line] if dashed else [line, *dots]


def _legend(number: int, name: str, colour: str) -> list[str]:
    height = TOP + 14 + number * 18
    left = WIDTH - RIGHT + 12
    return [_stroke(left, height - 4, left + 18, height - 4, colour, width=3), _text(left + 24, height, name)]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
