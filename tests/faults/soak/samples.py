"""What is seen of the daemons and the streams at one moment: from /proc, from /metrics, and from the account."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.processes import Daemon
from tests.faults.soak.streams import Stream

_SAMPLE = re.compile(r"^(pusher_\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Metrics:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SAMPLE.findall(text)
        ]

    @classmethod
    def ask(cls, port: int) -> Metrics:
        """Of the daemon with this admin port; raises OSError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return cls(answer.read().decode())

    def total(self, name: str, **labels: str) -> float:
        """The sum over the series that have these labels."""
        return sum(value for found, have, value in self._samples if found == name and labels.items() <= have.items())

    def by(self, name: str, label: str, **labels: str) -> dict[str, int]:
        """The same for each value of one label."""
        values = {have[label] for found, have, _ in self._samples if found == name and label in have}
        totals = {value: int(self.total(name, **{**labels, label: value})) for value in sorted(values)}
        return {value: total for value, total in totals.items() if total}


class Watched:
    """A daemon, and what it had used at the last look."""

    def __init__(self, daemon: Daemon, admin_port: int) -> None:
        self.daemon, self.admin_port = daemon, admin_port
        self._cpu_s = self._at_s = 0.0

    def metrics(self) -> Metrics:
        return Metrics.ask(self.admin_port)

    def sample(self, now_s: float) -> dict[str, float]:
        """Figures of this moment; `cpu` is the share of one processor since the last look."""
        metrics = self.metrics()
        cpu_s = self.daemon.cpu_s()
        share = (cpu_s - self._cpu_s) / max(now_s - self._at_s, 0.001)
        self._cpu_s, self._at_s = cpu_s, now_s
        return {
            "rss_mb": self.daemon.memory_mb(),
            "fds": sum(1 for _ in Path(f"/proc/{self.daemon.child.pid}/fd").iterdir()),
            "greenlets": metrics.total("pusher_num_goroutine"),
            "blocks": metrics.total("pusher_heap_objects"),
            "cpu": share,
            "lag": metrics.total("pusher_consumer_lag"),
        }


def latency(streams: list[Stream]) -> Iterator[tuple[str, dict[str, float]]]:
    """Of each stream since the last look, in ms; nothing of one that stood still."""
    for stream in streams:
        if found := stream.take_latencies():
            yield stream.name, {"p50_ms": _percentile(found, 0.5), "p99_ms": _percentile(found, 0.99)}


def progress(streams: list[Stream]) -> Mapping[str, Any]:
    """Messages of all streams so far."""
    return {
        "produced": sum(stream.account.produced for stream in streams),
        "settled": sum(stream.account.settled for stream in streams),
    }


def _percentile(values: list[int], share: float) -> float:
    """Of sorted values."""
    return float(values[min(len(values) - 1, int(len(values) * share))])
