"""What a hostile provider may send without end or unpacked: it costs its own connection, not the process."""

from __future__ import annotations

import gzip
import io
import time
from typing import Any

import hpack
import lz4.frame
import pytest
import zstandard
from h2.settings import SettingCodes
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from lab.endless_http2 import COSTLY, FLOODS
from lab.http2_wire import Wire, an_exchange, answer, window_update
from lab.scripted_xmpp import Scripted, say
from pusher.broker.kafka import KafkaSource
from pusher.broker.kafka.batches import MAX_UNPACKED_BYTES
from pusher.broker.kafka.records import read
from pusher.providers.google.xmpp.engine import MAX_STANZA_BYTES
from pusher.providers.http2 import ConnectionFailed, literal_field
from pusher.providers.http2.connection import MAX_IDLE_COST, OCTETS_A_UNIT
from pusher.providers.http2.frames import ErrorCode
from tests.unit.providers.google.xmpp.test_gcm_link import Owner, scripted

#: The fixture, and what lets the library make bounded batches when it is imported.
__all__ = ["KafkaSource", "scripted"]


def begun(kind: str) -> Wire:
    wire = Wire()
    wire.send(an_exchange())
    if "data" in kind or "padding" in kind:
        wire.receive(answer(1, flags=["END_HEADERS"]))
    return wire


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_that_answers_nothing_is_cut_off(kind: str) -> None:
    wire = begun(kind)
    cost = 1 + len(FLOODS[kind]) // OCTETS_A_UNIT
    for _ in range(MAX_IDLE_COST // cost // 100 - 1):
        wire.receive(FLOODS[kind] * 100)
        wire.client.take_output(0.0)
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(FLOODS[kind] * 200)
    assert failure.value.code == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("kind", ["empty data", "unknown frames", "window updates"])
def test_as_many_frames_over_a_longer_time_are_no_flood(kind: str) -> None:
    wire = begun(kind)
    for _ in range(MAX_IDLE_COST // 500):
        wire.receive(FLOODS[kind] * 1000)
        wire.client.breathe()


@pytest.mark.parametrize("kind", COSTLY)
def test_a_flood_is_cut_off_by_its_cost(kind: str) -> None:
    wire = begun(kind)
    affordable = 2 * MAX_IDLE_COST // max(1, len(COSTLY[kind]) // OCTETS_A_UNIT)
    with pytest.raises(ConnectionFailed, match="flood"):  # noqa: PT012 - which one is refused is the question
        for _ in range(affordable):
            wire.receive(COSTLY[kind])
            wire.client.take_output(0.0)


def test_interim_answers_are_not_decoded() -> None:
    wire = begun("interim")
    wire.receive(answer(1, b"\x08\x03103" + b"\xff" * 15_000, flags=["END_HEADERS"]))


def test_the_smallest_window_is_no_flood() -> None:
    """A server may give a body its window octet by octet."""
    wire = Wire({SettingCodes.INITIAL_WINDOW_SIZE: 1})
    wire.send(exchange := an_exchange(body=b"x" * (3 * MAX_IDLE_COST)))
    wire.client.take_output(0.0)
    for _ in range(3 * MAX_IDLE_COST - 1):
        wire.receive(window_update(1, 1))
        wire.client.take_output(0.0)
    assert wire.receive(answer(1)) == [exchange]


def test_frames_between_answers_are_no_flood() -> None:
    wire = Wire()
    for number in range(MAX_IDLE_COST // 500):
        wire.send(exchange := an_exchange())
        assert wire.receive(FLOODS["unknown frames"] * 1000 + answer(2 * number + 1)) == [exchange]
        wire.out()


@pytest.mark.parametrize("size", [2**14 + 1, 2**24 - 1])
def test_a_huge_frame_is_refused_before_it_has_come(size: int) -> None:
    wire = begun("")
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(size.to_bytes(3, "big") + b"\0\0\0\0\0\1")
    assert failure.value.code == ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("indexing", [False, True])
def test_a_small_header_block_that_unpacks_to_much_is_refused(indexing: bool) -> None:
    """A kilobyte refers a thousand times to a field of 4 KB."""
    encoder = hpack.Encoder()
    bomb = b"\x8e" + encoder.encode([(b"x", b"y" * 3_900)]) + b"\xbe" * 1_000
    wire = Wire(indexing=indexing)
    wire.send(an_exchange())
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(answer(1, bomb))
    assert failure.value.code == ErrorCode.COMPRESSION_ERROR


def test_a_header_list_of_many_fields_is_refused() -> None:
    wire = begun("")
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(answer(1, b"\x8e" + literal_field(b"a", b"") * 4_000))
    assert failure.value.code == ErrorCode.COMPRESSION_ERROR


# --- XMPP


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("<message><gcm xmlns='google:mobile:data'>" + "x" * (MAX_STANZA_BYTES + 200_000), "a stanza of more than"),
        ("<message " + "".join(f"a{n}='{'y' * 90}' " for n in range(15_000)), "a stanza of more than"),
        ("<message>" + "<a>" * 500_000, "elements nested deeper than"),
    ],
    ids=["text", "attributes", "depth"],
)
def test_a_stanza_without_end_ends_the_link(scripted: Scripted, said: str, words: str) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        say(socket, said)
        scripted.rest(socket)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    owner.opened()
    assert words in owner.down()


def test_entities_are_refused_before_they_are_expanded(scripted: Scripted) -> None:
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 9))
    bomb = f"<!DOCTYPE stream:stream [<!ENTITY e0 'ha'>{entities}]>{scripted.HEADER}<message>&e8;</message>"

    def serve(socket: Any) -> None:
        scripted.until(socket, "version='1.0'>")
        say(socket, bomb)
        scripted.rest(socket)

    scripted.serve = serve
    with pytest.raises(Exception, match="a document type from the server"):
        Owner(scripted.port, scripted.ca_file).opened()


