"""What a process costs while little comes in: CPU time as a share of one core, and latency."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bench import topics
from bench.create_bench import messages
from bench.ground import Run
from bench.services import SERVICES
from bench.throughput import latency, percentile

if TYPE_CHECKING:
    from bench.measurements import Bench, Figures

APNS = SERVICES["apns"]
PARTITIONS = 4
#: pushes a second
RATES_S = (10, 100, 1000)
#: s until a process that has joined does nothing but wait
SETTLING_S = 4.0


def measure(bench: "Bench", settings: Mapping[str, str] | None = None) -> "Figures":
    """At rest and at each rate: per cent of a core, median and 99th percentile from Kafka's timestamp to accepted."""
    # tokens of its own, by which nginx tells what arrived
    first = bench.repeat + (500_000 if settings else 0)
    kind = "-".join(["rates", *(settings or {}).values(), str(bench.repeat)])
    source = APNS.source(kind=kind)
    bench.ground.create(source, partitions=PARTITIONS)
    seconds = bench.extent.rate_seconds
    figures: Figures = {}
    with Run(
        bench.ground, bench.work("apns", provider=bench.nginx_with_log, topics=[source], settings=settings or {})
    ) as run:
        run.await_members()
        _push(bench, run, source, 10, seed=first)  # what is new to a process costs more
        time.sleep(SETTLING_S)
        figures["idle_cpu"] = _share(run, lambda: time.sleep(seconds))
        figures["idle_mb"] = run.daemons[0].memory_mb()
        for rate_s in RATES_S:
            found = _push(bench, run, source, int(rate_s * seconds), rate_s, seed=1000 * (first + 1) + rate_s)
            figures |= {f"{name}_{rate_s}": value for name, value in found.items()}
        run.stop()
    return figures


def _push(bench: "Bench", run: Run, source: str, number: int, rate_s: float = 100, *, seed: int) -> "Figures":
    brokers, before = bench.ground.kafka.brokers, run.feedbacks.count()
    texts = list(messages("apns", number, seed=seed))
    with contextlib.closing(topics.Watcher(brokers, source)) as requests:
        cpu = _share(run, lambda: topics.write(brokers, source, texts, rate_s=rate_s))
        run.await_pushes(before + number)
        accepted = latency(requests, run.feedbacks, bench.nginx_with_log, APNS).accepted
    if len(accepted) != number:
        raise RuntimeError(f"{len(accepted):,} of {number:,} pushes arrived at nginx")
    return {"cpu": cpu, "p50": percentile(accepted, 0.5), "p99": percentile(accepted, 0.99)}


def _share(run: Run, work: Callable[[], object]) -> float:
    """Per cent of a core that the process takes meanwhile."""
    began, used_s = time.monotonic(), run.daemons[0].cpu_s()
    work()
    return (run.daemons[0].cpu_s() - used_s) / (time.monotonic() - began) * 100
