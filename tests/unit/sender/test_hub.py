"""No part of a sender keeps the hub from the others for long, whatever load it is under."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from lab.kafka.server import KafkaServer
from lab.processes import ROOT, wait_until
from tests.faults.driver import Driver
from tests.faults.ledger import EXPIRED, FED_BACK, INVALID
from tests.faults.watched import Watch

#: The only limit in time of the tests. It is one of CPU time, so that it does not depend on other processes.
LIMIT_MS = 50.0
TOPIC = "push-game_apns-single"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    kafka = KafkaServer(tmp_path / "kafka")
    kafka.start()
    try:
        with Driver(tmp_path / "run", kafka.brokers) as driver:
            driver.create_topics(TOPIC)
            yield driver
    finally:
        kafka.stop()


@pytest.mark.parametrize("kind", ["computes", "waits"])
def test_the_watch_sees_what_keeps_the_hub(kind: str) -> None:
    def work() -> None:
        if kind == "waits":
            monkey.get_original("time", "sleep")(0.1)
        began = time.thread_time()
        while kind == "computes" and time.thread_time() < began + 0.1:
            pass

    watch = Watch()
    watch.begin()
    gevent.spawn(work).join()
    gevent.sleep(0.02)
    watch.end()
    found = watch.report()
    assert (found["longest_cpu_ms"] > LIMIT_MS, bool(found["blocked"])) == (kind == "computes", kind == "waits")
    assert found["largest_lateness_ms"] > LIMIT_MS


def test_the_hub_is_never_kept_waiting_while_pushes_are_sent(driver: Driver, tmp_path: Path) -> None:
    """A backlog, much that cannot be sent or is over, links that come and go, retries, time-outs, and a rebalance."""
    faults = ("cut:1/1501", "goaway:1/1009", "503:0.01,retry-after=1", "silence:1/2003,once")
    apple = driver.simulator(*[flag for fault in faults for flag in ("--fault", fault)])
    report = tmp_path / "report.json"
    program = (sys.executable, str(ROOT / "tests" / "faults" / "watched.py"), str(report))
    changes = {"apns.requestTimeout": "1s", "queue.metadataRefresh": "1s", "apns.retry.maxAttempts": 9}
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **changes), program=program)
    daemon.wait_until_started()
    daemon.signal(signal.SIGURG)
    driver.produce(TOPIC, 5000, expected=FED_BACK)
    driver.run_until(lambda: driver.ledger.settled > 1000, "no progress")
    driver.create_topics("push-game_apns-massive")
    driver.produce("push-game_apns-massive", 1000, expected=FED_BACK)
    driver.produce_raw(TOPIC, [b"rubbish"] * 3000, INVALID)
    driver.produce(TOPIC, 3000, expected=EXPIRED, push_expiry=1)
    driver.settle()
    driver.run_until(driver.all_committed, "not everything was committed")
    daemon.signal(signal.SIGUSR2)
    wait_until(report.exists, "no report")
    found = json.loads(report.read_text())
    assert found["switches"] > 1000
    assert found["blocked"] == [], found
    assert found["longest_cpu_ms"] < LIMIT_MS, found
