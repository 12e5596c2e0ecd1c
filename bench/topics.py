"""The bench's side of Kafka: fills topics, writes at a rate, watches topics grow and reads them in the end."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import orjson
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.record.default_records import DefaultRecordBatchBuilder

PARTITIONS = 3
#: records of one partition that are written together, as a producer does that lingers
BATCH_RECORDS = 500
#: a batch of the largest messages stays below the broker's limit of 1 MiB
BATCH_OCTETS = 900_000
NO_PRODUCER = -1
#: what a broker answers that does not lead a new topic's partition yet, and how long it may say so
NOT_LEADER, LEADER_S = 6, 10.0


class Message(NamedTuple):
    """One record: Kafka's timestamp and the members of its JSON object."""

    time_ms: int
    members: dict[str, Any]


def create(brokers: str, topics: Iterable[str], partitions: int = PARTITIONS) -> None:
    """Make topics and wait until they are there."""
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    try:
        shape = {"num_partitions": partitions, "replication_factor": 1}
        admin.create_topics(dict.fromkeys(topics, shape), wait_for_metadata=True)
    finally:
        admin.close()


def fill(brokers: str, topic: str, messages: Iterable[str], *, copies: int = 1) -> int:
    """Write messages, and all of them so many times, over all partitions as fast as it goes. Returns their number.

    Each record batch is made once and sent as it is: a backlog of millions costs seconds, where a producer that makes
    every record anew takes minutes. Returns when Kafka has them all.
    """
    batches = list(_batches(messages))
    with _connected(brokers, topic) as (connection, partitions):
        for _ in range(copies):
            for _, batch in batches:
                _produce(connection, topic, next(partitions), batch)
    return copies * sum(records for records, _ in batches)


def _batches(messages: Iterable[str]) -> Iterator[tuple[int, bytes]]:
    """How many records a batch has, and its bytes."""
    source = iter(messages)
    while records := list(islice(source, BATCH_RECORDS)):
        size = max(1, BATCH_OCTETS // max(map(len, records)))
        for first in range(0, len(records), size):
            yield len(records[first : first + size]), _batch(records[first : first + size])


def _batch(records: list[str]) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=NO_PRODUCER,
        producer_epoch=NO_PRODUCER,
        base_sequence=NO_PRODUCER,
        batch_size=BATCH_OCTETS * 2,
    )
    now_ms = int(time.time() * 1000)
    for number, record in enumerate(records):
        builder.append(number, now_ms, None, record.encode(), [])
    return bytes(builder.build())


def _request(topic: str, partition: int, batch: bytes, *, acknowledged: bool) -> bytes:
    """A Produce request, version 3: no client id, no transaction, acknowledged by the leader or by nobody."""
    acks, timeout_ms = int(acknowledged), 30_000
    head = struct.pack(">hhihhhii", 0, 3, 0, -1, -1, acks, timeout_ms, 1)
    where = struct.pack(">h", len(topic)) + topic.encode() + struct.pack(">iii", 1, partition, len(batch))
    return struct.pack(">i", len(head) + len(where) + len(batch)) + head + where + batch


def _produce(connection: socket.socket, topic: str, partition: int, batch: bytes) -> None:
    """Send a batch and wait until it is stored."""
    deadline = time.monotonic() + LEADER_S
    while error := _answer(connection, topic, partition, batch):
        if error != NOT_LEADER or time.monotonic() > deadline:
            raise RuntimeError(f"Kafka refuses a batch for {topic}, partition {partition}: error {error}")
        time.sleep(0.05)


def _answer(connection: socket.socket, topic: str, partition: int, batch: bytes) -> int:
    connection.sendall(_request(topic, partition, batch, acknowledged=True))
    size: int = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))[0]
    response = connection.recv(size, socket.MSG_WAITALL)
    # correlation id, topics, name, partitions, partition, error
    error: int = struct.unpack_from(">h", response, 4 + 4 + 2 + len(topic) + 4 + 4)[0]
    return error


def write(brokers: str, topic: str, messages: Iterable[str], *, rate_s: float) -> None:
    """Write so many messages a second, each in a request of its own that is sent at its time.

    Kafka acknowledges none, so that this costs some 30 us of CPU a message and delays nothing; who counts what comes of
    them sees whether any got lost.
    """
    with _connected(brokers, topic) as (connection, partitions):
        began = time.monotonic()
        for number, message in enumerate(messages):
            time.sleep(max(0.0, began + number / rate_s - time.monotonic()))
            connection.sendall(_request(topic, next(partitions), _batch([message]), acknowledged=False))


@contextlib.contextmanager
def _connected(brokers: str, topic: str) -> Iterator[tuple[socket.socket, Iterator[int]]]:
    """A connection to the broker, and the partitions of a topic in turn, for ever."""
    with contextlib.closing(KafkaConsumer(bootstrap_servers=brokers)) as consumer:
        partitions = cycle(sorted(consumer.partitions_for_topic(topic)))
    host, _, port = brokers.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection, partitions


class Watcher:
    """Counts and reads the records of topics, from their present ends on, without belonging to a group."""

    def __init__(self, brokers: str, *topics: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False, max_poll_records=5000)
        self._partitions = [
            TopicPartition(topic, number) for topic in topics for number in self._consumer.partitions_for_topic(topic)
        ]
        self._consumer.assign(self._partitions)
        self._begins: dict[TopicPartition, int] = self._consumer.end_offsets(self._partitions)
        self._rewind()

    def _rewind(self) -> None:
        for partition, offset in self._begins.items():
            self._consumer.seek(partition, offset)

    def counts(self) -> dict[str, int]:
        """Records that each topic got since this watcher was made."""
        counts: dict[str, int] = {}
        for partition, end in self._consumer.end_offsets(self._partitions).items():
            counts[partition.topic] = counts.get(partition.topic, 0) + end - self._begins[partition]
        return counts

    def count(self) -> int:
        """Records that all topics together got since this watcher was made."""
        return sum(self.counts().values())

    def first_ms(self, timeout_s: float = 10) -> int:
        """Timestamp of the earliest record, which has to be there. What is read() afterwards begins with it."""
        deadline = time.monotonic() + timeout_s
        while not (found := self._consumer.poll(timeout_ms=500)):
            if time.monotonic() > deadline:
                raise RuntimeError("no record could be read")
        self._rewind()
        earliest: int = min(records[0].timestamp for records in found.values())
        return earliest

    def read(self, timeout_s: float = 120) -> Iterator[Message]:
        """The records that were not read before, up to the present end of the topics."""
        ends = self._consumer.end_offsets(self._partitions)
        deadline = time.monotonic() + timeout_s
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                raise RuntimeError("the topics could not be read to their end")
            for records in self._consumer.poll(timeout_ms=500).values():
                for record in records:
                    yield Message(record.timestamp, orjson.loads(record.value))

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()
