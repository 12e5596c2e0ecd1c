"""The two requests that each message takes, Fetch and Produce, written and read in few steps.

The library makes every request and answer out of objects, field by field, for all versions: some 250 calls for a fetch
and a produce that bring one message each. These two know one version each, that of every broker since Kafka 2.8, and
one shape of its answer, the one without errors. All else, other versions and other shapes, is made and read by the
library from the same fields and the same octets.

Format: Kafka's protocol guide, "Fetch" version 12, "Produce" version 9, headers of version 2 (requests) and 1
(answers). A compact length is an unsigned varint of one more than the length, 0 for null. Tagged fields are optional;
each place for them holds their number, 0 here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import BytesIO
from struct import Struct
from typing import Any, ClassVar, Final, NamedTuple

from kafka.consumer import fetcher
from kafka.errors import KafkaProtocolError
from kafka.net import connection
from kafka.producer import sender
from kafka.protocol.api_header import RequestHeader
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.producer import ProduceRequest

from pusher.broker.kafka.answers import CUT_SHORT, FetchAnswer, ProduceAnswer, Unusual, read_fetch, read_produce
from pusher.broker.kafka.varint import unsigned_varint

_HEADER: Final = Struct(">ihhih")  # size, API, version, correlation id, length of the client's id
_SIZE: Final = Struct(">i")
_NO_TAGS: Final = b"\0"
_ANSWER_HEADER: Final = Struct(">ib")  # correlation id, tags


# --- requests ---------------------------------------------------------------------------------------------------------
class FetchPartition(NamedTuple):
    """The fetch position of a partition. The consumer compares each with the one before, to ask for changes only."""

    partition: int
    current_leader_epoch: int
    fetch_offset: int
    last_fetched_epoch: int
    partition_max_bytes: int


class FetchTopic(NamedTuple):
    """Partitions of one topic: ``FetchPartition``, or numbers of those that are wanted no longer."""

    topic: str
    partitions: Sequence[Any]


class ProducePartition(NamedTuple):
    """A batch for a partition."""

    index: int  # type: ignore[assignment]  # the library's name for it
    records: bytes | bytearray


class ProduceTopic(NamedTuple):
    """Batches for partitions of one topic."""

    name: str
    partition_data: Sequence[ProducePartition]


class _Request(ABC):
    """A request for the library's connection: it chooses the version, gives it a number and sends it."""

    name: ClassVar[str]
    API_KEY: ClassVar[int]
    FAST_VERSION: ClassVar[int]

    def __init__(self, *, min_version: int, max_version: int, **fields: Any) -> None:
        self.min_version = self._min_version = min_version
        self.max_version = self._max_version = max_version
        self.fields = fields
        self.API_VERSION: int | None = None  # the library's own name
        self.correlation_id = 0
        self._client_id = b""
        self._slow: Any = None

    def with_header(self, correlation_id: int, client_id: str) -> None:
        """Called once, when the version is chosen."""
        self.correlation_id, self._client_id = correlation_id, client_id.encode()
        if self.API_VERSION != self.FAST_VERSION:
            self._slow = self.as_the_library_makes_it()
            self._slow.API_VERSION = self.API_VERSION
            self._slow.with_header(correlation_id=correlation_id, client_id=client_id)

    @property
    def header(self) -> Any:
        """What the answer is recognised by: the request itself, or the library's header."""
        return self if self._slow is None else self._slow.header

    def library_header(self) -> RequestHeader:
        """The object by which the library recognises the answer."""
        return RequestHeader(
            request_api_key=self.API_KEY,
            request_api_version=self.FAST_VERSION,
            correlation_id=self.correlation_id,
            client_id=self._client_id.decode(),
        )

    @abstractmethod
    def read(self, octets: bytes, position: int) -> Any:
        """The answer that begins there, behind its header. Raises Unusual, or ``CUT_SHORT``."""

    def encode(self, *, framed: bool, header: bool) -> bytes | bytearray:
        """The octets to send."""
        if self._slow is not None:
            octets: bytearray = self._slow.encode(framed=framed, header=header)
            return octets
        body = self.body()
        size = _HEADER.size - _SIZE.size + len(self._client_id) + 1 + sum(map(len, body))
        head = _HEADER.pack(size, self.API_KEY, self.FAST_VERSION, self.correlation_id, len(self._client_id))
        return b"".join((head, self._client_id, _NO_TAGS, *body))

    def expect_response(self) -> bool:
        """Whether it is answered."""
        return True

    @abstractmethod
    def body(self) -> list[bytes | bytearray]:
        """The parts after the header, of FAST_VERSION."""

    @abstractmethod
    def as_the_library_makes_it(self) -> Any:
        """The same request as the library's object."""


