"""Reads a topic without a group, for the commands ``tail`` and ``replay``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import gevent
from confluent_kafka import KafkaError, KafkaException

from pusher.broker.access import Access
from pusher.broker.interface import NoSuchTopic, Place, Record
from pusher.broker.librdkafka.access import LibrdkafkaLogin, consumer_settings
from pusher.broker.librdkafka.client import LibrdkafkaClient, denied
from pusher.broker.librdkafka.records import ReceivedRecord, place
from pusher.broker.offsets import Commit, TopicPartition
from pusher.telemetry.log import logger

log = logger(__name__)

_LOOK_S = 0.05
_MAX_RECORDS = 500
#: The library wants a group for every consumer; nothing is asked of this one.
_NO_GROUP = "pusher-reader"


class LibrdkafkaReader:
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
        login: LibrdkafkaLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers, self._topic, self._start, self._end = brokers, topic, start, end
        self._answer_s, self._clock = answer_s, clock
        #: Where partitions end that have not been read up to there, and those that have.
        self._ends: dict[TopicPartition, int] = {}
        self._read_up: set[TopicPartition] = set()
        self._begun = False
        #: Whether every partition was read up to its end.
        self.ended = False
        self._login = login or LibrdkafkaLogin(Access())
        conf = {
            "group.id": group or _NO_GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
        }
        self._client = LibrdkafkaClient(brokers, self._login, consumer_settings(self._login.access) | conf)

    def read(self, timeout_s: float) -> Sequence[Record]:
        """The next records, in order within a partition. See ``Reader``. The first call waits longer, for answers."""
        with self._plain_errors():
            if not self._begun:
                self._begin()
                self._begun = True
            if self.ended:
                return []
            records: list[Record] = []
            for message in self._client.read(timeout_s, _MAX_RECORDS):
                key = place(message)
                error = message.error()
                if error is None:
                    records += self._before_end(ReceivedRecord(key, message), key)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # the library's own name
                    self._note_position(key, message.offset() or 0)
                else:
                    raise OSError(f"{key.topic}: {denied(error)}")
            return records

    def offsets(self, place: Place) -> dict[int, int]:
        """See ``Reader``."""
        with self._plain_errors():
            found = self._places(self._find_partitions(), place)
            return {key.partition: offset for key, offset in found.items()}

    def committed(self) -> dict[int, Commit]:
        """The group's commits, by partition. Waits; raises like ``read``."""
        with self._plain_errors():
            found, failed = self._client.committed(self._find_partitions(), self._answer_s)
            for reason in failed.values():
                raise OSError(reason)
            return {key.partition: commit for key, commit in found.items()}

    def close(self) -> None:
        """Never raises."""
        try:
            self._client.close()
        except Exception:
            log.exception("Kafka's reader did not close")

    def wait_for_brokers(self) -> list[str]:
        """Host and port of the brokers; raises ``OSError`` when none answers in ``answer_s``."""
        deadline = self._clock() + self._answer_s
        while True:
            try:
                return self._client.brokers()
            except (KafkaException, TimeoutError) as error:
                troubles = self._client.troubles
                if troubles.refused or self._clock() > deadline:
                    reason = troubles.text or str(error)
                    raise OSError(f"no answer from Kafka at {self._brokers}: {reason}") from None
            gevent.sleep(_LOOK_S)

    def reach_brokers(self) -> int:
        """How many brokers there are; raises ``OSError`` when one cannot be reached. Waits some seconds."""
        brokers = self.wait_for_brokers()
        for address in brokers:
            with closing(LibrdkafkaReader(address, "", answer_s=self._answer_s, login=self._login)) as reader:
                reader.wait_for_brokers()
        return len(brokers)

    def _begin(self) -> None:
        partitions = self._find_partitions()
        starts = self._places(partitions, self._start)
        if self._end is not None:
            self._ends = self._places(partitions, self._end, default=None)
        self._client.assign(starts)
        for key in [key for key, end in self._ends.items() if starts[key] >= end]:
            self._end_partition(key)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (KafkaException, TimeoutError) as error:
            raise OSError(f"Kafka at {self._brokers}: {self._client.troubles.text or error}") from error

    def topics(self) -> list[str]:
        """Names of all topics. Waits and raises as ``wait_for_brokers``."""
        self.wait_for_brokers()
        with self._plain_errors():
            return sorted(self._client.topics())

    def _find_partitions(self) -> list[TopicPartition]:
        self.wait_for_brokers()
        found = self._client.topics().get(self._topic)
        if not found:
            raise NoSuchTopic(f"topic {self._topic} does not exist in Kafka at {self._brokers}")
        return [TopicPartition(self._topic, number) for number in sorted(found)]

    def _places(
        self, partitions: Sequence[TopicPartition], place: Place, default: Place | None = "earliest"
    ) -> dict[TopicPartition, int]:
        if place == "earliest":
            return self._client.starts(partitions, self._answer_s)
        if place == "latest":
            return self._client.ends(partitions, self._answer_s)
        if isinstance(place, Mapping):
            given = {key: place[key.partition] for key in partitions if key.partition in place}
            missing = [key for key in partitions if key not in given]
            return given | (self._places(missing, default) if default is not None and missing else {})
        return self._client.at(partitions, int(float(place) * 1000), self._answer_s)

    def _before_end(self, record: ReceivedRecord, key: TopicPartition) -> list[ReceivedRecord]:
        if key in self._read_up:
            return []
        end = self._ends.get(key)
        self._note_position(key, record.offset + 1)
        return [record] if end is None or record.offset < end else []

    def _note_position(self, key: TopicPartition, offset: int) -> None:
        """Nothing is left to read below; also where the last places hold transactions' marks, or nothing any more."""
        if key in self._ends and offset >= self._ends[key]:
            self._end_partition(key)

    def _end_partition(self, key: TopicPartition) -> None:
        self._client.hold([key], [])
        del self._ends[key]
        self._read_up.add(key)
        self.ended = not self._ends
