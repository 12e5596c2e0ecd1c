"""An app served through XMPP with real processes: Kafka, `pusher.py gcm`, a simulated Google, and what breaks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.kafka.server import KafkaServer
from lab.processes import wait_until
from tests.faults.driver import schedule
from tests.faults.ledger import DELIVERED, EXPIRED, FAILED, INVALID, REJECTED
from tests.faults.xmpp_runs import XmppDriver

WRONG = {"senderID": "123", "apiKey": "wrong"}
_numbers = itertools.count()


@pytest.fixture
def driver(breakable_kafka: KafkaServer, tmp_path: Path) -> Iterator[XmppDriver]:
    with XmppDriver(tmp_path / "run", breakable_kafka.brokers, apps=(f"gcmgame{next(_numbers)}",)) as driver:
        driver.create_topics(driver.single)
        yield driver


def test_outcomes_of_every_kind_add_up(driver: XmppDriver) -> None:
    (game,) = driver.apps
    google = driver.simulator(
        *("--fault", "prefix=dead:nack DEVICE_UNREGISTERED"),
        *("--fault", "prefix=json:nack INVALID_JSON"),
        *("--fault", "prefix=busy:nack SERVICE_UNAVAILABLE"),
        *("--fault", "prefix=once:nack INTERNAL_SERVER_ERROR,once"),
    )
    topic = driver.single
    driver.produce(topic, 100)
    driver.produce(topic, 5, "once")
    driver.produce(topic, 5, "dead", REJECTED)
    driver.produce(topic, 5, "json", REJECTED)
    driver.produce(topic, 5, "busy", FAILED)
    driver.produce(topic, 5, expected=EXPIRED, push_expiry=1)
    driver.produce_raw(topic, [b"rubbish"] * 5, INVALID)
    daemon = driver.daemon(driver.settings(google.port, google.ca_file, **{"gcm.retry.interval": "50ms"}))
    verdict = driver.settle()
    assert verdict.outcomes == {DELIVERED: 105, REJECTED: 10, FAILED: 5, EXPIRED: 5, INVALID: 5}
    assert (verdict.repeats, verdict.distinct_ids) == (0, 120)
    driver.run_until(driver.all_committed, "not everything was committed")
    assert daemon.stop() == 0
    names = ("sent", "ack", "expired", "invalid")
    counted = {name: driver.statsd.count(f"test.{name}", f"game:{game}", "platform:gcm") for name in names}
    assert counted == {"sent": 120, "ack": 105, "expired": 5, "invalid": 5}
    for reason in ("device_unregistered", "invalid_json", "service_unavailable"):
        assert driver.statsd.count("test.failed", f"game:{game}", f"reason:{reason}") == 5
    assert driver.statsd.count("test.retried", f"game:{game}") == 5 + 4 * 5
    assert google.counts()["violations"] == []


def test_nothing_is_lost_when_daemon_and_links_die(driver: XmppDriver) -> None:
    google = driver.simulator("--ack-delay-ms", "10", "--seed", "7")
    driver.produce(driver.single, 3_000)
    daemon = driver.daemon(driver.settings(google.port, google.ca_file))

    def kill() -> None:
        daemon.kill()
        daemon.start()

    verdict = driver.settle(
        schedule(
            7,
            3_000,
            [
                ("drain", lambda: google.set_faults("drain,times=1")),
                ("kill -9", kill),
                ("cut", lambda: google.set_faults("cut,times=1")),
            ],
        )
    )
    assert verdict.outcomes == {DELIVERED: 3_000}
    counts = google.counts()
    assert counts["max_pending"] <= 100
    assert counts["violations"] == []
    assert daemon.stop() == 0


def test_an_app_whose_login_is_refused_is_not_served(driver: XmppDriver) -> None:
    google = driver.simulator()
    daemon = driver.daemon(driver.settings(google.port, google.ca_file, **{"gcm.certs": {driver.apps[0]: WRONG}}))
    assert daemon.wait() == 2
    *_, skipped, line = daemon.log().splitlines()
    assert "app cannot be served" in skipped
    assert line.startswith("pusher: no app can be served")
    assert f"check gcm.certs.{driver.apps[0]}.senderID and .apiKey" in line


def test_a_server_that_comes_later_is_waited_for(driver: XmppDriver) -> None:
    google = driver.simulator()
    google.stop()
    driver.produce(driver.single, 20)
    daemon = driver.daemon(driver.settings(google.port, google.ca_file))
    wait_until(lambda: "first login failed" in daemon.log(), daemon.log)
    google.start()
    driver.settle()
    assert daemon.stop() == 0
