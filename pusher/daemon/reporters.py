"""The reporters that ``stats.reporters`` and ``feedback.reporters`` name; each is a plug-in.

A fault of a reporter affects only that reporter. If one cannot be loaded, the log names it: a stats reporter is
skipped; without a feedback reporter the process consumes nothing, because it could finish no push.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pusher.config import doors, settings
from pusher.config.values import Config
from pusher.daemon.greenlets import Greenlets
from pusher.daemon.publishers import Publishers
from pusher.push.contained import Contained
from pusher.push.reporter import Around, FeedbackReporter, OpenReporter
from pusher.telemetry import figures
from pusher.telemetry.health import reasons
from pusher.telemetry.log import logger
from pusher.telemetry.stats import Reporter, Sample, Stats

log = logger(__name__)

#: The object behind a door of ``pusher.stats``. It does not wait, and raises ``StartError`` for settings that it cannot
#: use.
OpenStatsReporter = Callable[[Config], Reporter]


def open_stats(config: Config, hostname: str) -> Stats:
    """The stats of a process with its reporters; without one no number leaves it. Raises ``StartError``."""
    opened = []
    for name in config[settings.STATS_REPORTERS]:
        door = doors.door(doors.STATS, name)
        try:
            open_reporter: OpenStatsReporter = door.load()
            opened.append(open_reporter(config))
        except doors.Broken as error:
            log.error("a stats reporter cannot be loaded and is skipped", error=str(error))
    return Stats(hostname, opened, config[settings.STATS_REPORT_INTERVAL])


class FeedbackReporters:
    """The reporters of a sender. Raises ``StartError`` if one cannot use its settings."""

    def __init__(self, config: Config, stats: Stats, publishers: Publishers, greenlets: Greenlets) -> None:
        self._contained: list[Contained] = []
        #: Those that cannot be loaded: one line each.
        self._broken: list[str] = []
        #: Why a greenlet of one does not run now, by its name.
        self._trouble: dict[str, str] = {}
        self._greenlets = greenlets
        around = Around(config, stats, publishers.at, self._spawn)
        #: What each outcome is reported to.
        self.all = tuple(filter(None, (self._open(name, around) for name in config[settings.FEEDBACK_REPORTERS])))

    def _open(self, name: str, around: Around) -> FeedbackReporter | None:
        door = doors.door(doors.FEEDBACK, name)
        try:
            open_reporter: OpenReporter = door.load()
            reporter = open_reporter(around)
        except doors.Broken as error:
            log.error("a feedback reporter cannot be loaded, no message is consumed", error=str(error))
            self._broken.append(str(error))
            return None
        if door.is_shipped:
            return reporter
        self._contained.append(Contained(f"{name} ({door.package} {door.version})", reporter, self._failed))
        return self._contained[-1]

    def _spawn(self, name: str, run: Callable[[], object]) -> None:
        def trouble(reason: str) -> None:
            self._trouble[name] = reason

        self._greenlets.spawn_for(name, "feedback reporter", run, trouble)

    def _failed(self, error: BaseException) -> None:
        self._greenlets.fail("the code that runs after a feedback is stored", error)

    @property
    def full(self) -> bool:
        """Whether consuming should pause for one of them; the publishers say so of themselves."""
        return bool(self._broken) or any(one.full for one in self._contained)

    def unready(self) -> list[str]:
        """Why one of them does not work, one line each."""
        trouble = [f"{name}: {reason}" for name, reason in self._trouble.items() if reason]
        return self._broken + trouble + reasons({one.label: one.health() for one in self._contained})

    def samples(self) -> Iterator[Sample]:
        """What each reporter has not stored yet; publishers report this themselves. Never waits."""
        for one in self._contained:
            yield Sample(figures.PUBLISHER_PENDING, (one.label,), one.pending)

    def flush(self, left_s: float) -> str:
        """A part of the stop order: waits until all is answered."""
        deadline = time.monotonic() + left_s
        left = {one.label: one.flush(max(0.0, deadline - time.monotonic())) for one in self._contained}
        return "; ".join(f"{label} has not stored {number} feedbacks" for label, number in left.items() if number)
