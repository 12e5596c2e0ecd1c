"""The frame of every daemon: one source, the publishers, stats, the admin port, upkeep, and the order of the stop.

What a daemon does between source and commit is its ``Work``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

import gevent

from pusher.broker import connect
from pusher.broker.interface import Record
from pusher.broker.offsets import Tracker
from pusher.config import settings
from pusher.config.settings import QueueSettings
from pusher.config.values import Config
from pusher.daemon import readings
from pusher.daemon.admin.port import AdminPort, Watched
from pusher.daemon.consuming import Consuming
from pusher.daemon.process import FLUSH_AT_LEAST_S, Daemon, Step
from pusher.daemon.publishers import Publishers
from pusher.daemon.reporters import open_stats
from pusher.daemon.watchdog import watch
from pusher.errors import StartError
from pusher.push.topics import TopicName
from pusher.telemetry import sentry
from pusher.telemetry.health import Readiness, reasons
from pusher.telemetry.log import tell_left_out
from pusher.telemetry.stats import Sample

_TICK_S = 1.0


class Work(Protocol):
    """What a daemon does. Only ``reload`` and ``drain`` may wait."""

    def wanted(self, topic: str) -> bool:
        """Whether a topic that exists is consumed."""
        ...

    def submit(self, tracker: Tracker, records: Sequence[Record]) -> None:
        """Takes in records of one partition."""
        ...

    def is_full(self, topic: str) -> bool:
        """Whether a topic's partitions should be paused."""
        ...

    def owner(self, topic: str) -> TopicName | None:
        """Whose topic it is."""
        ...

    def tick(self) -> None:
        """About once a second."""
        ...

    def reload(self) -> None:
        """SIGHUP."""
        ...

    def drain(self, left_s: float) -> str:
        """At the stop, after reading has ended: finishes consumed messages, and returns what is left over."""
        ...

    def process_unready(self) -> list[str]:
        """Why no work at all can be done, beside what the frame knows itself; one line a reason."""
        ...

    def apps_unready(self) -> Mapping[str, Sequence[str]]:
        """Why each app is not served; no entry if it is served."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Its figures of this moment."""
        ...


class Frame:
    """The parts, made from the configuration. Raises ``StartError``."""

    def __init__(self, name: str, config: Config, queue: QueueSettings, grace_s: float, work: Work) -> None:
        self._config, self._queue, self._work = config, queue, work
        self.hostname = socket.gethostname()
        self.daemon = Daemon(name, grace_s, work.reload)
        self.greenlets = self.daemon.greenlets
        self.stats = open_stats(config, self.hostname)
        self.publishers = Publishers(config, partial(self.greenlets.fail, "publisher"))
        self.broker = connect.broker(config, queue.at)
        #: The process stops.
        self.stopping = False
        self._readiness = Readiness(self._unready)
        self.admin = AdminPort(
            config, Watched(name, self.samples, self._process_unready, work.apps_unready, self.daemon.failure)
        )

    def open_source(self) -> None:
        """Joins nothing yet: the source is polled once ``start`` was called."""
        work = self._work
        source = self.broker.source(self._queue, work.wanted)
        self.consuming = Consuming(source, work.submit, work.is_full, self._config[self._queue.commit_interval])

    def start(self) -> None:
        """Starts the greenlets that every daemon has. Does not wait."""
        spawn = self.greenlets.spawn
        spawn("stats", self.stats.run)
        spawn("consuming", self.consuming.run)
        spawn("upkeep", self._upkeep)
        spawn("watchdog", partial(watch, self.stats, self.hostname))

    def run(
        self,
        flush: Callable[[float], str],
        after_commit: Sequence[Step] = (),
        after_greenlets: Sequence[Step] = (),
        before_stats: Callable[[], object] = lambda: None,
    ) -> int:
        """Waits for the end, stops in order and returns the exit code.

        ``flush`` waits until outcomes are stored; the steps are what a daemon has to close besides.
        """
        self._before_stats = before_stats
        return self.daemon.run(
            (
                Step("drain", self._drain),
                Step("feedbacks", flush, FLUSH_AT_LEAST_S),
                Step("last commit", self.consuming.leave_group, FLUSH_AT_LEAST_S),
                *after_commit,
                Step("publishers", self.publishers.close),
                Step("admin port", self.admin.stop),
                Step("greenlets", self.daemon.end_greenlets, 1.0),
                *after_greenlets,
                Step("stats", self._flush_stats),
            )
        )

    def samples(self) -> Iterator[Sample]:
        """Every series and every figure of this moment. Never waits."""
        yield from self.stats.snapshot()
        yield from readings.of_kafka(self.consuming, self.publishers, self._work.owner)
        yield from self._work.samples()

    def _process_unready(self) -> list[str]:
        stopping = ["the process stops"] if self.stopping else []
        parts = {"kafka": self.consuming.source.health()} | self.publishers.health()
        return stopping + reasons(parts) + self._work.process_unready()

    def _unready(self) -> list[str]:
        return [*self._process_unready(), *chain.from_iterable(self._work.apps_unready().values())]

    def _upkeep(self) -> None:
        while True:
            gevent.sleep(_TICK_S)
            self._work.tick()
            self.consuming.count_skipped(self.stats)
            self._readiness.report()
            tell_left_out()

    def _drain(self, left_s: float) -> str:
        self.stopping = self.consuming.draining = True
        return self._work.drain(left_s)

    def _flush_stats(self, _left_s: float) -> str:
        self.consuming.count_skipped(self.stats)
        self._before_stats()
        self.stats.flush()
        return ""


def run(command: str, config: Config, work: Callable[[], int]) -> int:
    """A daemon's command: the exit code of ``work``. Raises ``StartError``, which is reported before."""
    sentry.setup(config[settings.SENTRY_URL], command, config[settings.SENTRY_LIBRARY])
    try:
        return work()
    except StartError as error:
        sentry.report(str(error), cmd=command)
        sentry.flush(5.0)
        raise