class Fetch(_Request):
    """A Fetch request."""

    name = FetchRequest.name
    API_KEY, FAST_VERSION = FetchRequest.API_KEY, 12
    min_version_for_isolation_level = FetchRequest.min_version_for_isolation_level
    _HEAD: Final = Struct(">iiiibii")
    #: With the start of the log, which only replicas tell.
    _PARTITION: Final = Struct(">iiqiqib")

    def body(self) -> list[bytes | bytearray]:
        """See ``_Request``."""
        fields = self.fields
        limits = (fields["max_wait_ms"], fields["min_bytes"], fields["max_bytes"], int(fields["isolation_level"]))
        parts: list[bytes | bytearray] = [self._HEAD.pack(-1, *limits, fields["session_id"], fields["session_epoch"])]
        parts.append(_length(len(fields["topics"])))
        for topic in fields["topics"]:
            parts += (_text(topic.topic), _length(len(topic.partitions)))
            for number, leader_epoch, offset, fetched_epoch, most in topic.partitions:
                parts.append(self._PARTITION.pack(number, leader_epoch, offset, fetched_epoch, -1, most, 0))
            parts.append(_NO_TAGS)
        parts.append(_length(len(fields["forgotten_topics_data"])))
        for topic in fields["forgotten_topics_data"]:
            parts += (_text(topic.topic), _length(len(topic.partitions)))
            parts += [_SIZE.pack(number) for number in topic.partitions]
            parts.append(_NO_TAGS)
        parts += (_text(fields["rack_id"]), _NO_TAGS)
        return parts

    def read(self, octets: bytes, position: int) -> FetchAnswer:
        """See ``_Request``."""
        return read_fetch(octets, position)

    def as_the_library_makes_it(self) -> FetchRequest:
        """See ``_Request``."""
        topic_type, partition_type = FetchRequest.FetchTopic, FetchRequest.FetchTopic.FetchPartition
        topics = [
            topic_type(topic=topic.topic, partitions=[partition_type(**each._asdict()) for each in topic.partitions])
            for topic in self.fields["topics"]
        ]
        forgotten = [FetchRequest.ForgottenTopic(**topic._asdict()) for topic in self.fields["forgotten_topics_data"]]
        return FetchRequest(**self.fields | {"topics": topics, "forgotten_topics_data": forgotten})


class Produce(_Request):
    """A Produce request."""

    name = ProduceRequest.name
    API_KEY, FAST_VERSION = ProduceRequest.API_KEY, 9
    #: Where the library looks for the types of its parts.
    TopicProduceData = ProduceTopic
    _HEAD: Final = Struct(">hi")

    def expect_response(self) -> bool:
        """Whether it is answered."""
        return bool(self.fields["acks"])

    def body(self) -> list[bytes | bytearray]:
        """See ``_Request``."""
        fields = self.fields
        transaction = fields["transactional_id"]
        parts: list[bytes | bytearray] = [b"\0" if transaction is None else _text(transaction)]
        parts += (self._HEAD.pack(fields["acks"], fields["timeout_ms"]), _length(len(fields["topic_data"])))
        for topic, partitions in fields["topic_data"]:
            parts += (_text(topic), _length(len(partitions)))
            for number, batch in partitions:
                parts += (_SIZE.pack(number), _length(len(batch)), batch, _NO_TAGS)
            parts.append(_NO_TAGS)
        parts.append(_NO_TAGS)
        return parts

    def read(self, octets: bytes, position: int) -> ProduceAnswer:
        """See ``_Request``."""
        return read_produce(octets, position)

    def as_the_library_makes_it(self) -> ProduceRequest:
        """See ``_Request``."""
        topic_type = ProduceRequest.TopicProduceData
        topics = [
            topic_type(
                name=topic.name,
                partition_data=[topic_type.PartitionProduceData(**each._asdict()) for each in topic.partition_data],
            )
            for topic in self.fields["topic_data"]
        ]
        return ProduceRequest(**self.fields | {"topic_data": topics})


