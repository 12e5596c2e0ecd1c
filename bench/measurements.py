"""What `python -m bench` measures, one function a measurement; each returns figures by name.

All of them share one Kafka, one backlog a platform and one nginx, so that they can take turns.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench import listener, rates, topics
from bench.create_bench import messages
from bench.daemon import Profile
from bench.ground import Ground, Run, Stretch, Work
from bench.services import CONFLUENT, RECOMMENDED, SERVICES, gcm_simulator
from lab.nginx import Nginx
from lab.processes import ROOT

Figures = dict[str, float]

#: distinct messages of a backlog; as many copies of them as it takes are written
DISTINCT = 100_000
#: enough for two processes to share evenly
BACKLOG_PARTITIONS = 6
#: pushes that a window of Google's holds, and how long an answer takes where the window is the limit
WINDOW, ANSWER_MS = 100, 50
#: apps of one process
MANY_APPS = 100
#: s that a process works before it is looked at
WARM_UP_S = 1.0


class Extent(NamedTuple):
    """How much is measured."""

    backlog: int
    #: of a measurement at full speed, of one at a rate, and in front of the backlog
    seconds: float
    rate_seconds: float
    backlog_seconds: float
    requests: int
    feedbacks: int


FULL = Extent(5_000_000, 5, 15, 20, 100_000, 200_000)
QUICK = Extent(500_000, 3, 5, 8, 30_000, 60_000)


class Bench:
    """Kafka with its backlogs, the providers and a PostgreSQL."""

    def __init__(self, ground: Ground, extent: Extent, cleanup: contextlib.ExitStack) -> None:
        self.ground = ground
        self.extent = extent
        self.nginx = ground.started(Nginx(ground.fresh("nginx")))
        self.nginx_with_log = ground.started(Nginx(ground.fresh("nginx"), log_arrivals=True))
        self.simulator = ground.started(gcm_simulator(ground.fresh("gcm")))
        self.slow_simulator = ground.started(gcm_simulator(ground.fresh("gcm"), latency_ms=ANSWER_MS))
        self.listening = listener.Ground(ground.fresh("listener"), cleanup, ground.kafka)
        self.repeat = 0
        #: of the last run of each measurement: how busy each process was
        self.busy: dict[str, dict[str, float]] = {}
        self._fill("apns", extent.backlog)
        self._fill("gcm", min(extent.backlog, 1_000_000))

    def _fill(self, service: str, number: int) -> None:
        source = SERVICES[service].source()
        self.ground.create(source, partitions=BACKLOG_PARTITIONS)
        self.ground.create(SERVICES[service].feedbacks())
        distinct = min(number, DISTINCT)
        texts = messages(SERVICES[service].platform, distinct, seed=1)
        topics.fill(self.ground.kafka.brokers, source, texts, copies=number // distinct)

    def work(self, service: str, **changes: Any) -> Work:
        """The backlog of a service, at a provider that answers at once, as config/default.yaml sets it up."""
        provider = self.simulator if service == "gcm" else self.nginx
        source = SERVICES[service].source()
        work = Work(SERVICES[service], provider, [source], settings=RECOMMENDED[service])
        return work._replace(**changes)

    def full_speed(self, name: str, work: Work) -> Figures:
        """Work off the backlog for a while."""
        with Run(self.ground, work) as run:
            start_s = run.first_push_s()
            run.await_members()
            time.sleep(WARM_UP_S)
            stretch = run.stretch(self.extent.seconds)
            peak_mb = max(daemon.memory_mb("VmHWM") for daemon in run.daemons)
            run.stop()
        self.busy[name] = stretch.busy()
        return {
            "cpu_us": stretch.cpu_us,
            "rate_s": stretch.rate_s,
            "peak_mb": peak_mb,
            "start_s": start_s,
            "slowest": stretch.slowest_partition() * 100,
        }

    def profile(self, service: str) -> tuple[Profile, Stretch]:
        """The same under the sampling profiler."""
        with Run(self.ground, self.work(service), profile=True) as run:
            run.first_push_s()
            time.sleep(WARM_UP_S)
            run.daemons[0].start_profile()
            stretch = run.stretch(self.extent.seconds)
            profile = run.daemons[0].end_profile()
            run.stop()
        return profile, stretch


def apns(bench: Bench) -> Figures:
    """Apple, as config/default.yaml is."""
    return bench.full_speed("apns", bench.work("apns"))


def defaults(bench: Bench) -> Figures:
    """Apple, with nothing set but addresses and credentials."""
    return bench.full_speed("defaults", bench.work("apns", settings={}))


def librdkafka(bench: Bench) -> Figures:
    """Apple, as config/default.yaml is, with Kafka's other client."""
    return bench.full_speed("librdkafka", bench.work("apns", settings=RECOMMENDED["apns"] | CONFLUENT))


