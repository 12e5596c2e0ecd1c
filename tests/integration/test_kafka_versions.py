"""Other versions of Kafka than the newest, by hand: KAFKA_VERSIONS="2.8.2 3.9.1" pytest -k kafka_versions.

Each is fetched by Maven when it is first asked for.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from lab.kafka.admin import create_topic
from lab.kafka.server import KafkaServer
from pusher.broker.interface import PublishError, RecordTooLarge
from tests.contract.brokers import Client, everything, expect_stored, finish, poll_until, receive, until, values

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=os.environ.get("KAFKA_VERSIONS", "").split())
def brokers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("kafka")
    server = KafkaServer(directory, version=request.param)
    server.start()
    yield server.brokers
    server.kill()


def test_records_commits_and_groups_work(brokers: str, client: Client, parts: ExitStack) -> None:
    topic, group = f"push-{uuid.uuid4().hex[:12]}_apns-single", uuid.uuid4().hex
    create_topic(brokers, topic, 4)
    publisher = parts.enter_context(closing(client.publisher(brokers)))
    for number in range(400):
        publisher.publish(topic, b"%d" % number, expect_stored, [("error", b"x")])
    refused: list[PublishError | None] = []
    publisher.publish(topic, bytes(2_000_000), refused.append)
    assert publisher.flush(30) == 0
    until(lambda: bool(refused))
    assert isinstance(refused[0], RecordTooLarge)

    source = client.source(brokers, group, [topic], everything, offset_reset="earliest")
    deliveries = receive(source, 400)
    assert {next(iter(record.headers)) for delivery in deliveries for record in delivery.records} == {("error", b"x")}
    finish(deliveries)
    source.close()
    again = client.source(brokers, group, [topic], everything, offset_reset="latest")
    parts.callback(again.close, commit=False)
    poll_until(again, lambda: len(again.assignment.trackers) == 4)
    publisher.publish(topic, b"later", expect_stored)
    assert values(receive(again, 1)) == [b"later"]

    reader = parts.enter_context(closing(client.reader(brokers, topic, "earliest", "latest")))
    found: list[bytes | None] = []
    while not reader.ended:
        found += [record.value for record in reader.read(1)]
    assert len(found) == 401