ProduceTopic.PartitionProduceData = ProducePartition  # type: ignore[attr-defined]  # where the library looks for it


def _length(number: int) -> bytes:
    """A compact length."""
    return bytes((number + 1,)) if number < 127 else unsigned_varint(number + 1)


def _text(text: str) -> bytes:
    octets = text.encode()
    return _length(len(octets)) + octets


# --- frames -----------------------------------------------------------------------------------------------------------
class Frames(KafkaProtocol):  # type: ignore[misc]  # the library is untyped
    """Cuts what a connection brings into answers; the library copies each three times, in small pieces."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        #: The beginning of an answer, and how many octets it has and needs.
        self._parts: list[bytes] = []
        self._has = self._needs = 0

    def receive_bytes(self, data: bytes) -> list[tuple[int, Any]]:
        """The answers that are complete, with their numbers. Raises KafkaProtocolError."""
        if self._parts:
            self._parts.append(data)
            self._has += len(data)
            if self._has < self._needs:
                return []
            data = b"".join(self._parts)
            self._parts = []
        answers: list[tuple[int, Any]] = []
        start, size = 0, 0
        while len(data) - start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(data, start)
            self._validate_frame_size(size)
            begin = start + _SIZE.size
            if len(data) - begin < size:
                break
            answers.append(self._answer(data[begin : begin + size]))
            start, size = begin + size, 0
        if start < len(data):
            self._parts = [data[start:]]
            self._has, self._needs = len(data) - start, _SIZE.size + size
        return answers

    def _answer(self, octets: bytes) -> tuple[int, Any]:
        expected = self.in_flight_requests[0] if self.in_flight_requests else None
        if isinstance(expected, _Request):
            try:
                number, tags = _ANSWER_HEADER.unpack_from(octets)
                if number == expected.correlation_id and not tags:
                    answer = expected.read(octets, _ANSWER_HEADER.size)
                    self.in_flight_requests.popleft()
                    return number, answer
            except (Unusual, *CUT_SHORT):
                pass
            self.in_flight_requests[0] = expected.library_header()
        try:
            number, answer = self._process_response(BytesIO(octets))
        except IndexError as error:  # the library knows it of other errors only
            raise KafkaProtocolError("an answer is cut short") from error
        return number, answer


_version_of_any = BrokerVersionData.api_version


def _version(self: Any, operation: Any, *limits: Any, **named_limits: Any) -> int:
    """What ``BrokerVersionData.api_version`` finds; of our own requests in one step, where there is one to be found."""
    if isinstance(operation, _Request) and operation.API_KEY in (self.api_versions or ()):
        oldest, newest = self.api_versions[operation.API_KEY]
        version: int = min(newest, operation.max_version)
        if version >= max(oldest, operation.min_version):
            return version
    found: int = _version_of_any(self, operation, *limits, **named_limits)
    return found


def use_few_steps() -> None:
    """Lets the library's consumers, producers and connections use these. To be called once."""
    BrokerVersionData.api_version = _version
    connection.KafkaProtocol = Frames
    fetcher.FetchRequest, fetcher._FetchTopic = Fetch, FetchTopic  # noqa: SLF001
    fetcher._FetchPartition, fetcher._ForgottenTopic = FetchPartition, FetchTopic  # noqa: SLF001
    sender.ProduceRequest = Produce
