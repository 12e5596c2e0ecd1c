"""The stats reporters that ``stats.reporters`` names, each behind its door in ``pusher.stats``.

A door's object is ``open_reporter(config) -> Reporter``: it does not wait, and raises ``StartError`` for settings that
it cannot use.
"""

from __future__ import annotations

from collections.abc import Callable

from pusher.config import Config, doors, settings
from pusher.telemetry.stats import Reporter, Stats

OpenReporter = Callable[[Config], Reporter]


def open_stats(config: Config, hostname: str) -> Stats:
    """The stats of a process with its reporters; without one no number leaves it. Raises ``StartError``."""
    reporters = []
    for name in config[settings.STATS_REPORTERS]:
        open_reporter: OpenReporter = doors.door(doors.STATS, name).load()
        reporters.append(open_reporter(config))
    return Stats(hostname, reporters, config[settings.STATS_REPORT_INTERVAL])