# --- Kafka


def packed_zeros(codec: int, octets: int) -> bytes:
    part = bytes(1 << 20)
    parts = [part] * (octets >> 20)
    if codec == 1:
        out = io.BytesIO()
        with gzip.GzipFile(fileobj=out, mode="wb") as file:
            for each in parts:
                file.write(each)
        return out.getvalue()
    if codec == 3:
        lz4_packer = lz4.frame.LZ4FrameCompressor()
        return bytes(lz4_packer.begin() + b"".join(map(lz4_packer.compress, parts)) + lz4_packer.flush())
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join([packer.compress(each) for each in parts]) + packer.flush()


def batch(codec: int, count: int = 3) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for offset in range(count):
        builder.append(offset, 1_700_000_000_000, None, b"value", [])
    return bytearray(builder.build())


def with_records(plain: bytearray, codec: int, records: bytes) -> bytes:
    """The head of a batch with other records behind it."""
    head = plain[:61]
    head[8:12] = (61 - 12 + len(records)).to_bytes(4, "big")
    head[21:23] = codec.to_bytes(2, "big")
    return bytes(head) + records


@pytest.mark.parametrize("codec", [1, 3, 4], ids=["gzip", "lz4", "zstd"])
def test_a_small_batch_that_unpacks_to_much_is_one_invalid_message(
    codec: int, caplog: pytest.LogCaptureFixture
) -> None:
    bomb = with_records(batch(0), codec, packed_zeros(codec, 2 * MAX_UNPACKED_BYTES))
    batches = list(MemoryRecords(bomb + bytes(batch(codec))))
    (bad,) = read(("push-game_apns-single", 0), batches[0])
    assert (bad.offset, bad.value) == (2, None)
    assert "first_offset" in str(vars(caplog.records[-1]))
    assert [good.value for good in read(("push-game_apns-single", 0), batches[1])] == [b"value"] * 3


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_ordinary_batches_come_through(codec: int) -> None:
    (one,) = MemoryRecords(bytes(batch(codec)))
    assert [(found.offset, found.value) for found in one] == [(number, b"value") for number in range(3)]


def test_snappy_cannot_claim_more_than_it_has() -> None:
    claim = b"\xff\xff\xff\xff\x0f" + b"\0a"
    (one,) = MemoryRecords(with_records(batch(0), 2, claim))
    started = time.process_time()
    with pytest.raises(Exception):  # noqa: B017,PT011  # which one is the library's affair
        list(one)
    assert time.process_time() - started < 5
