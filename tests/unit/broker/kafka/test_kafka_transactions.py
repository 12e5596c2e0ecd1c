"""Which records of transactions are handed out: against the library's own reader, and against what producers meant."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import ControlRecord, DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from pusher.broker.kafka.records import FetchedRecords
from pusher.broker.offsets import Commit, Tracker, decode_ranges
from pusher.broker.offsets import TopicPartition as Key

PARTITION = TopicPartition("push-game_apns-single", 0)
PLAIN, ABORT, COMMIT = -1, 0, 1


class Aborted(NamedTuple):
    """As an answer to a fetch names an aborted transaction."""

    producer_id: int
    first_offset: int
    marker_offset: int


class Log:
    """One partition: batches of several producers, and what of them is to be handed out."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.end = 0
        self.aborted: list[Aborted] = []
        self.committed: list[tuple[int, bytes]] = []
        self._open: dict[int, list[tuple[int, bytes]]] = {}

    def append(self, producer: int, values: Sequence[bytes], codec: int = 0) -> None:
        """Records of a producer: within its transaction, or plain ones."""
        records = [(self.end + number, value) for number, value in enumerate(values)]
        self._write(producer, [(None, value) for value in values], codec)
        (self.committed if producer == PLAIN else self._open.setdefault(producer, [])).extend(records)

    def finish(self, producer: int, marker: int) -> None:
        """Ends a producer's transaction with a control batch."""
        records = self._open.pop(producer)
        if marker == COMMIT:
            self.committed += records
        else:
            self.aborted.append(Aborted(producer, records[0][0], self.end))
        self._write(producer, [(ControlRecord.KEY_STRUCT.pack(0, marker), b"\0\0\0\0\0\0")], 0, control=True)

    def empty_marker(self, producer: int) -> None:
        """A control batch whose record compaction has removed."""
        self._write(producer, [(b"\0\0\0\0", b"")], 0, control=True)
        octets = bytearray(self.batches.pop()[: DefaultRecordBatch.HEADER_STRUCT.size])
        struct.pack_into(">i", octets, 8, len(octets) - 12)
        struct.pack_into(">i", octets, DefaultRecordBatch.HEADER_STRUCT.size - 4, 0)
        self.batches.append(checked(octets))

    def _write(
        self, producer: int, records: list[tuple[bytes | None, bytes]], codec: int, *, control: bool = False
    ) -> None:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=codec,
            is_transactional=producer != PLAIN,
            producer_id=producer,
            producer_epoch=-1 if producer == PLAIN else 0,
            base_sequence=-1 if producer == PLAIN else 0,
            batch_size=1 << 20,
        )
        for number, (key, value) in enumerate(records):
            builder.append(number, 1_700_000_000_000, key, value, [])
        octets = bytearray(builder.build())
        struct.pack_into(">q", octets, 0, self.end)
        if control:
            at = DefaultRecordBatch.ATTRIBUTES_OFFSET
            attributes = struct.unpack_from(">h", octets, at)[0] | DefaultRecordBatch.CONTROL_MASK
            struct.pack_into(">h", octets, at, attributes)
        self.batches.append(checked(octets))
        self.end += len(records)

    def read(self, reader: type, start: int = 0) -> tuple[list[tuple[int, bytes]], int]:
        """What a reader hands out of an answer to a fetch from an offset on, and where it goes on."""
        octets = b"".join(batch for batch in self.batches if last_offset(batch) >= start)
        records = reader(
            start,
            PARTITION,
            MemoryRecords(octets),
            isolation_level=IsolationLevel.READ_COMMITTED,
            # as brokers do, those that end after the start
            aborted_transactions=[aborted for aborted in self.aborted if aborted.marker_offset >= start],
        )
        return [(record.offset, record.value) for record in records.take(1_000_000)], records.next_fetch_offset


