"""Our reading and writing of records against the library's own, octet for octet."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from pusher.broker.kafka.records import ConsumedRecord, FetchedRecords, OpenBatch

KEY = TopicPartition("push-game_apns-single", 3)
SIZES = (0, 1, 62, 63, 64, 127, 128, 300, 8191, 8192, 20_000)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
Plain = tuple[int, int, bytes | None, list[tuple[str, bytes]]]


def plain(record: Any) -> Plain:
    return record.offset, record.timestamp, record.value, [(name, content or b"") for name, content in record.headers]


def drawn(seed: int, count: int) -> Iterator[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    """Timestamp, key, value, headers."""
    draw = random.Random(seed)
    for _ in range(count):
        headers = [
            ("h" * draw.choice((0, 1, 70)), draw.choice((None, b"", b"x" * 130))) for _ in range(draw.randrange(3))
        ]
        yield (
            1_700_000_000_000 + draw.choice((0, 1, -1, 63, 64, -65, 9_000, -10_000, 10**10)),
            draw.choice((None, None, b"", b"key")),
            draw.choice((None, draw.randbytes(draw.choice(SIZES)))),
            draw.choice(([], headers)),
        )


def batch(seed: int, count: int = 100, codec: str = "none", magic: int = 2) -> bytes:
    builder = MemoryRecordsBuilder(magic, CODECS[codec], 1 << 30)
    for timestamp, key, value, headers in drawn(seed, count):
        assert builder.append(timestamp, key, value, headers if magic == 2 else [])
    builder.close()
    return bytes(builder.buffer())


def read_by(reader: type, octets: bytes, fetch_offset: int = 0) -> tuple[list[Plain], int, bool]:
    """What it finds, where it would go on, and whether all was taken."""
    fetched = reader(fetch_offset, KEY, MemoryRecords(octets))
    records = fetched.take(1_000_000)
    return [plain(record) for record in records], fetched.next_fetch_offset, bool(fetched)


def with_checksum(octets: bytearray) -> bytes:
    """The batch, changed by hand, with the checksum that it should have now."""
    attributes_at, checksum_at = DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.CRC_OFFSET
    struct.pack_into(">I", octets, checksum_at, calc_crc32c(memoryview(octets)[attributes_at:]))
    return bytes(octets)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(5))
def test_records_are_read_as_the_library_reads_them(seed: int, codec: str) -> None:
    octets = batch(seed, codec=codec) + batch(seed + 100, codec=codec)
    found = read_by(FetchedRecords, octets)
    assert found == read_by(Fetcher.PartitionRecords, octets)
    assert len(found[0]) == 200


@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_older_versions_are_read(magic: int) -> None:
    octets = batch(1, magic=magic)
    found, theirs = read_by(FetchedRecords, octets), read_by(Fetcher.PartitionRecords, octets)
    assert [record[2:] for record in found[0]] == [record[2:] for record in theirs[0]]
    assert found[1:] == theirs[1:]


def test_reading_begins_at_the_offset_that_was_asked_for() -> None:
    octets = batch(2)
    assert read_by(FetchedRecords, octets, fetch_offset=40) == read_by(Fetcher.PartitionRecords, octets, 40)
    assert len(read_by(FetchedRecords, octets, fetch_offset=40)[0]) == 60


def test_records_are_taken_a_few_at_a_time() -> None:
    fetched = FetchedRecords(0, KEY, MemoryRecords(batch(3)))
    assert [record.offset for record in fetched.take(30)] == list(range(30))
    assert fetched.next_fetch_offset == 30
    assert len(fetched.take(100)) == 70


def test_control_batches_are_passed_over() -> None:
    octets = bytearray(batch(4, count=1))
    struct.pack_into(">h", octets, DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.CONTROL_MASK)
    assert read_by(FetchedRecords, with_checksum(octets)) == ([], 1, False)


def test_the_brokers_time_counts_where_the_topic_says_so() -> None:
    octets = bytearray(batch(5))
    struct.pack_into(">h", octets, DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.TIMESTAMP_TYPE_MASK)
    whole = with_checksum(octets)
    assert read_by(FetchedRecords, whole) == read_by(Fetcher.PartitionRecords, whole)


def test_a_batch_whose_last_records_are_gone_is_passed_over_whole() -> None:
    octets = bytearray(batch(6))
    struct.pack_into(">i", octets, DefaultRecordBatch.ATTRIBUTES_OFFSET + 2, 499)
    assert read_by(FetchedRecords, with_checksum(octets))[1] == 500


def test_a_wrong_checksum_is_an_error() -> None:
    octets = bytearray(batch(7))
    octets[-1] ^= 1
    with pytest.raises(CorruptRecordError, match="checksum"):
        read_by(FetchedRecords, bytes(octets))


@pytest.mark.parametrize("seed", range(300))
def test_damaged_records_are_an_error_and_nothing_worse(seed: int) -> None:
    draw = random.Random(seed)
    octets = bytearray(batch(seed, count=5))
    head = DefaultRecordBatch.HEADER_STRUCT.size
    for _ in range(draw.randint(1, 4)):
        octets[draw.randrange(head, len(octets))] = draw.randrange(256)
    try:
        records, _, _ = read_by(FetchedRecords, with_checksum(octets))
    except CorruptRecordError:
        return
    assert len(records) <= 5


def written(*records: tuple[bytes, list[tuple[str, bytes]]], size: int = 1 << 20) -> OpenBatch:
    batch = OpenBatch(2, 0, size)
    for value, headers in records:
        assert batch.append(None, None, value, headers) is not None
    batch.close()
    return batch


@pytest.mark.parametrize("seed", range(5))
def test_records_are_written_as_the_library_writes_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    times = [1_700_000_000 + draw.choice((0, 0.001, -3, 70, 10**7)) for _ in range(200)]
    records = [
        (draw.randbytes(draw.choice(SIZES)), [("name" * 20, b"y" * draw.choice(SIZES))] * draw.choice((0, 0, 2)))
        for _ in range(200)
    ]
    theirs = MemoryRecordsBuilder(2, 0, 1 << 30)
    for moment, (value, headers) in zip(times, records, strict=True):
        theirs.append(int(moment * 1000), None, value, headers)
    theirs.close()
    waiting = iter(times)
    monkeypatch.setattr("pusher.broker.kafka.records.time.time", lambda: next(waiting))
    ours = written(*records, size=1 << 30)
    assert bytes(ours.buffer()) == bytes(theirs.buffer())


def test_a_full_batch_takes_no_more_but_always_the_first() -> None:
    batch = OpenBatch(2, 0, 1000)
    assert batch.append(None, None, b"x" * 5000) is not None
    assert batch.append(None, None, b"x") is None
    batch.close()
    assert [record.value for record in MemoryRecords(batch.buffer()).next_batch()] == [b"x" * 5000]


def test_a_closed_batch_takes_no_more() -> None:
    batch = written((b"a", []))
    assert batch.append(None, None, b"b") is None


def test_what_has_a_key_or_a_time_of_its_own_is_written_by_the_library() -> None:
    batch = OpenBatch(2, 0, 1 << 20)
    batch.append(None, None, b"first")
    batch.append(1_700_000_000_000, b"key", b"second")
    batch.append(None, None, b"third")
    batch.close()
    records = list(MemoryRecords(batch.buffer()).next_batch())
    assert [(record.offset, record.key, record.value) for record in records] == [
        (0, None, b"first"),
        (1, b"key", b"second"),
        (2, None, b"third"),
    ]
    assert records[1].timestamp == 1_700_000_000_000


def test_a_record_has_what_the_rest_reads_of_it() -> None:
    (record,) = FetchedRecords(0, KEY, MemoryRecords(batch(8, count=1))).take(1)
    assert isinstance(record, ConsumedRecord)
    assert (record.topic, record.partition, record.offset) == (*KEY, 0)
