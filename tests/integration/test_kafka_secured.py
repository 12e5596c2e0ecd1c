"""Every way into a secured Kafka, and what is said where there is none."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka.admin import ACLOperation, ResourceType

from lab.kafka.admin import create_topic
from lab.kafka.secured import PASSWORD, USER, SecuredKafka, unsecured_token
from pusher.broker import connect
from pusher.broker.access import Access
from pusher.broker.interface import Broker
from pusher.config import Config, settings
from pusher.config.loader import parse
from tests.contract.brokers import (
    CLIENTS,
    Client,
    everything,
    expect_stored,
    finish,
    poll_until,
    receive,
    until,
    values,
)
from tests.faults.driver import Driver

pytestmark = pytest.mark.integration

PYTHON = CLIENTS["kafka-python"]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"))
    kafka.start()
    try:
        # As docs/kafka.md lists them.
        kafka.allow(ResourceType.TOPIC, "push-", ACLOperation.READ, ACLOperation.WRITE, ACLOperation.DESCRIBE)
        kafka.allow(ResourceType.GROUP, "pusher-", ACLOperation.READ)
        yield kafka
    finally:
        kafka.server.kill()


def config_of(address: str, client: Client = PYTHON, **keys: str) -> Config:
    """Settings by the last part of their keys."""
    keys["client"] = client.name
    given = {f"kafka.{key}": value for key, value in keys.items()} | {
        "queue.brokers": address,
        "queue.group": f"pusher-{uuid.uuid4().hex}",
        "queue.topics": "^push-game",
        "queue.offsetResetStrategy": "earliest",
    }
    return parse("", {}, [f"--{key}={value}" for key, value in given.items()])


def scram(secured: SecuredKafka, **keys: str) -> dict[str, str]:
    return {
        "securityProtocol": "SASL_SSL",
        "saslMechanism": "SCRAM-SHA-512",
        "saslUsername": USER,
        "saslPassword": PASSWORD,
        "caFile": secured.ca,
    } | keys


def access(secured: SecuredKafka) -> Access:
    return Access("kafka-python", "SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD, ca_file=secured.ca)


def ways(secured: SecuredKafka, directory: Path, client: Client) -> dict[str, Config]:
    token = directory / "token"
    token.write_text(f"{unsecured_token()}\n")
    command = shlex.join([sys.executable, "-c", f"print({unsecured_token()!r})"])
    oauth = {"securityProtocol": "SASL_SSL", "saslMechanism": "OAUTHBEARER", "caFile": secured.ca}
    return {
        "SCRAM-SHA-512": config_of(secured.login, client, **scram(secured)),
        "SCRAM-SHA-256": config_of(secured.login, client, **scram(secured, saslMechanism="SCRAM-SHA-256")),
        "PLAIN": config_of(secured.login, client, **scram(secured, saslMechanism="PLAIN")),
        "a token in a file": config_of(secured.login, client, **oauth, saslTokenFile=str(token)),
        "a token that a command prints": config_of(secured.login, client, **oauth, saslTokenCommand=command),
        "a client certificate": config_of(
            secured.mutual,
            securityProtocol="SSL",
            caFile=secured.ca,
            certFile=secured.certificate,
            keyFile=secured.key,
        ),
    }


WAYS = (
    "SCRAM-SHA-512",
    "SCRAM-SHA-256",
    "PLAIN",
    "a token in a file",
    "a token that a command prints",
    "a client certificate",
)


@pytest.mark.parametrize("way", WAYS)
def test_records_go_out_and_come_in(
    client: Client, secured: SecuredKafka, tmp_path: Path, parts: ExitStack, way: str
) -> None:
    config = ways(secured, tmp_path, client)[way]
    topic = f"push-game{uuid.uuid4().hex[:8]}_apns-single"
    create_topic(secured.brokers, topic, 1)
    broker = connect.broker(config, settings.QUEUE.at)
    assert broker.check() == "1 Kafka brokers answer"

    publisher = parts.enter_context(closing(broker.publisher()))
    for number in range(20):
        publisher.publish(topic, b"%d" % number, expect_stored)
    assert publisher.flush(20) == 0

    source = broker.source(settings.QUEUE, lambda name: name == topic)
    parts.callback(source.close, commit=False)
    deliveries = receive(source, 20)
    assert values(deliveries) == [b"%d" % number for number in range(20)]
    finish(deliveries)
    source.commit()
    assert broker.committed(config[settings.QUEUE.group], topic)[0].offset == 20

    reader = parts.enter_context(closing(broker.reader(topic, "earliest", "latest")))
    found: list[bytes | None] = []
    while not reader.ended:
        found += [record.value for record in reader.read(1)]
    assert found == values(deliveries)


def refusals(secured: SecuredKafka, client: Client) -> dict[str, tuple[Config, str]]:
    mutual = {"securityProtocol": "SSL", "caFile": secured.ca}
    expired, expired_key = secured.expired_certificate()
    return {
        "a wrong password": (
            config_of(secured.login, client, **scram(secured, saslPassword="no")),
            "authentication failed",
        ),
        "an unknown user": (
            config_of(secured.login, client, **scram(secured, saslUsername="no")),
            "authentication failed",
        ),
        "another CA": (config_of(secured.login, client, **scram(secured, caFile=secured.other_ca)), "kafka.caFile"),
        "the system's CAs": (config_of(secured.login, client, **scram(secured, caFile="")), "kafka.caFile"),
        "a name that is not the certificate's": (config_of(secured.misnamed, client, **mutual), "kafka.caFile"),
        "no TLS": (config_of(secured.login, client), "a TLS or SASL listener?"),
        "TLS where there is none": (config_of(secured.brokers, client, **mutual), "a listener without TLS?"),
        "no login": (config_of(secured.login, client, **mutual), "a TLS or SASL listener?"),
        "no certificate": (config_of(secured.mutual, client, **mutual), "client certificate"),
        "an expired certificate": (
            config_of(secured.mutual, client, **mutual, certFile=expired, keyFile=expired_key),
            "client certificate",
        ),
    }


REFUSALS = (
    "a wrong password",
    "an unknown user",
    "another CA",
    "the system's CAs",
    "a name that is not the certificate's",
    "no TLS",
    "TLS where there is none",
    "no login",
    "no certificate",
    "an expired certificate",
)


@pytest.mark.parametrize("case", REFUSALS)
def test_the_line_names_the_cause(client: Client, secured: SecuredKafka, case: str) -> None:
    config, cause = refusals(secured, client)[case]
    login = client.login(Access.from_config(config, settings.KAFKA, settings.QUEUE.kafka))
    reader = client.reader(config[settings.QUEUE.brokers], "", login=login, answer_s=5)
    with closing(reader), pytest.raises(OSError, match="no answer from Kafka") as failed:
        reader.reach_brokers()
    assert cause in str(failed.value)
    assert PASSWORD not in str(failed.value)


def reason_of(broker: Broker, parts: ExitStack, cause: str) -> str:
    source = broker.source(settings.QUEUE, lambda _: True)
    parts.callback(source.close, commit=False)
    poll_until(source, lambda: cause in source.health().reason)
    return source.health().reason


def test_readiness_names_the_cause_and_no_secret_is_logged(
    client: Client, secured: SecuredKafka, parts: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = config_of(secured.login, client, **scram(secured, saslPassword="something else"))
    reason = reason_of(connect.broker(config, settings.QUEUE.at), parts, "authentication failed")
    assert secured.login in reason
    assert "something else" not in caplog.text + reason


def test_a_changed_password_is_taken_while_clients_live(
    client: Client, secured: SecuredKafka, parts: ExitStack
) -> None:
    topic = f"push-game{uuid.uuid4().hex[:8]}_apns-single"
    wrong = config_of(secured.login, client, **scram(secured, saslPassword="of last year"))
    broker = connect.broker(wrong, settings.QUEUE.at)
    publisher = parts.enter_context(closing(broker.publisher()))
    source = broker.source(settings.QUEUE, lambda name: name == topic)
    parts.callback(source.close, commit=False)
    create_topic(secured.brokers, topic, 1)
    publisher.publish(topic, b"at last", expect_stored)
    poll_until(source, lambda: "authentication failed" in source.health().reason)
    assert publisher.pending == 1

    assert broker.reload(config_of(secured.login, client, **scram(secured)))
    assert not broker.reload(config_of(secured.login, client, **scram(secured)))
    assert values(receive(source, 1)) == [b"at last"]
    until(lambda: publisher.pending == 0)


def test_a_running_process_takes_a_new_password_at_sighup(
    client: Client, secured: SecuredKafka, tmp_path: Path
) -> None:
    with Driver(tmp_path / "run", secured.brokers, apps=(f"game{uuid.uuid4().hex[:8]}",)) as driver:
        driver.group = f"pusher-{uuid.uuid4().hex}"
        provider = driver.simulator()
        driver.create_topics(driver.single)
        driver.produce(driver.single, 10)

        def settings(password: str) -> dict[str, Any]:
            kafka = scram(secured, saslPassword=password, client=client.name)
            roles = {"queue.brokers": secured.login, "feedback.kafka.brokers": secured.login}
            access = {f"kafka.{key}": value for key, value in kafka.items()}
            return driver.settings(provider.port, provider.ca_file, **roles, **access)

        daemon = driver.daemon(settings("of last year"))
        daemon.wait_for("authentication failed")
        daemon.settings_file.write_text(yaml.safe_dump(settings(PASSWORD)))
        daemon.signal(signal.SIGHUP)
        driver.run(timeout_s=60)
        assert daemon.stop() == 0
        assert driver.verdict().good
        assert PASSWORD not in daemon.logs()
        assert "of last year" not in daemon.logs()


def test_a_login_is_renewed_before_its_session_ends(client: Client, secured: SecuredKafka, parts: ExitStack) -> None:
    """The broker closes connections that do not log in again in time (KIP-368)."""
    topic = f"push-game{uuid.uuid4().hex[:8]}_apns-single"
    create_topic(secured.brokers, topic, 1)
    broker = connect.broker(config_of(secured.login, client, **scram(secured)), settings.QUEUE.at)
    publisher = parts.enter_context(closing(broker.publisher()))
    source = broker.source(settings.QUEUE, lambda name: name == topic)
    parts.callback(source.close, commit=False)
    ends = time.monotonic() + 6
    sent = 0
    while time.monotonic() < ends:
        publisher.publish(topic, b"%d" % sent, expect_stored)
        sent += 1
        receive(source, 1)
    assert publisher.flush(10) == 0


def test_a_topic_without_rights_is_refused_and_no_other(
    client: Client, secured: SecuredKafka, parts: ExitStack
) -> None:
    secret = f"secret-{uuid.uuid4().hex[:8]}"
    create_topic(secured.brokers, secret, 1)
    broker = connect.broker(config_of(secured.login, client, **scram(secured)), settings.QUEUE.at)
    publisher = parts.enter_context(closing(broker.publisher()))
    refused: list[Exception | None] = []
    publisher.publish(secret, b"x", refused.append)
    until(lambda: bool(refused))
    assert "not authorized" in str(refused[0])


def test_a_topic_that_may_be_described_but_not_read_stops_no_other(
    client: Client, secured: SecuredKafka, parts: ExitStack
) -> None:
    name = uuid.uuid4().hex[:8]
    shut, free = f"shut-{name}", f"push-game{name}_apns-single"
    for topic in (shut, free):
        create_topic(secured.brokers, topic, 1)
    secured.allow(ResourceType.TOPIC, shut, ACLOperation.DESCRIBE)
    broker = connect.broker(config_of(secured.login, client, **scram(secured)), settings.QUEUE.at)
    operator = parts.enter_context(closing(connect.broker(config_of(secured.brokers), settings.QUEUE.at).publisher()))
    for topic in (shut, free):
        operator.publish(topic, topic.encode(), expect_stored)
    assert operator.flush(20) == 0

    source = client.source(
        secured.login,
        f"pusher-{name}",
        [shut, free],
        everything,
        offset_reset="earliest",
        login=client.login(access(secured)),
    )
    parts.callback(source.close, commit=False)
    deliveries = receive(source, 1)
    assert values(deliveries) == [free.encode()]
    finish(deliveries)
    source.commit()
    assert broker.committed(f"pusher-{name}", free)[0].offset == 1
    poll_until(source, lambda: shut in source.health().reason)
    assert free not in source.health().reason

    secured.allow(ResourceType.TOPIC, shut, ACLOperation.READ)
    assert values(receive(source, 1)) == [shut.encode()]
    poll_until(source, lambda: source.health().ready)
