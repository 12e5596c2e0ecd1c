"""What holds the hub is told: one part of the process that lets nothing else run."""

from __future__ import annotations

import logging

import gevent
import pytest
from gevent import monkey

from lab.processes import wait_until
from pusher.daemon.watchdog import watch
from pusher.telemetry import metrics
from pusher.telemetry.stats import Stats

hold = monkey.get_original("time", "sleep")


def test_a_part_that_lets_nothing_else_run_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats("host")
    watching = gevent.spawn(watch, stats, "host")
    try:
        with caplog.at_level(logging.INFO):
            gevent.sleep(0)
            hold(1.5)
            wait_until(lambda: "blocked" in caplog.text, "a line")
        stats.flush()
        assert [sample.value for sample in stats.snapshot() if sample.metric is metrics.HUB_HELD] == [1]
    finally:
        watching.kill()
