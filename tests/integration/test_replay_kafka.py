"""Replay with real processes: Kafka, `pusher.py apns`, a simulated Apple that is down for a while."""

from __future__ import annotations

import subprocess
from typing import Any

from kafka import KafkaProducer

from lab.kafka.admin import create_topic
from lab.kafka.server import KafkaServer
from lab.processes import PUSHER, ROOT, Daemon, wait_until
from tests.faults.driver import Driver
from tests.faults.ledger import FAILED, FED_BACK, INVALID

#: Tokens that Apple cannot serve while it is down.
LATER = "f503"


def replay(daemon: Daemon, topic: str, *arguments: str) -> str:
    """Runs it with the daemon's settings to a good end; what it printed."""
    command = [*PUSHER, "replay", "--config", str(daemon.settings_file), "--topic", topic, "--from", "earliest"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changes(**more: Any) -> dict[str, Any]:
    """A daemon that soon gives up."""
    return {"apns.retry.interval": "20ms", "apns.retry.maxElapsed": "300ms", "queue.commitInterval": "200ms", **more}


def test_failures_of_an_outage_are_sent_again_and_nothing_twice(driver: Driver) -> None:
    topic = driver.single
    apple = driver.simulator("--fault", f"prefix={LATER}:503")
    driver.produce(topic, 1000, LATER, expected=FED_BACK)
    driver.produce(topic, 1000)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **changes()))
    driver.settle()
    driver.run_until(driver.all_committed, "not everything was committed")
    failed = {message.feedbacks[0].id for message in driver.ledger.messages.values() if message.expected == FED_BACK}
    assert {m.feedbacks[0].kind for m in driver.ledger.messages.values() if m.expected == FED_BACK} == {FAILED}
    apple.set_faults()
    seen = len(apple.received())

    assert "dry run" in replay(daemon, topic, "--failed-only")
    output = replay(daemon, topic, "--failed-only", "--yes")
    assert "sent 1,000\n" in output
    wait_until(lambda: apple.counts()["answers"].get("200", 0) == 2000, lambda: f"{apple.counts()}\n{output}")
    again = apple.received()[seen:]
    assert len(again) == 1000
    assert {entry[0] for entry in again} == failed
    assert {entry[2] for entry in again} == {200}

    # Nothing is missing, and nothing has failed for good.
    driver.run_until(lambda: sum(len(m.feedbacks) for m in driver.ledger.messages.values()) == 3000, "no feedbacks")
    assert "sent 0\n" in replay(daemon, topic, "--missing-feedback", "--yes")
    assert "sent 0\n" in replay(daemon, topic, "--failed-only", "--yes")
    driver.read(1.0)
    assert len(apple.received()) == seen + 1000
    assert apple.counts()["duplicates"] == 0
    assert driver.verdict().distinct_ids == 2000
    assert daemon.stop() == 0


def test_copies_that_wait_are_not_sent_once_more(driver: Driver) -> None:
    topic = driver.single
    apple = driver.simulator("--fault", f"prefix={LATER}:503")
    driver.produce(topic, 300, LATER, expected=FED_BACK)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **changes()))
    driver.settle()
    driver.run_until(driver.all_committed, "not everything was committed")
    assert daemon.stop() == 0

    assert "sent 300\n" in replay(daemon, topic, "--failed-only", "--yes")
    output = replay(daemon, topic, "--failed-only", "--yes")
    assert "sent 0\n" in output
    assert "a copy waits in the target topic" in output


def test_messages_without_their_feedback_are_sent_again(driver: Driver, kafka: KafkaServer) -> None:
    """Feedbacks that went elsewhere stand for lost ones."""
    topic = driver.single
    apple = driver.simulator()
    driver.produce(topic, 500)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **changes()))
    driver.settle()
    driver.run_until(driver.all_committed, "not everything was committed")
    lost = KafkaServer(driver.directory / "lost")
    lost.start()
    try:
        feedbacks = f"push-{driver.apps[0]}-apns-feedbacks"
        create_topic(lost.brokers, feedbacks)
        producer = KafkaProducer(bootstrap_servers=lost.brokers)
        for message in list(driver.ledger.messages.values())[:200]:
            value = f'{{"Sent":true,"ApnsID":"{message.feedbacks[0].id}"}}'
            producer.send(feedbacks, value.encode())
        producer.close()
        assert "sent 300\n" in replay(daemon, topic, "--missing-feedback", "--yes", "--feedback-brokers", lost.brokers)
    finally:
        lost.stop()
    wait_until(lambda: apple.counts()["answers"].get("200", 0) == 800, lambda: str(apple.counts()))
    missing = {message.feedbacks[0].id for message in list(driver.ledger.messages.values())[200:]}
    assert {entry[0] for entry in apple.received()[500:]} == missing
    assert daemon.stop() == 0


def test_invalid_messages_go_back_when_their_game_is_configured(driver: Driver) -> None:
    stranger = "push-stranger_apns-single"
    driver.create_topics(stranger, "push-stranger-apns-invalid", "push-stranger-apns-feedbacks")
    driver.watch("push-stranger-apns-invalid")
    apple = driver.simulator()
    driver.produce(stranger, 50, expected=INVALID)
    settings = driver.settings(apple.port, apple.ca_file, **changes(**{"queue.topics": ["^push-.*_apns"]}))
    daemon = driver.daemon(settings)
    driver.settle()
    assert daemon.stop() == 0

    settings["apns"]["apps"] += ",stranger"
    settings["apns"]["certs"]["stranger"] = settings["apns"]["certs"][driver.apps[0]]
    corrected = driver.daemon(settings)
    assert "sent 50\n" in replay(corrected, "push-stranger-apns-invalid", "--yes")
    wait_until(lambda: apple.counts()["answers"].get("200", 0) == 50, lambda: str(apple.counts()))
    assert "sent 0\n" in replay(corrected, "push-stranger-apns-invalid", "--yes")
    assert corrected.stop() == 0
