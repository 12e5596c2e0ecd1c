"""Reads a topic without a group, for the commands ``tail`` and ``replay``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import gevent
from kafka.errors import KafkaError

from pusher.broker.access import Access
from pusher.broker.interface import NoSuchTopic, Place, Record
from pusher.broker.kafka.access import KafkaLogin, consumer_settings
from pusher.broker.kafka.client import Consumer, Partition, connection
from pusher.broker.offsets import Commit, TopicPartition
from pusher.telemetry.log import logger

log = logger(__name__)

_LOOK_S = 0.05


class KafkaReader:
    """A ``Reader`` over Kafka. The constructor does not wait; the first ``read`` finds the brokers and the topic.

    ``start``: partitions that a mapping leaves out begin at the earliest offset. Reading stops before ``end``, whose
    "latest" means the ends at the first read; partitions that a mapping leaves out have no end. ``answer_s``: how long
    the brokers may take to answer. ``group`` is one to ask for its commits, and is not joined.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        start: Place = "earliest",
        end: Place | None = None,
        *,
        answer_s: float = 10.0,
        group: str | None = None,
        login: KafkaLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers, self._topic, self._start, self._end = brokers, topic, start, end
        self._answer_s, self._clock = answer_s, clock
        #: Where partitions end that have not been read up to there.
        self._ends: dict[Partition, int] = {}
        self._begun = False
        #: Whether every partition was read up to its end.
        self.ended = False
        login = login or KafkaLogin(Access())
        self._consumer = Consumer(
            **connection(brokers, login),
            **consumer_settings(login.access),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        self._consumer.watch_all_topics()

    def read(self, timeout_s: float) -> Sequence[Record]:
        """The next records, in order within a partition. See ``Reader``. The first call waits longer, for answers."""
        with self._plain_errors():
            if not self._begun:
                self._begin()
                self._begun = True
            if self.ended:
                return []
            polled: dict[Partition, list[Record]] = self._consumer.poll(timeout_ms=timeout_s * 1000)
            for failure in self._consumer.failed().values():
                raise failure
            records = [record for partition, found in polled.items() for record in self._before_end(partition, found)]
            # Also those that end without a record: its place may hold a transaction's mark, or nothing any more.
            for partition in [p for p, end in self._ends.items() if self._consumer.position(p) >= end]:
                self._end_partition(partition)
            return records

    def offsets(self, place: Place) -> dict[int, int]:
        """See ``Reader``."""
        with self._plain_errors():
            found = self._places(self._find_partitions(), place)
            return {partition.partition: offset for partition, offset in found.items()}

    def committed(self) -> dict[int, Commit]:
        """The group's commits, by partition. Waits; raises like ``read``."""
        with self._plain_errors():
            keys = [TopicPartition(*partition) for partition in self._find_partitions()]
            found = self._consumer.committed_offsets(keys, int(self._answer_s * 1000))
            return {key.partition: Commit(commit.offset, commit.metadata or "") for key, commit in found.items()}

    def close(self) -> None:
        """Never raises."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=1000)
        except Exception:
            log.exception("Kafka's reader did not close")

    def _begin(self) -> None:
        consumer = self._consumer
        partitions = self._find_partitions()
        starts = self._places(partitions, self._start)
        if self._end is not None:
            self._ends = self._places(partitions, self._end, default=None)
        consumer.assign(partitions)
        for partition, offset in starts.items():
            consumer.seek(partition, offset)
        for partition in [partition for partition, end in self._ends.items() if starts[partition] >= end]:
            self._end_partition(partition)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise OSError(f"Kafka at {self._brokers}: {self._consumer.connections.trouble or error}") from error

    def wait_for_brokers(self) -> int:
        """How many brokers answer; raises ``OSError`` when none does in ``answer_s``."""
        cluster = self._consumer.cluster
        deadline = self._clock() + self._answer_s
        while not cluster.brokers():
            trouble = self._consumer.connections.trouble
            if self._consumer.connections.refused or self._clock() > deadline:
                raise OSError(f"no answer from Kafka at {self._brokers}" + (f": {trouble}" if trouble else ""))
            gevent.sleep(_LOOK_S)
        return len(cluster.brokers())

    def reach_brokers(self) -> int:
        """How many brokers there are; raises ``OSError`` when one cannot be reached. Waits some seconds."""
        self.wait_for_brokers()
        brokers = self._consumer.cluster.brokers()
        with self._plain_errors():
            for broker in brokers:
                self._consumer.reach(broker.node_id)
        return len(brokers)

    def topics(self) -> list[str]:
        """Names of all topics. Waits and raises as ``wait_for_brokers``."""
        self.wait_for_brokers()
        return sorted(self._consumer.cluster.topics())

    def _find_partitions(self) -> list[Partition]:
        self.wait_for_brokers()
        found: set[int] | None = self._consumer.cluster.partitions_for_topic(self._topic)
        if not found:
            raise NoSuchTopic(f"topic {self._topic} does not exist in Kafka at {self._brokers}")
        return [Partition(self._topic, number) for number in sorted(found)]

    def _places(
        self, partitions: Sequence[Partition], place: Place, default: Place | None = "earliest"
    ) -> dict[Partition, int]:
        timeout_ms = int(self._answer_s * 1000)
        if place == "earliest":
            return dict(self._consumer.beginning_offsets(partitions, timeout_ms))
        if place == "latest":
            return dict(self._consumer.end_offsets(partitions, timeout_ms))
        if isinstance(place, Mapping):
            given = {partition: place[partition.partition] for partition in partitions if partition.partition in place}
            missing = [partition for partition in partitions if partition not in given]
            return given | (self._places(missing, default) if default is not None and missing else {})
        moment_ms = int(float(place) * 1000)
        found = self._consumer.offsets_for_times(dict.fromkeys(partitions, moment_ms), timeout_ms)
        later = [partition for partition in partitions if found[partition] is None]
        ends = self._consumer.end_offsets(later, timeout_ms) if later else {}
        return ends | {partition: at.offset for partition, at in found.items() if at is not None}

    def _before_end(self, partition: Partition, records: list[Record]) -> list[Record]:
        end = self._ends.get(partition)
        return records if end is None else [record for record in records if record.offset < end]

    def _end_partition(self, partition: Partition) -> None:
        self._consumer.pause(partition)
        del self._ends[partition]
        self.ended = not self._ends
