"""Our own requests and answers at a real broker: that they are used, and what a session of fetches goes through."""

from __future__ import annotations

import uuid
from contextlib import ExitStack, closing
from typing import Any

import pytest
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.producer import ProduceRequest

from lab.kafka.admin import create_topic
from lab.kafka.server import KafkaServer
from pusher.broker.kafka import KafkaPublisher
from pusher.broker.offsets import TopicPartition
from tests.contract.brokers import CLIENTS, everything, expect_stored, poll_until, receive, until, values

pytestmark = pytest.mark.integration

PYTHON = CLIENTS["kafka-python"]


def new_topic(brokers: str, partitions: int) -> str:
    topic = f"push-{uuid.uuid4().hex[:12]}_apns-single"
    create_topic(brokers, topic, partitions)
    return topic


def source_of(brokers: str, parts: ExitStack, *topics: str) -> Any:
    source = PYTHON.source(brokers, uuid.uuid4().hex, topics, everything, offset_reset="earliest")
    parts.callback(source.close, commit=False)
    return source


@pytest.fixture
def read_by_the_library(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keys of the APIs of which the library has read an answer."""
    found: list[int] = []
    read = KafkaProtocol._process_response

    def noted(self: KafkaProtocol, octets: Any) -> Any:
        found.append(self.in_flight_requests[0].request_api_key)
        return read(self, octets)

    monkeypatch.setattr(KafkaProtocol, "_process_response", noted)
    return found


def test_no_answer_is_the_librarys_to_read(
    kafka_brokers: str, parts: ExitStack, read_by_the_library: list[int]
) -> None:
    topic = new_topic(kafka_brokers, 3)
    publisher = parts.enter_context(closing(KafkaPublisher(kafka_brokers)))
    source = source_of(kafka_brokers, parts, topic)
    for number in range(600):
        publisher.publish(topic, b"%d" % number, expect_stored)
    assert len(values(receive(source, 600))) == 600
    assert read_by_the_library
    assert not {FetchRequest.API_KEY, ProduceRequest.API_KEY} & set(read_by_the_library)


def test_partitions_leave_a_session_and_come_again(kafka_brokers: str, parts: ExitStack) -> None:
    """Paused ones are forgotten by the broker, what is read from the others meanwhile is told to it."""
    full, other = new_topic(kafka_brokers, 2), new_topic(kafka_brokers, 1)
    publisher = parts.enter_context(closing(KafkaPublisher(kafka_brokers)))
    source = source_of(kafka_brokers, parts, full, other)
    for turn in range(3):
        seen: list[bytes | None] = []
        for number in range(5):
            for topic in (full, other):
                publisher.publish(topic, b"%s %d %d" % (topic.encode(), turn, number), expect_stored)
        assert publisher.flush(30) == 0
        read_until(source, 5, seen, held=full)
        assert all(value and value.startswith(other.encode()) for value in seen)
        read_until(source, 10, seen)
        assert len(set(seen)) == 10


def read_until(source: Any, number: int, seen: list[bytes | None], held: str = "") -> None:
    """Polls until so many values are seen in all, with one topic held."""

    def enough() -> bool:
        seen.extend(values(source.poll(0.1, lambda topic: topic == held)))
        return len(seen) >= number

    until(enough)


def test_a_session_that_the_broker_has_forgotten_begins_anew(breakable_kafka: KafkaServer, parts: ExitStack) -> None:
    brokers = breakable_kafka.brokers
    topic = new_topic(brokers, 2)
    publisher = parts.enter_context(closing(KafkaPublisher(brokers)))
    source = source_of(brokers, parts, topic)
    publisher.publish(topic, b"before", expect_stored)
    assert values(receive(source, 1)) == [b"before"]
    breakable_kafka.kill()
    breakable_kafka.start()
    publisher.publish(topic, b"after", expect_stored)
    assert values(receive(source, 1)) == [b"after"]
    poll_until(source, lambda: set(source.assignment.trackers) == {TopicPartition(topic, 0), TopicPartition(topic, 1)})


def test_a_record_after_a_silence_waits_for_no_others(kafka_brokers: str, parts: ExitStack) -> None:
    topic = new_topic(kafka_brokers, 1)
    publisher = parts.enter_context(closing(KafkaPublisher(kafka_brokers, linger_ms=80_000)))
    publisher.publish(topic, b"alone", expect_stored)
    assert publisher.flush(40) == 0
