"""The bench's side of Kafka: writes the push requests, watches the feedback topic grow, reads it in the end."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

PARTITIONS = 3


class Message(NamedTuple):
    """One record: Kafka's timestamp and the members of its JSON object."""

    time_ms: int
    members: dict[str, Any]


def create(brokers: str, topics: Iterable[str]) -> None:
    """Make topics and wait until they are there."""
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    try:
        admin.create_topics([NewTopic(name=topic, num_partitions=PARTITIONS, replication_factor=1) for topic in topics])
    finally:
        admin.close()


def write(brokers: str, topic: str, messages: Iterable[str], *, rate_s: float | None = None) -> None:
    """Produce messages over all partitions, as fast as it goes or at a rate. Returns when Kafka has them all."""
    producer = KafkaProducer(
        bootstrap_servers=brokers,
        linger_ms=50 if rate_s is None else 0,
        batch_size=1 << 20 if rate_s is None else 1 << 14,
        max_in_flight_requests_per_connection=5,
    )
    began = time.monotonic()
    try:
        for number, message in enumerate(messages):
            if rate_s is not None:
                time.sleep(max(0.0, began + number / rate_s - time.monotonic()))
            # runs of 200 fill a batch; at a rate every message may stand alone
            partition = (number // 200 if rate_s is None else number) % PARTITIONS
            producer.send(topic, message.encode(), partition=partition)
        producer.flush(60)
    finally:
        producer.close(10)


class Watcher:
    """Counts and reads the records of one topic, from its present end on, without belonging to a group."""

    def __init__(self, brokers: str, topic: str) -> None:
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._consumer = KafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False, max_poll_records=5000)
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_end()
        self._before: int = sum(self._consumer.position(partition) for partition in self._partitions)

    def count(self) -> int:
        """Records that the topic got since this watcher was made."""
        total: int = sum(self._consumer.end_offsets(self._partitions).values())
        return total - self._before

    def read(self, timeout_s: float = 120) -> Iterator[Message]:
        """The records that were not read before, up to the present end of the topic."""
        ends = self._consumer.end_offsets(self._partitions)
        deadline = time.monotonic() + timeout_s
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                raise RuntimeError("the topic could not be read to its end")
            for records in self._consumer.poll(timeout_ms=500).values():
                for record in records:
                    yield Message(record.timestamp, orjson.loads(record.value))

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()