def fcm(bench: Bench) -> Figures:
    """Google's FCM HTTP v1."""
    return bench.full_speed("fcm", bench.work("fcm"))


def gcm(bench: Bench) -> Figures:
    """Google over XMPP."""
    return bench.full_speed("gcm", bench.work("gcm"))


def gcm50(bench: Bench) -> Figures:
    """Google over XMPP, where the window is what limits."""
    figures = bench.full_speed("gcm50", bench.work("gcm", provider=bench.slow_simulator))
    return {**figures, "share": figures["rate_s"] / (WINDOW * 1000 / ANSWER_MS) * 100}


def two(bench: Bench) -> Figures:
    """Two processes share the backlog; beside them one alone, so that drift of the machine takes no part."""
    alone = apns(bench)
    figures = bench.full_speed("two", bench.work("apns", processes=2))
    return {**figures, "growth": (figures["cpu_us"] / alone["cpu_us"] - 1) * 100}


def http2(bench: Bench) -> Figures:
    """The engine without Kafka, in a process of its own."""
    command = [sys.executable, "-m", "bench.http2", "--json", "--runs", "1", "--requests", str(bench.extent.requests)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    ((cpu_us, rate_s),) = json.loads(finished.stdout)
    return {"cpu_us": cpu_us, "rate_s": rate_s}


def feedbacks(bench: Bench) -> Figures:
    """The listener; one token in ten is dead."""
    number = bench.extent.feedbacks
    found = listener.measure(bench.listening, f"dead{bench.repeat}", number, number, dead_every=10)
    if not found.right:
        raise RuntimeError("the listener left a wrong table")
    return {"cpu_us": found.cpu_us, "rate_s": found.rate_s, "peak_mb": found.peak_memory_mb}


def many_apps(bench: Bench) -> Figures:
    """An app for each of many topics of one partition, in one process; beside them one app, because of drift."""
    apps = [f"game{number}" for number in range(MANY_APPS)]
    sources = [SERVICES["apns"].source(app) for app in apps]
    if not bench.repeat:
        bench.ground.create(*sources, *map(SERVICES["apns"].feedbacks, apps), partitions=1)
        texts = list(messages("apns", 1000, seed=1))
        for source in sources:
            topics.fill(bench.ground.kafka.brokers, source, texts, copies=5)
    alone = apns(bench)
    figures = bench.full_speed("apps", bench.work("apns", apps=apps, topics=sources))
    kafka = bench.busy["apps"]["kafka"] * 100
    return {**figures, "growth": figures["cpu_us"] / alone["cpu_us"], "kafka": kafka}


def backlog(bench: Bench) -> Figures:
    """What a process holds while millions wait."""
    with Run(bench.ground, bench.work("apns")) as run:
        run.first_push_s()
        time.sleep(WARM_UP_S * 3)
        before_mb = run.daemons[0].memory_mb()
        run.stretch(bench.extent.backlog_seconds)
        figures = {
            "peak_mb": run.daemons[0].memory_mb("VmHWM"),
            "grown_mb": run.daemons[0].memory_mb() - before_mb,
        }
        run.stop()
    return figures


#: in the order in which they take turns
MEASUREMENTS: dict[str, Callable[[Bench], Figures]] = {
    "apns": apns,
    "librdkafka": librdkafka,
    "http2": http2,
    "fcm": fcm,
    "two": two,
    "apps": many_apps,
    "gcm": gcm,
    "rates": rates.measure,
    "librdkafka_rates": partial(rates.measure, settings=CONFLUENT),
    "defaults": defaults,
    "listener": feedbacks,
    "gcm50": gcm50,
    "backlog": backlog,
}
#: measured once: it takes long and shows no scatter
ONCE = ("backlog",)
#: services whose CPU time is split by part at the end
PROFILED = ("apns", "fcm", "gcm")
