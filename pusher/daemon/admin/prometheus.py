"""Metrics in the text format of Prometheus: all of ``telemetry/metrics.py`` and ``telemetry/figures.py``.

A metric's name there is ``pusher_`` + its name here; counts end in ``_total``, timings are histograms in seconds and
end in ``_seconds``. Tags are labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import BOUNDS_MS, Sample

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "pusher_"
_BOUNDS = (*(repr(bound / 1000) for bound in BOUNDS_MS), "+Inf")
_SUFFIX = {"count": "_total", "gauge": "", "timing": "_seconds"}
#: What ProcessCollector adds of the process: https://prometheus.io/docs/instrumenting/writing_clientlibs/.
PROCESS_NAMES = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def prometheus_name(metric: Metric) -> str:
    """A metric's name in Prometheus, of a histogram without ``_bucket``, ``_sum`` and ``_count``."""
    return f"{_PREFIX}{metric.name}{_SUFFIX[metric.kind]}"


def series_names(metric: Metric) -> tuple[str, ...]:
    """The names that queries may use."""
    name = prometheus_name(metric)
    return tuple(f"{name}{end}" for end in ("_bucket", "_sum", "_count")) if metric.kind == "timing" else (name,)


class Exposition:
    """``samples`` says all there is to say; ``page`` renders it. Never waits."""

    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Samples(samples))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self._registry)


class _Samples(Collector):
    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """One family a metric that has samples."""
        by_metric: dict[Metric, list[Sample]] = {}
        for sample in self._samples():
            by_metric.setdefault(sample.metric, []).append(sample)
        return itertools.starmap(_family, by_metric.items())


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    name = f"{_PREFIX}{metric.name}"
    if metric.kind == "timing":
        histogram = HistogramMetricFamily(f"{name}_seconds", metric.text, labels=metric.tags)
        for sample in samples:
            reached = itertools.accumulate(sample.buckets)
            histogram.add_metric(sample.tags, list(zip(_BOUNDS, reached, strict=True)), sample.value / 1000)
        return histogram
    kind = CounterMetricFamily if metric.kind == "count" else GaugeMetricFamily
    family = kind(name, metric.text, labels=metric.tags)
    for sample in samples:
        family.add_metric(sample.tags, sample.value)
    return family
