"""The shipped supervisord configuration, run: a shared group, a killed process that comes back, a clean stop."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from lab.kafka.admin import committed, shares
from lab.kafka.server import KafkaServer
from tests.faults.driver import Driver
from tests.faults.supervised import Supervised

pytestmark = pytest.mark.integration

TOPIC = "push-game_apns-single"


def health(port: int) -> int:
    """What a process's admin port answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        status: int = answer.status
        return status


def test_two_processes_share_the_partitions_and_a_killed_one_comes_back(
    breakable_kafka: KafkaServer, tmp_path: Path
) -> None:
    brokers = breakable_kafka.brokers
    with Driver(tmp_path, brokers) as driver:
        apple = driver.simulator()
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, 300)
        settings = driver.settings(apple.port, apple.ca_file)
        del settings["admin"]
        with Supervised(tmp_path, settings, ["pusher-apns"]) as supervised:
            driver.run_until(lambda: driver.ledger.waiting == 0, "not every push was fed back")
            driver.run_until(lambda: sorted(shares(brokers, driver.group)) == [1, 2], "the partitions are not shared")

            assert [health(8100), health(8101)] == [200, 200]

            killed = supervised.kill(0)
            driver.produce(TOPIC, 300)
            driver.run_until(lambda: driver.ledger.waiting == 0, "not every push was fed back")
            supervised.wait_until_replaced(0, killed)
            driver.run_until(lambda: sorted(shares(brokers, driver.group)) == [1, 2], "it did not join again")

            before = [state.pid for state in supervised.states()]
            supervised.terminate(0)
            supervised.terminate(1)
            assert not set(before) & {state.pid for state in supervised.states()}
            driver.produce(TOPIC, 300)
            driver.run_until(lambda: driver.ledger.waiting == 0, "not every push was fed back")

            assert supervised.stop() == 0
        verdict = driver.verdict()
        assert verdict.good, verdict
        # four orders to stop: two by SIGTERM, two by supervisord's own end
        assert supervised.logs().count("stopped gracefully") == 4, supervised.logs()
        assert sum(position.offset for (topic, _), position in committed(brokers, driver.group).items()) == 900
        assert "not everything finished in time" not in supervised.logs()
