"""The main job with real processes: Kafka, `pusher.py apns`, a simulated Apple, and what breaks between them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from lab.kafka.admin import committed, shares
from lab.kafka.server import KafkaServer
from lab.processes import Daemon, wait_until
from pusher.sim.certificate import Certificate, make_ca, make_client_certificate
from tests.faults.driver import Driver, push, schedule
from tests.faults.ledger import DELIVERED, EXPIRED, FAILED, FED_BACK, INVALID, NO_TRACE, REJECTED


def faults(*lines: str) -> list[str]:
    return [flag for line in lines for flag in ("--fault", line)]


def test_outcomes_of_every_kind_add_up(driver: Driver) -> None:
    (game,) = driver.apps
    apple = driver.simulator(
        *faults(
            "prefix=dead:410 Unregistered,timestamp=1700000000000",
            "prefix=bad0:400 BadDeviceToken",
            "prefix=f429:429",
            "prefix=a429:429,retry-after=1,once",
            "prefix=a503:503,retry-after=1,once",
            "prefix=a500:500,once",
        )
    )
    topic = driver.single
    driver.produce(topic, 100)
    for prefix in ("a429", "a503", "a500"):
        driver.produce(topic, 5, prefix)
    for prefix in ("dead", "bad0"):
        driver.produce(topic, 5, prefix, REJECTED)
    driver.produce(topic, 5, "f429", FAILED)
    driver.produce(topic, 5, expected=EXPIRED, push_expiry=1)
    driver.produce_raw(topic, [b"rubbish"] * 5, INVALID)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **{"apns.retry.interval": "50ms"}))
    verdict = driver.settle()
    assert verdict.outcomes == {DELIVERED: 115, REJECTED: 10, FAILED: 5, EXPIRED: 5, INVALID: 5}
    assert (verdict.repeats, verdict.distinct_ids) == (0, 130)
    driver.run_until(driver.all_committed, "not everything was committed")

    assert daemon.stop() == 0
    counted = {
        name: driver.statsd.count(f"test.{name}", f"game:{game}") for name in ("sent", "ack", "expired", "invalid")
    }
    assert counted == {"sent": 130, "ack": 115, "expired": 5, "invalid": 5}
    assert driver.statsd.count("test.failed", f"game:{game}", "reason:unregistered") == 5
    assert driver.statsd.count("test.failed", f"game:{game}", "reason:bad-device-token") == 5
    assert driver.statsd.count("test.failed", f"game:{game}", "reason:too-many-requests") == 5
    assert driver.statsd.count("test.retried", f"game:{game}") == 15 + 2 * 5
    assert apple.counts()["protocol_errors"] == []


def test_bad_input_is_told_counted_and_kept_and_the_process_goes_on(driver: Driver) -> None:
    (game,) = driver.apps
    stranger = f"push-stranger{game}_apns-single"
    others = (f"push-{game}_gcm-single", f"push-{game}_sms-single", f"{game}_apns-single")
    driver.create_topics(stranger, *others, f"push-stranger{game}-apns-invalid")
    driver.create_topics(f"push-{game}_apns-massive", max_message_bytes="20000000")
    driver.watch(f"push-stranger{game}-apns-invalid")
    good = push(0)
    bad: dict[str, list[bytes]] = {
        "not-json": [b"\x00\xff\xfe rubbish", b"", b'{"a": NaN}'],
        "too-deep": [b"[" * 100_000],
        "not-an-object": [b"3", b'"text"', b"[]"],
        "missing-token": [json.dumps(good | {"DeviceToken": token}).encode() for token in (None, "")],
        "bad-token": [
            json.dumps(good | {"DeviceToken": token}).encode() for token in (7, "a/../b", "a\r\nx: y", "a\x00", "é")
        ],
        "bad-metadata": [json.dumps(good | {"metadata": "text"}).encode()],
        "bad-expiry": [json.dumps(good | {"push_expiry": "soon"}).encode()],
    }
    for values in bad.values():
        driver.produce_raw(driver.single, values, INVALID)
    driver.produce_raw(stranger, [json.dumps(good).encode()] * 3, INVALID)
    huge = json.dumps(good | {"Payload": {"aps": {"alert": "x" * 10_000_000}}}).encode()
    driver.produce_raw(f"push-{game}_apns-massive", [huge] * 5, NO_TRACE)
    for topic in others:
        driver.produce_raw(topic, [b"never read"], NO_TRACE)
    driver.produce(driver.single, 50)
    driver.produce(f"push-{game}_apns-massive", 50, Payload={"aps": {"alert": "x"}, "big": 1 << 70})
    apple = driver.simulator()
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **{"queue.topics": [f"^.*{game}_"]}))
    driver.settle()
    reasons = {reason: len(values) for reason, values in bad.items()}
    wait_until(
        lambda: driver.statsd.count("test.invalid_unpublished", f"game:{game}") == 5, lambda: daemon.log()[-3000:]
    )
    for reason, count in reasons.items():
        assert driver.statsd.count("test.invalid", f"game:{game}", f"reason:{reason}") == count, reason
    assert driver.statsd.count("test.invalid", "reason:unknown-game", f"game:stranger{game}") == 3
    log = daemon.log()
    for message in driver.ledger.messages.values():
        topic, partition, offset = message.position
        told = f"topic={topic} partition={partition} offset={offset}" in log
        assert told == (message.expected != DELIVERED and topic not in others)
    kept = [message.invalid[0] for message in driver.ledger.messages.values() if message.invalid]
    assert sorted({error.partition(":")[0] for error in kept}) == sorted([*bad, "unknown-game"])
    driver.run_until(lambda: committed_topics(driver) == {driver.single, stranger, f"push-{game}_apns-massive"}, log)
    assert daemon.memory_mb("VmHWM") < 300
    assert daemon.stop() == 0


def test_links_that_break_in_every_way_lose_nothing(driver: Driver) -> None:
    apple = driver.simulator(
        *faults(
            "goaway:1/97",
            "goaway:1/89,unprocessed",
            "drain:1/203",
            "cut:1/301",
            "reset REFUSED_STREAM:1/53",
            "reset CANCEL:1/101",
            "silence:1/211,once",
            "freeze 0.3:1/503",
            "settings MAX_CONCURRENT_STREAMS 1:1/401,ms=200",
        )
    )
    driver.produce(driver.single, 2000)
    changes = {
        "apns.concurrentWorkers": 50,
        "apns.requestTimeout": "500ms",
        "apns.retry.interval": "50ms",
        "apns.retry.maxAttempts": 20,
        "apns.reconnect.maxInterval": "200ms",
    }
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **changes))
    verdict = driver.settle()
    assert verdict.outcomes == {DELIVERED: 2000}
    assert verdict.repeats == 0
    assert len(apple.counts()["faults"]) == 9
    assert apple.counts()["protocol_errors"] == []
    assert daemon.stop() == 0


def test_a_provider_that_never_answers_ends_in_a_time_out(driver: Driver) -> None:
    apple = driver.simulator(*faults("prefix=51ce:silence"))
    driver.produce(driver.single, 5, "51ce", FAILED)
    driver.produce(driver.single, 20)
    changes = {"apns.requestTimeout": "300ms", "apns.retry.interval": "50ms", "apns.retry.maxElapsed": "1s"}
    driver.daemon(driver.settings(apple.port, apple.ca_file, **changes))
    driver.settle()
    reasons = {m.feedbacks[0].reason for m in driver.ledger.messages.values() if m.expected == FAILED}
    assert reasons == {"Timeout"}
    silent = [entry for entry in apple.received() if entry[1].startswith("51ce")]
    assert 5 * 2 <= len(silent) <= 5 * 4


def test_kill_9_loses_nothing(driver: Driver) -> None:
    apple = driver.simulator(*faults("429:0.02,retry-after=1", "500:0.02", "503:0.02"))
    driver.produce(driver.single, 4000, expected=FED_BACK)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file))

    def restart() -> None:
        daemon.kill()
        daemon.start()

    driver.settle(schedule(7, 4000, [("kill -9", restart)] * 2))
    assert daemon.stop() == 0


def test_sigterm_drains_and_nothing_is_repeated(driver: Driver) -> None:
    apple = driver.simulator("--latency-ms", "20")
    driver.produce(driver.single, 3000)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file))
    driver.run_until(lambda: driver.ledger.settled > 300, "no progress")
    assert daemon.stop() == 0
    assert "stopped gracefully" in daemon.log()
    driver.read(0.5)
    assert driver.ledger.waiting > 0
    daemon.start()
    assert driver.settle().repeats == 0
    assert apple.counts()["duplicates"] == 0


def test_a_second_signal_exits_at_once(driver: Driver) -> None:
    apple = driver.simulator(*faults("silence"))
    driver.produce(driver.single, 10)
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file))
    wait_until(lambda: apple.counts()["faults"], "nothing was sent")
    daemon.signal(signal.SIGINT)
    daemon.wait_for("stopping")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(2) == 1
    assert not driver.all_committed()


def test_kafka_is_waited_for_and_may_crash(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    with Driver(tmp_path / "run", server.brokers) as driver:
        apple = driver.simulator("--latency-ms", "20")
        daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **{"queue.metadataRefresh": "1s"}))
        try:
            daemon.wait_for('msg="not ready" reason="kafka: ')
            server.start()
            driver.create_topics("push-game_apns-single")
            driver.produce("push-game_apns-single", 4000)
            driver.settle(schedule(3, 4000, [("kill -9 of the broker", server.restart)]))
            wait_until(lambda: 'msg="ready"' in daemon.log(), daemon.log)
            assert daemon.stop() == 0
        finally:
            server.stop()


def test_two_daemons_share_the_partitions(driver: Driver) -> None:
    apple = driver.simulator("--latency-ms", "20")
    settings = driver.settings(apple.port, apple.ca_file)
    first, second = driver.daemon(settings), driver.daemon(settings)
    for daemon in (first, second):
        daemon.wait_for('msg="partitions"')
    driver.run_until(lambda: sorted(shares(driver.brokers, driver.group)) == [1, 2], "the members do not share")
    driver.produce(driver.single, 3000)
    driver.settle(schedule(5, 3000, [("kill -9 of one", first.kill)]))
    driver.run_until(lambda: shares(driver.brokers, driver.group) == [3], "the group did not shrink")
    assert second.stop() == 0


def test_wrong_credentials_hold_the_app_until_they_are_right(driver: Driver, tmp_path: Path) -> None:
    right = tmp_path / "right.p8"
    apple = driver.simulator("--write-key", str(right))
    driver.produce(driver.single, 100, expected=FED_BACK)
    settings = driver.settings(
        apple.port, apple.ca_file, **{"apns.concurrentWorkers": 1, "gracefulShutdownTimeout": "500ms"}
    )
    daemon = driver.daemon(settings)
    driver.run_until(lambda: driver.ledger.settled >= 20, "the refusals were not fed back")
    daemon.wait_for("refuses the app's credentials")
    driver.run_until(lambda: 'msg="not ready"' in daemon.log(), "it says that it is ready")
    assert driver.ledger.settled < 30
    assert daemon.log().count("Apple refuses the app's credentials for a topic and push type: check") == 1
    assert {f.reason for m in driver.ledger.messages.values() for f in m.feedbacks} == {"InvalidProviderToken"}
    assert daemon.stop() == 0

    settings["apns"]["certs"][driver.apps[0]]["authKeyPath"] = str(right)
    driver.daemon(settings)
    verdict = driver.settle()
    assert verdict.outcomes[DELIVERED] > 70
    assert verdict.repeats == 0


def test_an_app_without_its_key_is_skipped_and_not_consumed(kafka: KafkaServer, tmp_path: Path) -> None:
    with Driver(tmp_path / "run", kafka.brokers, apps=("healthy", "sick")) as driver:
        driver.create_topics("push-healthy_apns-single", "push-sick_apns-single")
        driver.produce("push-healthy_apns-single", 50)
        driver.produce("push-sick_apns-single", 50, expected=NO_TRACE)
        apple = driver.simulator()
        changes = {"apns.certs.sick.authKeyPath": "/nowhere/key.p8", "stats.statsd.host": "no-such-host.invalid:8125"}
        daemon = driver.daemon(driver.settings(apple.port, apple.ca_file, **changes))
        driver.settle()
        driver.run_until(lambda: committed_topics(driver) == {"push-healthy_apns-single"}, "not committed")
        daemon.wait_for('msg="not ready"')
        assert "/nowhere/key.p8" in daemon.log()
        assert log_line(daemon, "StatsD host cannot be resolved").startswith("level=warning")
        assert daemon.stop() == 0
        assert committed_topics(driver) == {"push-healthy_apns-single"}


def test_client_certificates(kafka: KafkaServer, tmp_path: Path) -> None:
    ca = make_ca()
    ca_file, _ = ca.write(tmp_path, "clients")
    with Driver(tmp_path / "run", kafka.brokers, apps=("pem", "bundle")) as driver:
        apple = driver.simulator("--client-ca", ca_file, "--topic", "com.pem", "--topic", "com.bundle")
        pem, bundle = make_client_certificate(ca, "com.pem"), make_client_certificate(ca, "com.bundle")
        (tmp_path / "pem.pem").write_bytes(pem.pem() + pem.key_pem())
        (tmp_path / "bundle.p12").write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"push", bundle.key, bundle.certificate, None, BestAvailableEncryption(b"secret")
            )
        )
        driver.create_topics("push-pem_apns-single", "push-bundle_apns-single")
        settings = driver.settings(apple.port, apple.ca_file)
        settings["apns"]["certs"] = {
            "pem": {"certPath": str(tmp_path / "pem.pem")},
            "bundle": {"certPath": str(tmp_path / "bundle.p12"), "certPassword": "secret", "topic": "com.bundle"},
        }
        for app in driver.apps:
            driver.produce(f"push-{app}_apns-single", 50)
        daemon = driver.daemon(settings)
        assert driver.settle().outcomes == {DELIVERED: 100}
        assert daemon.stop() == 0
        assert "secret" not in daemon.log()


def test_a_certificate_that_changes_under_load(kafka: KafkaServer, tmp_path: Path) -> None:
    """SIGHUP takes a new one; one that cannot be read, or that Apple does not take, leaves the one in use."""
    ca = make_ca()
    ca_file, _ = ca.write(tmp_path, "clients")
    file = tmp_path / "client.pem"

    def put(certificate: Certificate) -> None:
        file.write_bytes(certificate.pem() + certificate.key_pem())

    put(make_client_certificate(ca, "com.game"))
    with Driver(tmp_path / "run", kafka.brokers, apps=("renewed",)) as driver:
        apple = driver.simulator("--client-ca", ca_file, "--topic", "com.game", "--latency-ms", "20")
        driver.create_topics(driver.single)
        settings = driver.settings(apple.port, apple.ca_file, **{"apns.concurrentWorkers": 10})
        settings["apns"]["certs"] = {"renewed": {"certPath": str(file), "topic": "com.game"}}
        driver.produce(driver.single, 2000)
        daemon = driver.daemon(settings)

        def reload(words: str) -> None:
            said = daemon.log().count(words)
            daemon.signal(signal.SIGHUP)
            driver.run_until(lambda: daemon.log().count(words) > said, words)

        driver.run_until(lambda: driver.ledger.settled > 200, "no progress")
        reload("configuration reloaded")
        put(make_client_certificate(ca, "com.game"))
        reload("new credentials in use")
        file.write_text("-----BEGIN rubbish")
        reload("the new credentials cannot be used, the old ones stay in use")
        put(make_client_certificate(make_ca(), "com.game"))
        reload("the new credentials cannot be used, the old ones stay in use")
        assert driver.settle().outcomes == {DELIVERED: 2000}
        assert driver.verdict().repeats == 0
        connections = apple.counts()["transport"]["connections"]
        assert 2 <= connections <= 4, "one at the start, one to try each new certificate, one with the good one"
        assert daemon.stop() == 0


def test_a_provider_that_comes_late_gets_everything_once(driver: Driver) -> None:
    apple = driver.simulator()
    apple.kill()
    driver.produce(driver.single, 500)
    driver.produce(driver.single, 5, expected=EXPIRED, push_expiry=int((time.time() + 2) * 1000))
    daemon = driver.daemon(driver.settings(apple.port, apple.ca_file))
    daemon.wait_for('msg="not ready"')
    daemon.wait_for("push expired")
    apple.start()
    verdict = driver.settle()
    assert (verdict.repeats, apple.counts()["duplicates"]) == (0, 0)
    assert daemon.stop() == 0


def committed_topics(driver: Driver) -> set[str]:
    return {topic for topic, _ in committed(driver.brokers, driver.group)}


def log_line(daemon: Daemon, words: str) -> str:
    """A line of the log from its level on."""
    return next(line for line in daemon.log().splitlines() if words in line).partition(" ")[2]