def checked(octets: bytearray) -> bytes:
    checksum = calc_crc32c(memoryview(octets)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", octets, DefaultRecordBatch.CRC_OFFSET, checksum)
    return bytes(octets)


def last_offset(batch: bytes) -> int:
    base, delta = struct.unpack_from(">q", batch)[0], struct.unpack_from(">i", batch, 23)[0]
    return int(base + delta)


def drawn(seed: int) -> Log:
    """Up to four producers and plain records, interleaved; every transaction is ended."""
    draw, log = random.Random(seed), Log()
    running: set[int] = set()
    for number in range(60):
        producer = draw.choice((PLAIN, 100, 101, 102, 103))
        if producer in running and draw.random() < 0.4:
            log.finish(producer, draw.choice((ABORT, COMMIT)))
            running.discard(producer)
        else:
            values = [b"%d-%d" % (number, index) for index in range(draw.randint(1, 4))]
            log.append(producer, values, draw.choice((0, 1, 3, 4)))
            running |= {producer} - {PLAIN}
    for producer in running:
        log.finish(producer, draw.choice((ABORT, COMMIT)))
    return log


@pytest.mark.parametrize("seed", range(40))
def test_only_committed_records_are_handed_out(seed: int) -> None:
    log = drawn(seed)
    assert log.read(FetchedRecords) == (sorted(log.committed), log.end)
    assert log.read(FetchedRecords) == log.read(Fetcher.PartitionRecords)


@pytest.mark.parametrize("seed", range(20))
def test_fetches_may_begin_anywhere(seed: int) -> None:
    log = drawn(seed)
    for start in range(0, log.end, 3):
        expected = sorted(record for record in log.committed if record[0] >= start)
        assert log.read(FetchedRecords, start) == (expected, log.end)


def test_a_producer_may_abort_and_commit_by_turns() -> None:
    log = Log()
    for number, marker in enumerate((ABORT, COMMIT, ABORT, COMMIT)):
        log.append(7, [b"%d" % number])
        log.finish(7, marker)
    assert log.read(FetchedRecords)[0] == [(2, b"1"), (6, b"3")]


def test_a_marker_without_a_record_ends_nothing_and_is_passed_over() -> None:
    log = Log()
    log.append(PLAIN, [b"a"])
    log.empty_marker(7)
    log.append(PLAIN, [b"b"])
    assert log.read(FetchedRecords) == ([(0, b"a"), (2, b"b")], 3)


def test_what_is_passed_over_is_told() -> None:
    log, skipped = Log(), set[object]()
    log.append(PLAIN, [b"a", b"b"])
    FetchedRecords(0, PARTITION, MemoryRecords(b"".join(log.batches)), skipped=skipped).take(10)
    assert not skipped
    log.append(7, [b"c"])
    log.finish(7, COMMIT)
    FetchedRecords(0, PARTITION, MemoryRecords(b"".join(log.batches)), skipped=skipped).take(10)
    assert skipped == {PARTITION}


class Offset(NamedTuple):
    """A record, as far as trackers know it."""

    offset: int


def tracker_of(*offsets: int) -> Tracker:
    tracker = Tracker(Key(*PARTITION), 0)
    tracker.admit([Offset(offset) for offset in offsets])
    return tracker


def test_offsets_that_were_passed_over_are_finished() -> None:
    tracker = tracker_of()
    tracker.pass_to(5)
    assert (tracker.low, tracker.span, tracker.due()) == (5, 0, Commit(5, ""))


def test_offsets_before_an_unfinished_message_are_never_passed() -> None:
    tracker = tracker_of(0, 1)
    tracker.pass_to(9)
    tracker.finish(1)
    assert tracker.low == 0
    due = tracker.due()
    assert due is not None
    assert (due.offset, list(decode_ranges(0, due.metadata))) == (0, list(range(1, 9)))
    tracker.finish(0)
    assert tracker.due() == Commit(9, "")


def test_markers_between_messages_do_not_part_what_is_finished() -> None:
    """A transaction for each message: every other offset is a marker."""
    tracker = tracker_of(*range(0, 10_000, 2))
    tracker.pass_to(10_000)
    tracker.finish_many(range(2, 10_000, 2))
    due = tracker.due()
    assert due is not None
    assert tracker.fits
    assert len(due.metadata) < 20


def test_passing_back_changes_nothing() -> None:
    tracker = tracker_of(0, 1, 2)
    tracker.pass_to(1)
    assert tracker.next_offset == 3


@pytest.mark.parametrize("seed", range(30))
def test_the_next_owner_gets_what_is_unfinished_and_nothing_else(seed: int) -> None:
    draw = random.Random(seed)
    offsets = sorted(draw.sample(range(200), 60))
    tracker = tracker_of(*offsets)
    tracker.pass_to(draw.randint(offsets[-1] + 1, 220))
    finished = set(draw.sample(offsets, draw.randint(0, 60)))
    tracker.finish_many(finished)
    commit = tracker.due() or Commit(0, "")
    assert tracker.unfinished == len(offsets) - len(finished)
    following = Tracker(tracker.key, *commit)
    again = following.admit([Offset(offset) for offset in offsets if offset >= commit.offset])
    assert [record.offset for record in again] == [offset for offset in offsets if offset not in finished]
    following.finish_many(record.offset for record in again)
    following.pass_to(220)
    assert (following.due() or commit).offset == 220
    assert following.unfinished == 0
