"""Answers to the two requests that each message takes, Fetch and Produce, read in few steps: see ``wire``.

Only answers without an error and without tagged fields are read here, of the one version that ``wire`` asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple


class Unusual(Exception):
    """An answer that the library has to read."""


#: What reading raises where an answer is cut short.
CUT_SHORT: Final = (IndexError, ValueError, struct.error)


class AbortedTransaction(NamedTuple):
    """Records of this producer from this offset on are aborted."""

    producer_id: int
    first_offset: int


class FetchedPartition(NamedTuple):
    """The records that a fetch returned for one partition, without an error."""

    partition_index: int
    error_code: int
    high_watermark: int
    aborted_transactions: Sequence[AbortedTransaction]
    preferred_read_replica: int
    records: memoryview
    diverging_epoch: None = None
    current_leader: None = None


class FetchedTopic(NamedTuple):
    """Partitions of one topic."""

    topic: str
    partitions: Sequence[FetchedPartition]


class FetchAnswer(NamedTuple):
    """An answer to a fetch, without an error."""

    throttle_time_ms: int
    error_code: int
    session_id: int
    responses: list[FetchedTopic]
    API_VERSION: int = 12


class ProducedPartition(NamedTuple):
    """A batch that was stored."""

    index: int  # type: ignore[assignment]  # the library's name for it
    error_code: int
    base_offset: int
    log_append_time_ms: int
    log_start_offset: int


class ProducedTopic(NamedTuple):
    """Batches of one topic that were stored."""

    name: str
    partition_responses: Sequence[ProducedPartition]


class ProduceAnswer(NamedTuple):
    """An answer to a produce that stored all."""

    responses: Sequence[ProducedTopic]
    throttle_time_ms: int


_INT32: Final = Struct(">i")
_FETCHED: Final = Struct(">ihi")
_FETCHED_PARTITION: Final = Struct(">ihqqq")
_ABORTED: Final = Struct(">qqb")
_PRODUCED_PARTITION: Final = Struct(">ihqqq3s")
#: No errors of records, no message, no tags.
_ALL_STORED: Final = b"\1\0\0"


def read_fetch(octets: bytes, position: int) -> FetchAnswer:
    """Raises Unusual, or ``CUT_SHORT``."""
    view = memoryview(octets)
    throttle_ms, error, session = _FETCHED.unpack_from(octets, position)
    topics, position = _read_length(octets, position + _FETCHED.size)
    answer = FetchAnswer(throttle_ms, error, session, [])
    for _ in range(topics):
        topic, position = _read_text(octets, position)
        number, position = _read_length(octets, position)
        partitions: list[FetchedPartition] = []
        for _ in range(number):
            index, failure, high, _, _ = _FETCHED_PARTITION.unpack_from(octets, position)
            aborted, position = _read_aborted(octets, position + _FETCHED_PARTITION.size)
            (replica,) = _INT32.unpack_from(octets, position)
            length, position = _read_length(octets, position + _INT32.size)
            records = view[position : position + length]
            position = _past_no_tags(octets, position + length)
            if failure:
                raise Unusual
            partitions.append(FetchedPartition(index, failure, high, aborted, replica, records))
        position = _past_no_tags(octets, position)
        answer.responses.append(FetchedTopic(topic, partitions))
    if error or _past_no_tags(octets, position) != len(octets):
        raise Unusual
    return answer


def _read_aborted(octets: bytes, position: int) -> tuple[Sequence[AbortedTransaction], int]:
    if octets[position] <= 1:  # none or null
        return (), position + 1
    number, position = _read_length(octets, position)
    aborted = []
    for _ in range(number):
        producer, first, tags = _ABORTED.unpack_from(octets, position)
        if tags:
            raise Unusual
        aborted.append(AbortedTransaction(producer, first))
        position += _ABORTED.size
    return aborted, position


def read_produce(octets: bytes, position: int) -> ProduceAnswer:
    """Raises Unusual, or ``CUT_SHORT``."""
    topics, position = _read_length(octets, position)
    responses = []
    for _ in range(topics):
        name, position = _read_text(octets, position)
        number, position = _read_length(octets, position)
        partitions = []
        for _ in range(number):
            *partition, rest = _PRODUCED_PARTITION.unpack_from(octets, position)
            position += _PRODUCED_PARTITION.size
            stored = ProducedPartition(*partition)
            if stored.error_code or rest != _ALL_STORED:
                raise Unusual
            partitions.append(stored)
        position = _past_no_tags(octets, position)
        responses.append(ProducedTopic(name, partitions))
    (throttle_ms,) = _INT32.unpack_from(octets, position)
    if _past_no_tags(octets, position + _INT32.size) != len(octets):
        raise Unusual
    return ProduceAnswer(responses, throttle_ms)


def _read_length(octets: bytes, position: int) -> tuple[int, int]:
    """A compact length, and where it ends. Null is unusual."""
    length = octets[position]
    position += 1
    if length >= 0x80:
        length, shift = length & 0x7F, 7
        while True:
            octet = octets[position]
            position += 1
            length |= (octet & 0x7F) << shift
            if octet < 0x80:
                break
            shift += 7
    if not length:
        raise Unusual
    return length - 1, position


def _read_text(octets: bytes, position: int) -> tuple[str, int]:
    length, position = _read_length(octets, position)
    return octets[position : position + length].decode(), position + length


def _past_no_tags(octets: bytes, position: int) -> int:
    if octets[position]:
        raise Unusual
    return position + 1
