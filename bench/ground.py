"""Where pusher is measured: a Kafka of the bench's own, backlogs in it, and pushers that work them off.

The messages wait in Kafka before pusher starts. CPU time is pusher's alone, so that the other processes on the machine
disturb it little. Every run has a consumer group of its own and begins at the start of the topics, so that one backlog
serves many runs.
"""

import contextlib
import itertools
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from bench import topics
from bench.daemon import Measured
from bench.services import Provider, Service, common_settings
from lab.kafka.server import KafkaServer
from lab.processes import cpu_s

AnyProvider = TypeVar("AnyProvider", bound=Provider)

#: s without progress after which a run has failed
PATIENCE_S = 60


class Work(NamedTuple):
    """What pushers are given to do."""

    service: Service
    provider: Provider
    #: Topics of requests.
    topics: Sequence[str]
    apps: Sequence[str] = ("game",)
    #: Dotted keys, beside what the service needs; nothing else is set.
    settings: Mapping[str, Any] = {}
    processes: int = 1


class Look(NamedTuple):
    """What has been done and used when somebody looked."""

    pushes: int
    pushes_of_topic: Mapping[str, int]
    committed: Mapping[tuple[str, int], int]
    clock_s: float
    pusher_s: float
    provider_s: float
    kafka_s: float
    bench_s: float


class Stretch(NamedTuple):
    """What was seen between two looks; CPU times are of all processes of pusher together."""

    before: Look
    after: Look

    @property
    def pushes(self) -> int:
        """Feedbacks that were stored."""
        return self.after.pushes - self.before.pushes

    @property
    def seconds(self) -> float:
        """Time that passed."""
        return self.after.clock_s - self.before.clock_s

    @property
    def rate_s(self) -> float:
        """Pushes a second."""
        return self.pushes / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time a push."""
        return (self.after.pusher_s - self.before.pusher_s) / max(self.pushes, 1) * 1e6

    def busy(self) -> dict[str, float]:
        """Share of one core that each kept busy: who is the limit?"""
        shares = {}
        for name in ("pusher", "provider", "kafka", "bench"):
            used_s = getattr(self.after, f"{name}_s") - getattr(self.before, f"{name}_s")
            shares[name] = used_s / self.seconds
        return shares

    def slowest_partition(self) -> float:
        """How far the partition that moved least came, as a share of the mean."""
        moved = [end - self.before.committed.get(partition, 0) for partition, end in self.after.committed.items()]
        return min(moved) / (sum(moved) / len(moved))


class Ground:
    """Kafka and providers in a directory; what has to be stopped goes to cleanup."""

    def __init__(self, directory: Path, cleanup: contextlib.ExitStack) -> None:
        self.directory = directory
        self.cleanup = cleanup
        self._numbers = itertools.count(1)
        self.kafka = KafkaServer(directory / "kafka")
        cleanup.callback(self.kafka.stop)
        self.kafka.start()
        self.statsd = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.statsd.bind(("127.0.0.1", 0))
        self.admin = KafkaAdminClient(bootstrap_servers=self.kafka.brokers)
        cleanup.callback(self.admin.close)

    def fresh(self, name: str) -> Path:
        """Path of a directory that does not exist yet."""
        return self.directory / f"{name}-{next(self._numbers)}"

    def started(self, provider: AnyProvider) -> AnyProvider:
        """A provider, started until the end of the bench."""
        self.cleanup.callback(provider.stop)
        provider.start()
        return provider

    def create(self, *names: str, partitions: int = topics.PARTITIONS) -> None:
        """Make topics."""
        topics.create(self.kafka.brokers, names, partitions)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Offsets of a group, by topic and partition."""
        try:
            found = self.admin.list_group_offsets([group])[group]
        except (KeyError, KafkaError):  # nobody has committed or looked for the group's coordinator yet
            return {}
        return {tuple(partition): offset.offset for partition, offset in found.items() if offset.offset > 0}

    def members(self, group: str) -> int:
        """How many members of a group have partitions."""
        try:
            members = self.admin.describe_groups([group])[group]["members"]
        except (KeyError, KafkaError):  # as above
            return 0
        assignments = [member["member_assignment"] or {} for member in members]
        return sum(bool(assignment.get("assigned_partitions")) for assignment in assignments)


