"""The reporter ``jsonfile`` behind its door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pusher import config
from pusher.daemon.reporters import open_stats
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Stats

SENT = Metric("acme_sent", "count", ("game",), "Pushes to Acme.")
AGE = Metric("acme_age", "gauge", ("game",), "Age of the key.")
TOOK = Metric("acme_took", "timing", ("game",), "Time of a request.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.json"


@pytest.fixture
def stats(file: Path) -> Stats:
    return open_stats(config.parse(f"stats.reporters: [jsonfile]\nstats.jsonfile.path: {file}"), "here")


def test_what_has_changed_is_added_to_the_file(stats: Stats, file: Path) -> None:
    stats.counter(SENT, "game").add(2)
    stats.gauge(AGE, "game").set(1.5)
    stats.timing(TOOK, "game").observe(7.0)
    stats.flush()
    stats.flush()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [{name: value for name, value in line.items() if name != "at"} for line in lines] == [
        {"name": "acme_sent", "game": "game", "added": 2},
        {"name": "acme_age", "game": "game", "value": 1.5},
        {"name": "acme_took", "game": "game", "durations_ms": [7.0]},
    ]


def test_a_directory_that_is_gone_costs_a_report_and_nothing_else(stats: Stats, file: Path) -> None:
    stats.counter(SENT, "game").add()
    file.parent.rename(file.parent.with_name("gone"))
    stats.flush()


def test_check_says_whether_it_can_be_used(tmp_path: Path) -> None:
    def check(path: Path) -> str:
        command = [sys.executable, "-m", "pusher", "apns", "--check", "--stats.reporters=jsonfile"]
        flags = [f"--stats.jsonfile.path={path}", f"--queue.brokers=sqlite:///{tmp_path}/q.db"]
        return subprocess.run(
            [*command, *flags], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        ).stdout

    assert f"ok      stats.reporters jsonfile: {tmp_path}/m can be written" in check(tmp_path / "m")
    assert "failed  stats.reporters jsonfile: " in check(tmp_path / "none" / "m")
