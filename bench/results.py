"""What was measured, as the Markdown that `python -m bench` prints and writes to bench/results.md."""

import datetime
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench.daemon import Profile
from bench.document import Table, markdown
from bench.goals import GOALS, Goal
from bench.ground import Stretch
from bench.throughput import shares_us

DRIFT = (
    "The reference loop took {lowest:.0f} to {highest:.0f} ms of CPU: far apart means that other programs disturbed "
    "the machine, and that the lowest CPU times are nearest to the truth."
)
CONDITIONS = (
    "Kafka, PostgreSQL, the providers and the bench ran on the same cores. The backlog held {backlog:,} messages. CPU "
    "time is that of pusher's processes alone. *Scaled* is the median of CPU times as a machine would need them whose "
    "reference loop takes {reference_ms} ms, as this kind does when it is idle; it takes 40 ms for "
    "`sum(i * i for i in range(10**6))`. A goal is met when the scaled median, or where there is none the median, "
    "meets it."
)
#: Reference loop of the machine that CPU times are scaled to.
_REFERENCE_MS = 190


@dataclass
class Results:
    """Every value of every figure in the order of measuring, each beside the reference loop of that moment."""

    command: str
    backlog: int
    #: "apns.cpu_us" -> values
    values: dict[str, list[float]] = field(default_factory=dict)
    #: "apns" -> ms of the reference loop around each of its runs
    references_ms: dict[str, list[float]] = field(default_factory=dict)
    busy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    profiles: dict[str, tuple[Profile, Stretch]] = field(default_factory=dict)

    def add(self, measurement: str, reference_s: float, figures: Mapping[str, float]) -> None:
        """What one run of a measurement found."""
        self.references_ms.setdefault(measurement, []).append(reference_s * 1000)
        for name, value in figures.items():
            self.values.setdefault(f"{measurement}.{name}", []).append(value)

    def scaled(self, goal: Goal) -> float | None:
        """The median of CPU times on the machine that they are scaled to; None for all else."""
        if not goal.is_cpu_time:
            return None
        references = self.references_ms[goal.figure.partition(".")[0]]
        pairs = zip(self.values[goal.figure], references, strict=True)
        return statistics.median(value * _REFERENCE_MS / reference for value, reference in pairs)

    def met(self, goal: Goal) -> bool:
        """Whether what was measured is good enough."""
        scaled = self.scaled(goal)
        return goal.met(statistics.median(self.values[goal.figure]) if scaled is None else scaled)


def missed(results: Results) -> list[Goal]:
    """Goals whose median is not good enough."""
    return [goal for goal in GOALS if goal.figure in results.values and not results.met(goal)]


def goal_table(results: Results) -> Table:
    """Goal and measured side by side."""
    rows = [["what", "goal", "median", "lowest", "highest", "scaled", "", "reference loop, ms"]]
    for goal in GOALS:
        if values := results.values.get(goal.figure):
            measured = [goal.shown(found) for found in (statistics.median(values), min(values), max(values))]
            scaled = results.scaled(goal)
            measured.append("" if scaled is None else goal.shown(scaled))
            verdict = ("met" if results.met(goal) else "NOT MET") if goal.text() else ""
            references = results.references_ms[goal.figure.partition(".")[0]]
            span = f"{min(references):.0f}-{max(references):.0f}"
            rows.append([f"{goal.what}, {goal.unit}", goal.text(), *measured, verdict, span])
    return rows


def repeats_table(results: Results) -> Table:
    """All values in order, so that drift of the machine is seen."""
    rows = [["figure", "reference loop, ms", "values in the order of measuring"]]
    for figure, values in results.values.items():
        references = results.references_ms[figure.partition(".")[0]]
        rows.append([figure, _joined(references, ".0f"), _joined(values, ",.2f")])
    return rows


def _joined(values: Iterable[float], how: str) -> str:
    return " · ".join(format(value, how) for value in values)


def busy_table(busy: Mapping[str, Mapping[str, float]]) -> Table:
    """How much of a core each process took."""
    names = sorted({name for shares in busy.values() for name in shares})
    return [["measurement", *names], *([of, *(f"{shares[name]:.0%}" for name in names)] for of, shares in busy.items())]


def parts_table(profile: Profile, stretch: Stretch) -> Table:
    """CPU time a push by part."""
    rows = [["part", "us a push", "share"]]
    for part, used_us in shares_us(profile, stretch).items():
        rows.append([part, f"{used_us:.1f}", f"{used_us / stretch.cpu_us:.1%}"])
    return rows


def functions_table(profile: Profile, stretch: Stretch, number: int = 15) -> Table:
    """The functions that took most."""
    total = max(sum(profile.parts.values()), 1)
    busiest = list(profile.functions.items())[:number]
    return [["function", "us a push"], *([name, f"{count / total * stretch.cpu_us:.1f}"] for name, count in busiest)]


def machine() -> str:
    """Processor, cores, memory, versions."""
    model = _first_line("/proc/cpuinfo", "model name").partition(":")[2].strip()
    memory_gb = int(_first_line("/proc/meminfo", "MemTotal").split()[1]) / 1024**2
    packages = ", ".join(f"{name} {version(name)}" for name in ("gevent", "kafka-python", "h2"))
    return (
        f"{os.cpu_count()} cores ({model}), {memory_gb:.0f} GB, Linux {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}, {packages}"
    )


def _first_line(file: str, start: str) -> str:
    return next((line for line in Path(file).read_text().splitlines() if line.startswith(start)), f"{start}: 0")


def document(results: Results) -> str:
    """All of it."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    references = [value for values in results.references_ms.values() for value in values]
    now = datetime.datetime.now(datetime.UTC)
    parts = [
        "<!-- Written by `make bench`. -->\n# Results",
        f"{now:%Y-%m-%d %H:%M} UTC, `{results.command}`",
        f"{machine()}; load averages at the end {load}.",
        DRIFT.format(lowest=min(references), highest=max(references)),
        CONDITIONS.format(backlog=results.backlog, reference_ms=_REFERENCE_MS),
        markdown(goal_table(results)),
        "## Every repeat",
        markdown(repeats_table(results)),
        "## Who was busy\n\nShare of one core, in the last run of each measurement.",
        markdown(busy_table(results.busy)),
    ]
    for service, (profile, stretch) in results.profiles.items():
        parts += [
            f"## {service}: CPU time by part\n\n{sum(profile.parts.values()):,} samples.",
            markdown(parts_table(profile, stretch)),
            markdown(functions_table(profile, stretch)),
        ]
    return "\n\n".join(parts) + "\n"
