"""The brokers that the contract suite runs over: how each makes topics, sources, publishers and readers."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lab.kafka.admin import create_topic
from pusher.broker import connect, interface
from pusher.broker.access import Access
from pusher.broker.interface import (
    Delivery,
    Failed,
    IsFull,
    Place,
    Publisher,
    Reader,
    Record,
    Source,
    Wanted,
    log_failure,
)
from pusher.broker.kafka import KafkaPublisher, KafkaReader, KafkaSource
from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.librdkafka import LibrdkafkaPublisher, LibrdkafkaReader, LibrdkafkaSource
from pusher.broker.librdkafka.access import LibrdkafkaLogin
from pusher.broker.offsets import Commit, TopicPartition
from pusher.broker.sqlite import SqlitePublisher, SqliteSource
from pusher.broker.sqlite.store import Store, file_of
from pusher.broker.sqlite.topic_log import create_topic as create_sqlite_topic
from pusher.config import settings
from pusher.config.loader import parse

DEADLINE_S = 60.0


def broker_at(address: str, client: str = "kafka-python") -> interface.Broker:
    """A broker with the default settings."""
    return connect.broker(parse(f"kafka: {{client: {client}}}"), settings.QUEUE.at, address)


def everything(_topic: str) -> bool:
    return True


def never(_topic: str) -> bool:
    return False


class Broker(Protocol):
    """One broker for the tests of a session. What a test opens through it is closed with ``opened``."""

    #: setting kafka.client
    client: str
    #: of one record's value
    max_value_bytes: int

    @property
    def address(self) -> str: ...

    def create_topic(self, topic: str, partitions: int = 3) -> None:
        """A broker whose topics have one partition takes no notice of ``partitions``."""
        ...

    def source(
        self,
        group: str,
        topics: list[str],
        *,
        wanted: Wanted = everything,
        offset_reset: str = "earliest",
        max_uncommitted: int = 10_000,
    ) -> Source: ...

    def publisher(self, *, buffer_kib: int = 32768, failed: Failed = log_failure) -> Publisher: ...


class Client(NamedTuple):
    """The parts of a library that speaks to Kafka; the same arguments make both the same."""

    name: str
    source: type[KafkaSource | LibrdkafkaSource]
    publisher: type[KafkaPublisher | LibrdkafkaPublisher]
    reader: type[KafkaReader | LibrdkafkaReader]
    #: what access each of them is given as ``login``
    login: Callable[[Access], Any]


CLIENTS = {
    "kafka-python": Client("kafka-python", KafkaSource, KafkaPublisher, KafkaReader, KafkaLogin),
    "confluent-kafka": Client(
        "confluent-kafka", LibrdkafkaSource, LibrdkafkaPublisher, LibrdkafkaReader, LibrdkafkaLogin
    ),
}


class KafkaBroker:
    """A Kafka that runs already."""

    max_value_bytes = 1_000_000

    def __init__(self, brokers: str, client: str = "kafka-python") -> None:
        self.address = self.brokers = brokers
        self.client = client

    def create_topic(self, topic: str, partitions: int = 3) -> None:
        create_topic(self.brokers, topic, partitions)

    def source(
        self,
        group: str,
        topics: list[str],
        *,
        wanted: Wanted = everything,
        offset_reset: str = "earliest",
        max_uncommitted: int = 10_000,
    ) -> Source:
        return CLIENTS[self.client].source(
            self.brokers, group, topics, wanted, offset_reset=offset_reset, max_uncommitted=max_uncommitted
        )

    def publisher(self, *, buffer_kib: int = 32768, failed: Failed = log_failure) -> Publisher:
        return CLIENTS[self.client].publisher(self.brokers, buffer_kib=buffer_kib, failed=failed)


class SqliteBroker:
    """A file in a directory of its own."""

    client = "kafka-python"
    max_value_bytes = 1_000_000

    def __init__(self, directory: Path) -> None:
        self.address = self.url = f"sqlite:///{directory}/queue.db"
        self.path = file_of(self.url)

    def create_topic(self, topic: str, partitions: int = 3) -> None:
        with closing(Store(self.url)) as store:
            store.run(lambda connection: create_sqlite_topic(connection, topic))

    def source(
        self,
        group: str,
        topics: list[str],
        *,
        wanted: Wanted = everything,
        offset_reset: str = "earliest",
        max_uncommitted: int = 10_000,
    ) -> Source:
        return SqliteSource(self.url, group, topics, wanted, offset_reset=offset_reset, max_uncommitted=max_uncommitted)

    def publisher(self, *, buffer_kib: int = 32768, failed: Failed = log_failure) -> Publisher:
        return SqlitePublisher(self.url, buffer_kib=buffer_kib, failed=failed)


class Desk:
    """What a test works with: names of its own on a broker, and parts that end with the test."""

    def __init__(self, broker: Broker, stack: ExitStack) -> None:
        self.broker = broker
        #: What a record's end has raised.
        self.failures: list[BaseException] = []
        self._stack = stack
        self._prefix = f"push-{uuid.uuid4().hex[:12]}"
        self._numbers = itertools.count()
        self._publisher: Publisher | None = None

    def name(self) -> str:
        """A topic or group name that nobody used before; all names of a desk share ``prefix``."""
        return f"{self._prefix}_apns-single{next(self._numbers)}"

    @property
    def prefix(self) -> str:
        return self._prefix

    def topic(self, partitions: int = 3) -> str:
        topic = self.name()
        self.broker.create_topic(topic, partitions)
        return topic

    def source(
        self,
        group: str,
        topics: list[str],
        *,
        wanted: Wanted = everything,
        offset_reset: str = "earliest",
        max_uncommitted: int = 10_000,
    ) -> Source:
        source = self.broker.source(
            group, topics, wanted=wanted, offset_reset=offset_reset, max_uncommitted=max_uncommitted
        )
        self._stack.callback(source.close, commit=False)
        return source

    def publisher(self, *, buffer_kib: int = 32768) -> Publisher:
        opened = self.broker.publisher(buffer_kib=buffer_kib, failed=self.failures.append)
        return self._stack.enter_context(closing(opened))

    def reader(self, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
        return self._stack.enter_context(
            closing(broker_at(self.broker.address, self.broker.client).reader(topic, start, end))
        )

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        return broker_at(self.broker.address, self.broker.client).committed(group, topic)

    def write(self, topic: str, *values: bytes) -> None:
        """Stores values; returns when all are stored."""
        if self._publisher is None:
            self._publisher = self.publisher()
        for value in values:
            self._publisher.publish(topic, value, expect_stored)
        assert self._publisher.flush(DEADLINE_S) == 0


@contextmanager
def desk(broker: Broker) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(broker, stack)


def expect_stored(error: Exception | None) -> None:
    assert error is None


def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition; fails after ``deadline_s``."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {condition}"
        time.sleep(0.01)


def poll_until(
    source: Source, condition: Callable[[], bool], is_full: IsFull = never, deadline_s: float = DEADLINE_S
) -> list[Delivery]:
    """Polls a source until a condition holds; what it delivered."""
    deliveries: list[Delivery] = []
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {condition}; {source.health()}"
        deliveries += source.poll(0.1, is_full)
    return deliveries


def receive(source: Source, count: int, is_full: IsFull = never, deadline_s: float = DEADLINE_S) -> list[Delivery]:
    """Polls a source until it has delivered ``count`` records; never more."""
    deliveries: list[Delivery] = []
    end = time.monotonic() + deadline_s
    while (missing := count - sum(len(delivery.records) for delivery in deliveries)) > 0:
        assert time.monotonic() < end, f"{missing} of {count} records missing; {source.health()}"
        deliveries += source.poll(0.1, is_full)
    assert missing == 0, f"{-missing} records too many"
    return deliveries


def own(source: Source, is_full: IsFull = never) -> None:
    """Polls a source that has nothing to deliver until it owns partitions."""
    assert poll_until(source, lambda: bool(source.assignment.trackers), is_full) == []


def receive_nothing(source: Source, is_full: IsFull = never, polls: int = 5) -> None:
    """Polls a source that owns partitions and has nothing to deliver."""
    own(source, is_full)
    assert [delivery for _ in range(polls) for delivery in source.poll(0.1, is_full)] == []


def records(deliveries: list[Delivery]) -> list[Record]:
    return [record for delivery in deliveries for record in delivery.records]


def values(deliveries: list[Delivery]) -> list[bytes | None]:
    return [record.value for record in records(deliveries)]


def finish(deliveries: list[Delivery]) -> None:
    """Every record delivered has reached its final outcome."""
    for tracker, delivered in deliveries:
        for record in delivered:
            tracker.finish(record.offset)


def key(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
