"""Records as they stand in a batch of Kafka's message format, version 2, read and written in few steps.

The library handles every version and every kind of record. Nearly all of ours are alike, without a key and seldom with
headers: reading them here takes 40 % of the library's time, writing them half. Batches, their checksums and compression
stay the library's, and so do records of older versions.

Format: Kafka's documentation, "Message Format". A record is its length, an octet of attributes, the distances of its
timestamp and its offset from the batch's, key, value, headers. Numbers are varints in zigzag code: an even code is
twice the number, an odd one a negative number, so that 1 is -1, the length of what is null.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from pusher.broker.interface import Header
from pusher.broker.kafka.varint import unsigned_varint
from pusher.broker.offsets import TopicPartition

#: Where they stand in the header of a batch.
_BASE_OFFSET: Final = 0
_LEADER_EPOCH: Final = 2
_ATTRIBUTES: Final = 5
_LAST_DISTANCE: Final = 6
#: Attributes of a batch that is of a transaction, or that ends one.
_OF_TRANSACTIONS: Final = DefaultRecordBatch.TRANSACTIONAL_MASK | DefaultRecordBatch.CONTROL_MASK
_NULL: Final = 1
_MAX_VARINT_OCTETS: Final = 10


class ConsumedRecord:
    """One message of a topic: see ``broker.interface.Record``."""

    __slots__ = ("headers", "offset", "partition", "timestamp", "topic", "value")

    def __init__(
        self, topic: str, partition: int, offset: int, timestamp: int, value: bytes | None, headers: Sequence[Header]
    ) -> None:
        self.topic, self.partition, self.offset, self.timestamp = topic, partition, offset, timestamp
        self.value, self.headers = value, headers


# --- reading ----------------------------------------------------------------------------------------------------------
class FetchedRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the library is untyped
    """The records of one partition in one answer to a fetch. ``skipped`` gets the partition if offsets are passed over.

    It replaces how the library unpacks batches and keeps all of it: records below the fetched offset are left out; the
    checksum of each batch, and of each record of older versions, is verified; control batches are never handed out; at
    the isolation level read_committed neither are batches of aborted transactions; the leader's epoch is that of the
    last batch; a batch whose last records are gone is passed over to its end; octets read are counted, which decides
    whose turn is next; what is used up is drained. Left out: deserializers, which nobody sets, and the library's
    metrics, which are off.
    """

    def __init__(
        self, *args: Any, skipped: set[Any] | None = None, failed: dict[Any, Exception] | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self._skipped: set[Any] = set() if skipped is None else skipped
        self._failed = failed

    def take(self, n: int | None = None) -> Any:
        """The next records. Those that cannot be read go to ``failed``, and end what this partition has fetched."""
        try:
            return super().take(n)
        except KafkaError as error:
            if self._failed is None:
                raise
            self._failed[TopicPartition(*self.topic_partition)] = error
            self.drain()
            return []

    def _unpack_records(self, key: Any, batches: Any, *_deserializers: object) -> Iterator[ConsumedRecord]:
        while (batch := batches.next_batch()) is not None:
            if not batch.validate_crc():
                raise CorruptRecordError(f"{key}: the batch at offset {batch.base_offset} fails its checksum")
            self.bytes_read += batch.size_in_bytes
            for record in self._handed_out(key, batch):
                self.next_fetch_offset = record.offset + 1
                yield record
            if isinstance(batch, DefaultRecordBatch):
                # what follows is looked up in the header at once: a message that comes alone is a batch
                self._pass_to(batch._header_data[_BASE_OFFSET] + batch._header_data[_LAST_DISTANCE] + 1)  # noqa: SLF001
        self.drain()

    def _handed_out(self, key: tuple[str, int], batch: Any) -> Iterator[ConsumedRecord]:
        if not isinstance(batch, DefaultRecordBatch):
            return _older(key, batch)
        header = batch._header_data  # noqa: SLF001
        self.leader_epoch = header[_LEADER_EPOCH]
        if header[_ATTRIBUTES] & _OF_TRANSACTIONS and (self._is_aborted(batch) or batch.is_control_batch):
            return iter(())
        return read(key, batch)

    def _pass_to(self, offset: int) -> None:
        """The last records of a batch, or all, may be no messages or gone; what follows begins after them."""
        if self.next_fetch_offset < offset:
            self.next_fetch_offset = offset
            self._skipped.add(self.topic_partition)

    def _is_aborted(self, batch: Any) -> bool:
        """Whether a batch belongs to an aborted transaction, which lasts until its producer's abort marker.

        Transactions of several producers interleave; one producer has one at a time (KIP-98, "Consumer").
        """
        if self.isolation_level != IsolationLevel.READ_COMMITTED or not batch.has_producer_id():
            return False
        self._consume_aborted_transactions_up_to(batch.last_offset)
        if batch.is_control_batch:
            if _is_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            return False
        return bool(self._is_batch_aborted(batch))


def _is_abort_marker(batch: Any) -> bool:
    """Whether a control batch ends its transaction as aborted. Compaction may have emptied it."""
    marker = next(iter(batch), None)
    return marker is not None and bool(marker.abort)


def _older(key: tuple[str, int], batch: Any) -> Iterator[ConsumedRecord]:
    for record in batch:
        if not record.validate_crc():
            raise CorruptRecordError(f"{key}: the record at offset {record.offset} fails its checksum")
        timestamp = -1 if record.timestamp is None else record.timestamp
        yield ConsumedRecord(*key, record.offset, timestamp, record.value, record.headers)


def read(key: tuple[str, int], batch: Any) -> Iterator[ConsumedRecord]:
    """The records of a batch of version 2, which is uncompressed first. Raises CorruptRecordError."""
    topic, partition = key
    if batch._header_data[_ATTRIBUTES] & DefaultRecordBatch.CODEC_MASK:  # noqa: SLF001
        iter(batch)
    base_offset, *_, attributes, _, base_timestamp, last_timestamp, _, _, _, count = batch._header_data  # noqa: SLF001
    appended_at = last_timestamp if attributes & DefaultRecordBatch.TIMESTAMP_TYPE_MASK else None
    octets, position = bytes(batch._buffer), batch._pos  # noqa: SLF001
    try:
        for _ in range(count):
            length, position = _varint(octets, position)
            end = position + (length >> 1)
            distance, position = _varint(octets, position + 1)
            timestamp = base_timestamp + _number(distance) if appended_at is None else appended_at
            distance, position = _varint(octets, position)
            offset = base_offset + _number(distance)
            length, position = _varint(octets, position)
            position += 0 if length == _NULL else length >> 1
            length, start = _varint(octets, position)
            position = start if length == _NULL else start + (length >> 1)
            value = None if length == _NULL else octets[start:position]
            headers, position = _headers(octets, position) if octets[position] else ((), position + 1)
            if position != end:
                raise CorruptRecordError(f"{topic}/{partition}: a record is longer or shorter than it says")
            yield ConsumedRecord(topic, partition, offset, timestamp, value, headers)
    except IndexError as error:
        raise CorruptRecordError(f"{topic}/{partition}: a record cannot be read: {error}") from error
    if position != len(octets):
        raise CorruptRecordError(f"{topic}/{partition}: a batch is longer or shorter than its records")


def _number(code: int) -> int:
    return (code >> 1) ^ -(code & 1)


def _varint(octets: bytes, position: int) -> tuple[int, int]:
    """The varint at a position, and where it ends."""
    code = octets[position]
    if code < 0x80:
        return code, position + 1
    second = octets[position + 1]
    if second < 0x80:
        return code - 0x80 + (second << 7), position + 2
    return _long_varint(octets, position)


def _long_varint(octets: bytes, start: int) -> tuple[int, int]:
    code = 0
    for number in range(_MAX_VARINT_OCTETS):
        octet = octets[start + number]
        code |= (octet & 0x7F) << 7 * number
        if octet < 0x80:
            return code, start + number + 1
    raise CorruptRecordError("a number of more than 64 bits")


def _headers(octets: bytes, position: int) -> tuple[Sequence[Header], int]:
    code, position = _varint(octets, position)
    if code & 1:
        raise CorruptRecordError("a negative number of headers")
    headers = []
    for _ in range(code >> 1):
        length, position = _varint(octets, position)
        # Brokers take any octets as a name; one that is no text must not hold up its partition for ever.
        name = octets[position : position + (length >> 1)].decode(errors="replace")
        position += length >> 1
        length, position = _varint(octets, position)
        content = b""
        if length != _NULL:
            content = octets[position : position + (length >> 1)]
            position += length >> 1
        headers.append((name, content))
    return headers, position


# --- writing ----------------------------------------------------------------------------------------------------------
class OpenBatch(MemoryRecordsBuilder):  # type: ignore[misc]  # the library is untyped
    """A batch that takes records until it is full or closed."""

    _next_offset: int
    #: Whether it has waited long enough for more records.
    due = False

    def is_full(self) -> bool:
        """Whether it is to be sent now."""
        return self.due or bool(super().is_full())

    def append(self, timestamp: int | None, key: bytes | None, value: bytes, headers: Sequence[Header] = ()) -> Any:
        """None when the record has no place in this batch. Never waits."""
        if timestamp is not None or key is not None:
            return super().append(timestamp, key, value, headers)
        if self._closed:
            return None
        builder, number = self._builder, self._next_offset
        timestamp = int(time.time() * 1000)
        first = timestamp if builder._first_timestamp is None else builder._first_timestamp  # noqa: SLF001
        parts = (b"\0", _encoded(timestamp - first), _encoded(number), b"\1", _encoded(len(value)), value)
        body = b"".join(parts) + (_encoded_headers(headers) if headers else b"\0")
        length = _encoded(len(body))
        if number and builder.size() + len(length) + len(body) > self._batch_size:
            return None
        builder._first_timestamp = first  # noqa: SLF001
        builder._max_timestamp = max(timestamp, builder._max_timestamp or 0)  # noqa: SLF001
        builder._last_offset = number  # noqa: SLF001
        self._next_offset = builder._num_records = number + 1  # noqa: SLF001
        builder._buffer += length + body  # noqa: SLF001
        return self


def _encoded(number: int) -> bytes:
    return _SMALL[number] if 0 <= number < len(_SMALL) else _varint_of(number)


def _varint_of(number: int) -> bytes:
    return unsigned_varint((number << 1) ^ (number >> 63))


_SMALL: Final = tuple(_varint_of(number) for number in range(2048))


def _encoded_headers(headers: Sequence[Header]) -> bytes:
    parts = [_encoded(len(headers))]
    for name, content in headers:
        octets = name.encode()
        parts += (_encoded(len(octets)), octets, _encoded(len(content)), content)
    return b"".join(parts)