class Run:
    """Pushers at work, from start() to stop()."""

    def __init__(self, ground: Ground, work: Work, *, profile: bool = False) -> None:
        self._ground = ground
        self._work = work
        directory = ground.fresh("run")
        directory.mkdir()
        self._group = directory.name
        feedbacks = [work.service.feedbacks(app) for app in work.apps]
        self.feedbacks = topics.Watcher(ground.kafka.brokers, *feedbacks)
        settings = work.service.settings(work.provider, directory, work.apps)
        own = [
            common_settings(ground.kafka.brokers, self._group, work.topics, ground.statsd)
            for _ in range(work.processes)
        ]
        self._began_ms = time.time() * 1000
        self.daemons = [
            Measured(
                directory / str(number),
                work.service.platform,
                {**settings, **common, **work.settings},
                profile=profile,
            )
            for number, common in enumerate(own)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self.daemons:
            daemon.kill()
        self.feedbacks.close()

    def check(self) -> None:
        """RuntimeError when a pusher has died."""
        for daemon in self.daemons:
            daemon.check()

    def await_until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition. RuntimeError when it does not come true, or a pusher has died."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not in {PATIENCE_S} s; {self.daemons[0].last_words()}")
            time.sleep(0.02)

    def first_push_s(self) -> float:
        """Wait for the first feedback. Returns the time from the start of the process to the feedback's timestamp."""
        self.await_until("first feedback", lambda: self.feedbacks.count() > 0)
        return (self.feedbacks.first_ms() - self._began_ms) / 1000

    def await_members(self) -> None:
        """Wait until every process has partitions."""
        self.await_until("joining", lambda: self._ground.members(self._group) == self._work.processes)

    def await_pushes(self, number: int) -> int:
        """Wait for that many feedbacks, or until none came for PATIENCE_S. Returns how many there are."""
        seen, changed = self.feedbacks.count(), time.monotonic()
        while seen < number and time.monotonic() - changed < PATIENCE_S:
            self.check()
            time.sleep(0.05)
            if (count := self.feedbacks.count()) != seen:
                seen, changed = count, time.monotonic()
        return seen

    def look(self) -> Look:
        """What is done by now. Asking Kafka takes a while: clock and CPU times are the means of before and after."""
        before = self._times()
        counts = self.feedbacks.counts()
        times = {name: (used + before[name]) / 2 for name, used in self._times().items()}
        committed = self._ground.committed(self._group)
        return Look(pushes=sum(counts.values()), pushes_of_topic=counts, committed=committed, **times)

    def _times(self) -> dict[str, float]:
        return {
            "clock_s": time.monotonic(),
            "pusher_s": sum(daemon.cpu_s() for daemon in self.daemons),
            "provider_s": cpu_s(self._work.provider.pid),
            "kafka_s": cpu_s(self._ground.kafka.pid),
            "bench_s": time.process_time(),
        }

    def stretch(self, seconds: float) -> Stretch:
        """Let it work for a while."""
        before = self.look()
        time.sleep(seconds)
        self.check()
        return Stretch(before, self.look())

    def stop(self) -> float:
        """End all in order. Returns seconds; RuntimeError when a finished request has no feedback."""
        began = time.monotonic()
        for daemon in self.daemons:
            daemon.signal(signal.SIGTERM)
        for daemon in self.daemons:
            if status := daemon.wait(60):
                raise RuntimeError(f"pusher stopped with status {status}; {daemon.last_words()}")
        seconds = time.monotonic() - began
        finished, fed_back = sum(self._ground.committed(self._group).values()), self.feedbacks.count()
        # more feedbacks than that are repeats: a partition changed hands while pushes of it were in flight
        if finished > fed_back:
            raise RuntimeError(f"{finished:,} requests are finished, but only {fed_back:,} feedbacks were stored")
        return seconds


def reference_s() -> float:
    """CPU time of a fixed piece of Python: tells how fast the machine is just now, and compares machines."""
    began = time.process_time()
    counts: dict[str, int] = {}
    for number in range(1_000_000):
        key = f"{number % 1009:x}"
        counts[key] = counts.get(key, 0) + len(key)
    return time.process_time() - began
