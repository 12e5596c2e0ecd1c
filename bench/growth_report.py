"""What bench/growth.py measured, as charts in docs/images and tables in docs/performance.md."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.chart import Axis, chart
from bench.document import Table, markdown, rewrite

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
PAGE = ROOT / "docs" / "performance.md"

#: share of a core that a process may take when the load is planned: the rest is for bursts and for catching up
PLANNED_LOAD = 0.7
#: for which sizes are worked out
SIZED_RATES = (1_000, 5_000, 20_000, 100_000)
SIZED_LATENCY_MS = 50

Point = Mapping[str, float]
#: name of a file -> its SVG
Charts = Callable[[Sequence[Point]], dict[str, str]]


def write(measured: Mapping[str, Sequence[Point]]) -> None:
    """Draw and tabulate every series that was measured."""
    for name, points in measured.items():
        for file, drawing in CHARTS[name](points).items():
            (IMAGES / f"growth-{file}.svg").write_text(drawing)
        rewrite(PAGE, f"growth {name}", markdown(TABLES[name](points)))
    if "window" in measured:
        rewrite(PAGE, "growth sizing", markdown(sizing(measured["window"])))


def limit_s(point: Point) -> float:
    """Pushes a second that a window admits."""
    return point["window"] / point["latency_ms"] * 1000


def window_charts(points: Sequence[Point]) -> dict[str, str]:
    """Rate and cost against the window, a line for each latency."""
    latencies = sorted({point["latency_ms"] for point in points})

    def lines(value: Callable[[Point], float]) -> dict[str, list[tuple[float, float]]]:
        return {
            f"{latency:g} ms": [(p["window"], value(p)) for p in points if p["latency_ms"] == latency]
            for latency in latencies
        }

    best_s = max(point["rate_s"] for point in points)
    window = Axis("requests in flight at most (apns.concurrentWorkers)", logarithmic=True)
    return {
        "window-rate": chart(
            "Pushes a second, by the provider's latency",
            window,
            Axis("pushes/s", logarithmic=True),
            lines(lambda point: point["rate_s"]),
            # drawn up to what one process reaches at all
            lines(lambda point: min(limit_s(point), best_s)),
        ),
        "window-cpu": chart(
            "CPU a push, by the provider's latency",
            window,
            Axis("us a push", logarithmic=True),
            lines(lambda point: point["cpu_us"]),
        ),
    }


def against(name: str, label: str, title: str, *, logarithmic: bool = True) -> Charts:
    """Charts of CPU time a push against one quantity."""

    def charts(points: Sequence[Point]) -> dict[str, str]:
        line = {"CPU": [(point[name], point["cpu_us"]) for point in points]}
        return {name: chart(title, Axis(label, logarithmic=logarithmic), Axis("us a push"), line)}

    return charts


def rate_charts(points: Sequence[Point]) -> dict[str, str]:
    """Latency against the rate, and what a push costs there."""
    offered = Axis("pushes a second that come in", logarithmic=True)
    times = {name: [(point["offered_s"], point[f"{name}_ms"]) for point in points] for name in ("p50", "p99")}
    cost = {"CPU": [(point["offered_s"], point["cpu_us"]) for point in points]}
    return {
        "rate-latency": chart("Kafka's timestamp to accepted", offered, Axis("ms"), times),
        "rate-cpu": chart("CPU a push when nothing waits", offered, Axis("us a push"), cost),
    }


CHARTS: dict[str, Charts] = {
    "window": window_charts,
    "apps": against("apps", "apps of one process", "CPU a push by the number of apps"),
    "partitions": against("partitions", "partitions of one topic", "CPU a push by the number of partitions"),
    "size": against("octets", "octets of a message", "CPU a push by the size of messages"),
    "errors": against("percent", "% of tokens refused", "CPU a push by the share of errors", logarithmic=False),
    "rate": rate_charts,
}

#: column -> how a value of it is shown
COLUMNS: dict[str, tuple[str, Callable[[Point], str]]] = {
    "rate": ("pushes/s", lambda point: f"{point['rate_s']:,.0f}"),
    "cpu": ("CPU, us a push", lambda point: f"{point['cpu_us']:.1f}"),
    "memory": ("peak, MB", lambda point: f"{point['peak_mb']:.0f}"),
    "pusher": ("pusher's core", lambda point: f"{point['pusher_busy']:.0%}"),
    "provider": ("nginx's core", lambda point: f"{point['provider_busy']:.0%}"),
    "kafka": ("Kafka's core", lambda point: f"{point['kafka_busy']:.0%}"),
    "reference": ("reference, ms", lambda point: f"{point['reference_ms']:.0f}"),
    "latency_ms": ("answers after, ms", lambda point: f"{point['latency_ms']:g}"),
    "window": ("window", lambda point: f"{point['window']:g}"),
    "limit": ("window / latency", lambda point: f"{limit_s(point):,.0f}"),
    "apps": ("apps", lambda point: f"{point['apps']:g}"),
    "partitions": ("partitions", lambda point: f"{point['partitions']:g}"),
    "octets": ("octets", lambda point: f"{point['octets']:,g}"),
    "percent": ("refused, %", lambda point: f"{point['percent']:g}"),
    "offered": ("come in, 1/s", lambda point: f"{point['offered_s']:,g}"),
    "p50": ("p50, ms", lambda point: f"{point['p50_ms']:.1f}"),
    "p99": ("p99, ms", lambda point: f"{point['p99_ms']:.1f}"),
}


def table(*columns: str) -> Callable[[Sequence[Point]], Table]:
    """A table of these columns, a row for each point."""

    def rows(points: Sequence[Point]) -> Table:
        head = [COLUMNS[column][0] for column in columns]
        return [head, *([COLUMNS[column][1](point) for column in columns] for point in points)]

    return rows


_LOAD = ("rate", "cpu", "memory", "pusher", "provider", "kafka", "reference")
TABLES: dict[str, Callable[[Sequence[Point]], Table]] = {
    "window": table("latency_ms", "window", "limit", *_LOAD),
    "apps": table("apps", *_LOAD),
    "partitions": table("partitions", *_LOAD),
    "size": table("octets", *_LOAD),
    "errors": table("percent", *_LOAD),
    "rate": table("offered", "p50", "p99", "cpu", "reference"),
}


def sizing(points: Sequence[Point]) -> Table:
    """Processes and windows for some rates, from what a push costs in a wide window."""
    measured = [point for point in points if point["latency_ms"] == SIZED_LATENCY_MS]
    cpu_us = next(point["cpu_us"] for point in measured if point["window"] == 300)
    each_s = PLANNED_LOAD / cpu_us * 1e6
    rows = [["pushes/s", "processes", "window of each, at least"]]
    for rate_s in SIZED_RATES:
        processes = math.ceil(rate_s / each_s)
        rows.append([f"{rate_s:,}", str(processes), str(math.ceil(rate_s / processes * SIZED_LATENCY_MS / 1000))])
    return rows
