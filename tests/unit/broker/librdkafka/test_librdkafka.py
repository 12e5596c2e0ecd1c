"""What stands between the hub and librdkafka: threads, settings, the words for what goes wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import gevent
import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from pusher.broker.access import Access
from pusher.broker.librdkafka.access import LibrdkafkaLogin, connection, same_but_credentials
from pusher.broker.librdkafka.native import Threads, in_hub
from pusher.broker.librdkafka.troubles import BrokerTroubles, explain
from pusher.errors import StartError
from pusher.sim.certificate import make_ca, make_client_certificate

SCRAM = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u", "sasl_password": "p"}


# --- threads


def test_a_call_waits_in_a_thread_and_the_hub_goes_on() -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.001)
            ticks += 1

    ticker = gevent.spawn(tick)
    hub = gevent.get_hub()

    def work() -> bool:
        # Only a hub that goes on counts further while this thread asks it.
        before = in_hub(hub, lambda: ticks)
        while in_hub(hub, lambda: ticks) == before:
            pass
        return gevent.get_hub() is not hub

    assert Threads(1).call(work)
    ticker.kill()


def test_what_is_raised_comes_out_and_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyError("here")

    hub = gevent.get_hub()
    with pytest.raises(KeyError, match="here"):
        Threads(1).call(fail)
    with pytest.raises(KeyError, match="here"):
        Threads(1).call(in_hub, hub, fail)
    assert capfd.readouterr() == ("", "")


def test_a_call_that_lasts_too_long_is_left_alone() -> None:
    go_on = threading.Event()
    hub = gevent.get_hub()
    threads = Threads(1)
    with pytest.raises(TimeoutError, match="no answer"):
        threads.call_within(0.05, lambda: in_hub(hub, go_on.wait))
    go_on.set()
    assert threads.call(lambda: 1) == 1


# --- settings


@pytest.mark.parametrize("client", [Consumer, Producer])
def test_the_library_takes_all_settings_of_an_access(client: type[Consumer | Producer], tmp_path: Path) -> None:
    ca = make_ca()
    authority, _ = ca.write(tmp_path, "ca")
    certificate, key = make_client_certificate(ca, "app").write(tmp_path, "client")
    tls = {"security_protocol": "SSL", "ca_file": authority, "cert_file": certificate, "key_file": key}
    for values in ({}, SCRAM, SCRAM | {"sasl_mechanism": "PLAIN"}, tls):
        settings = connection("localhost:1", LibrdkafkaLogin(Access(**values)).settings, BrokerTroubles())
        made = client(settings | ({"group.id": "x"} if client is Consumer else {}))
        if isinstance(made, Consumer):
            made.close()


def test_names_are_always_verified() -> None:
    conf = LibrdkafkaLogin(Access(security_protocol="SSL")).settings["conf"]
    assert conf["ssl.endpoint.identification.algorithm"] == "https"
    assert "enable.ssl.certificate.verification" not in conf


def test_what_cannot_work_is_refused_in_one_line() -> None:
    with pytest.raises(StartError, match=r"kafka\.saslPassword"):
        LibrdkafkaLogin(Access(**(SCRAM | {"sasl_password": ""})))
    with pytest.raises(StartError, match="cannot read /nowhere"):
        LibrdkafkaLogin(Access(security_protocol="SSL", ca_file="/nowhere"))


def test_a_new_password_needs_no_new_client_and_a_new_certificate_does(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(Path(make_ca("one").write(tmp_path, "one")[0]).read_bytes())
    values = SCRAM | {"ca_file": str(authority)}
    old, new = (
        LibrdkafkaLogin(Access(**values)).settings,
        LibrdkafkaLogin(Access(**(values | {"sasl_password": "new"}))).settings,
    )
    assert same_but_credentials(old, new)
    authority.write_bytes(Path(make_ca("two").write(tmp_path, "two")[0]).read_bytes())
    assert not same_but_credentials(old, LibrdkafkaLogin(Access(**values)).settings)


def test_a_missing_package_is_one_line_that_says_what_to_do() -> None:
    text = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from pusher.commands.cli import main\n"
        "sys.exit(main(['apns', '--check', '--config', '/dev/null']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=Path(__file__).parents[4],
        env={"PUSHER_KAFKA_CLIENT": "confluent-kafka"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "confluent" in line]
    assert lines
    assert all("install the extra `confluent`" in line for line in lines)
    assert "Traceback" not in done.stderr


# --- words

AT = "sasl_ssl://kafka:9093/bootstrap: "
FAILURES = {
    "a name": (KafkaError._RESOLVE, f"{AT}Failed to resolve 'kafka:9093': Name or service not known", "not resolve"),
    "nobody": (KafkaError._TRANSPORT, f"{AT}Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)", "connection refused"),  # noqa: E501
    "a certificate": (KafkaError._SSL, f"{AT}SSL handshake failed: error:0A000086:SSL routines::certificate verify failed:", "kafka.caFile"),  # noqa: E501
    "a login": (KafkaError._AUTHENTICATION, f"{AT}SASL authentication error: Authentication failed during authentication", "authentication failed"),  # noqa: E501
    "closed": (KafkaError._TRANSPORT, f"{AT}Disconnected: connection closed by peer", "a TLS or SASL listener?"),
    "closed in the handshake": (KafkaError._TRANSPORT, f"{AT}Disconnected (after 2ms in state SSL_HANDSHAKE)", "a listener without TLS?"),  # noqa: E501
    "reset in the handshake": (KafkaError._TRANSPORT, f"{AT}Receive failed: Connection reset by peer (after 1ms in state SSL_HANDSHAKE)", "a listener without TLS?"),  # noqa: E501
    "anything else": (KafkaError._TRANSPORT, f"{AT}something", "something"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "line", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_explained(code: int, line: str, words: str) -> None:
    where, meaning = explain(code, line)
    assert where == "kafka:9093"
    assert words in meaning
    assert "\n" not in meaning


def test_a_listener_may_answer_the_first_request_and_close_at_the_second() -> None:
    troubles = BrokerTroubles()
    line = "[thrd:a]: ssl://kafka:9092/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in state UP)"
    troubles.log(20, "", "FAIL", "x", line)
    assert troubles.text.startswith("kafka:9092: the connection was closed at once")
    troubles.clear()
    troubles.log(20, "", "FAIL", "x", line)
    assert not troubles.text


def test_troubles_end_when_a_broker_answers() -> None:
    troubles = BrokerTroubles()
    troubles.log(20, "", "FAIL", "x", "[thrd:a]: plaintext://kafka:9092/1: Disconnected (after 1ms in state UP)")
    assert not troubles.text
    troubles.log(20, "", "FAIL", "x", "[thrd:a]: kafka:9092/1: Disconnected (after 1ms in state APIVERSION_QUERY)")
    assert troubles.text.startswith("kafka:9092: the connection was closed at once")
    troubles.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert troubles.down
    troubles.clear()
    assert (troubles.down, troubles.text) == (False, "")
