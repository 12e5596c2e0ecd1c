"""Reports when one greenlet has blocked all others: nothing is sent, committed or answered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from pusher.telemetry import metrics
from pusher.telemetry.log import logger
from pusher.telemetry.stats import Stats
from pusher.telemetry.watch import LIMIT_S

log = logger(__name__)

_PERIOD_S = 0.25


def watch(stats: Stats, hostname: str, clock: Callable[[], float] = time.monotonic) -> None:
    """Runs without end: logs and counts each time that the hub was blocked for longer than ``LIMIT_S``."""
    held = stats.counter(metrics.HUB_HELD, hostname)
    while True:
        began = clock()
        gevent.sleep(_PERIOD_S)
        late_s = clock() - began - _PERIOD_S
        if late_s > LIMIT_S:
            held.add()
            log.warning(
                "the process was blocked, by a greenlet or by the machine (kill -USR1 logs stacks)",
                seconds=round(late_s, 1),
            )
