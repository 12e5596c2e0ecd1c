"""The engine: bytes in, bytes out."""

from __future__ import annotations

import gc
from typing import Any

import hpack
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from lab.http2_wire import (
    FIELDS,
    PATH,
    USUAL,
    Pair,
    Wire,
    an_exchange,
    answer,
    block,
    frames_in,
    settings,
    window_update,
)
from pusher.providers.http2 import MAX_BODY, Connection, ConnectionFailed, End, Exchange, Fields, literal_field
from pusher.providers.http2.frames import MAX_31_BITS, ErrorCode
from pusher.providers.http2.header_block import EVICTION_PAUSE, MAX_REMEMBERED, RequestBlocks, ResponseBlocks

STREAMS = int(SettingCodes.MAX_CONCURRENT_STREAMS)
WINDOW = int(SettingCodes.INITIAL_WINDOW_SIZE)
FRAME = int(SettingCodes.MAX_FRAME_SIZE)
TABLE = int(SettingCodes.HEADER_TABLE_SIZE)


def data_frame(stream_id: int, data: bytes, *flags: str) -> bytes:
    return DataFrame(stream_id, data=data, flags=list(flags)).serialize()


def reset(stream_id: int, code: int) -> bytes:
    return RstStreamFrame(stream_id, error_code=code).serialize()


def goaway(last_stream_id: int, code: int = 0, debug: bytes = b"") -> bytes:
    return GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code, additional_data=debug).serialize()


def kinds(frames: list[Frame]) -> list[str]:
    return [type(frame).__name__ for frame in frames]


def payload(frame: Frame) -> bytes:
    assert isinstance(frame, HeadersFrame | DataFrame)
    return frame.data


def sent_body(frames: list[Frame]) -> bytes:
    return b"".join(frame.data for frame in frames if isinstance(frame, DataFrame))


# The usual case


def test_a_request_arrives_as_given_and_its_answer_comes_back() -> None:
    pair = Pair()
    pair.pump()
    exchange = Exchange("push", FIELDS, PATH, literal_field(b"apns-id", b"id-1"), b'{"aps":{}}')
    pair.now = 7.5
    pair.client.request([exchange], 7.0)
    assert pair.pump() == []
    assert pair.headers[1] == [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"example.com"),
        (b":path", PATH),
        (b"authorization", b"bearer abc"),
        (b"apns-topic", b"com.example.game"),
        (b"apns-id", b"id-1"),
    ]
    assert pair.bodies[1] == b'{"aps":{}}'
    assert pair.complete == [1]
    assert exchange.sent_at == 7.5
    pair.respond(1, 200, b"", (b"apns-id", b"id-1"))
    assert pair.pump() == [exchange]
    assert (exchange.end, exchange.status, exchange.body_in) == (End.RESPONSE, 200, b"")


def test_an_error_answer_has_its_headers_and_body() -> None:
    pair = Pair()
    pair.pump()
    exchange = an_exchange()
    pair.client.request([exchange], 0.0)
    pair.pump()
    pair.respond(1, 429, b'{"reason":"TooManyRequests"}', (b"apns-id", b"x"), (b"retry-after", b"7"))
    assert pair.pump() == [exchange]
    assert exchange.status == 429
    assert exchange.header(b"retry-after") == b"7"
    assert exchange.header(b"missing") is None
    assert exchange.body_in == b'{"reason":"TooManyRequests"}'


def test_a_request_without_body_ends_its_stream_with_headers() -> None:
    frames = Wire().send(an_exchange(b""))
    assert kinds(frames) == ["HeadersFrame"]
    assert "END_STREAM" in frames[0].flags


def test_announces_no_push_and_no_table() -> None:
    first = next(frames_in(Wire().preface))
    assert isinstance(first, SettingsFrame)
    assert first.settings[SettingCodes.ENABLE_PUSH] == 0
    assert first.settings[SettingCodes.HEADER_TABLE_SIZE] == 0


def test_no_room_before_the_peers_settings() -> None:
    client = Connection(b"example.com")
    assert client.room() == 0
    client.receive(settings({STREAMS: 5}))
    assert client.room() == 5


@pytest.mark.parametrize("head", [b"\x88", b"\x20\x88", b"\x20\x20\x88", b"\x08\x03200"])
def test_every_spelling_of_200(head: bytes) -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    assert wire.receive(answer(1, head + block((b"apns-id", b"x")))) == [exchange]
    assert (exchange.end, exchange.status) == (End.RESPONSE, 200)


def test_bytes_may_come_one_by_one() -> None:
    wire = Wire()
    wire.send(an_exchange(), an_exchange())
    stream = answer(1) + answer(3, block((b":status", b"410")), ["END_HEADERS"]) + data_frame(3, b"gone", "END_STREAM")
    ended = [exchange for n in range(len(stream)) for exchange in wire.receive(stream[n : n + 1])]
    assert [(exchange.status, exchange.body_in) for exchange in ended] == [(200, b""), (410, b"gone")]


# Header blocks of requests


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b"])
def test_line_breaks_are_refused_everywhere(value: bytes) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        literal_field(b"apns-id", value)
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Fields((b"apns-topic", value))
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Exchange(None, FIELDS, b"/3/device/" + value, b"", b"")
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Connection(value)


@pytest.mark.parametrize("name", [b"", b"Upper", b"a b", b"a:b", b"a\n"])
def test_names_are_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="header name"):
        literal_field(name, b"")


@pytest.mark.parametrize("octets", [0, 1, 126, 127, 128, 254, 255, 511, 512, 20_000])
def test_literals_of_any_length(octets: int) -> None:
    value = b"v" * octets
    field = literal_field(b"name", value)
    assert [tuple(pair) for pair in hpack.Decoder().decode(field, raw=True)] == [(b"name", value)]


def test_never_indexed_is_said() -> None:
    (field,) = hpack.Decoder().decode(literal_field(b"name", b"v", never_indexed=True), raw=True)
    assert not field.indexable


def test_repeated_fields_become_one_octet_each() -> None:
    wire = Wire()
    blocks = [payload(wire.send(an_exchange())[0]) for _ in range(3)]
    path_and_id = 1 + 1 + len(PATH) + len(literal_field(b"apns-id", b"1"))
    assert len(blocks[2]) == path_and_id + 5
    assert blocks[1] == blocks[2]


def test_a_new_kind_of_request_shifts_the_indexes_of_the_others() -> None:
    wire = Wire()
    kinds_of_requests = [Fields((b"authorization", b"bearer abc"), (b"apns-topic", b"com.%d" % n)) for n in range(6)]
    for fields in [*kinds_of_requests, *reversed(kinds_of_requests), *kinds_of_requests]:
        headers = wire.headers(wire.send(an_exchange(fields=fields)))
        assert [pair for pair in headers if pair in fields.pairs] == list(fields.pairs)


@pytest.mark.parametrize("table_octets", [0, 64, 100, 400, 4096, 2**32 - 1])
def test_more_kinds_of_requests_than_the_table_holds(table_octets: int) -> None:
    wire = Wire({TABLE: table_octets})
    wire.decoder.max_allowed_table_size = min(table_octets, 4096)
    many = [Fields((b"authorization", b"b" * 50), (b"x-number", b"%d" % n + b"y" * 40)) for n in range(300)]
    for turn in range(3):
        for fields in many:
            exchange = an_exchange(b"", fields=fields)
            headers = wire.headers(wire.send(exchange))
            assert headers[4:6] == list(fields.pairs), turn
            wire.receive(answer(exchange.stream_id))


def test_renewed_tokens_find_their_way_into_a_full_table() -> None:
    blocks = RequestBlocks(b"example.com")
    decoder = hpack.Decoder()
    indexed = set()
    before = b"", b""
    for n in range(40):  # six of them fill the table
        fields = Fields((b"authorization", b"%03d" % n + b"t" * 600))
        for _ in range(EVICTION_PAUSE // 10):
            head, tail = blocks.head_and_tail(fields)
            if (head, tail) != before:  # a block that repeats inserts nothing
                *_, (_, value) = decoder.decode(head + b"\x01/" + tail, raw=True)
                assert value == fields.pairs[0][1]
                before = head, tail
        if len(tail) == 1:
            indexed.add(n)
    assert indexed > set(range(6))
    assert max(indexed) > 20


def test_indexes_are_used_again_after_an_eviction() -> None:
    blocks = RequestBlocks(b"example.com")
    tokens = [Fields((b"authorization", b"%03d" % n + b"t" * 1000)) for n in range(5)]
    for fields in tokens:
        for _ in range(EVICTION_PAUSE + 3):
            _, tail = blocks.head_and_tail(fields)
        assert len(tail) == 1


def test_a_field_larger_than_the_table_empties_nothing() -> None:
    blocks = RequestBlocks(b"example.com")
    blocks.head_and_tail(FIELDS)
    huge = Fields((b"x-large", b"v" * 5000))
    for _ in range(3):
        assert len(blocks.head_and_tail(huge)[1]) > 5000
        assert len(blocks.head_and_tail(FIELDS)[1]) == len(FIELDS.pairs)


def test_what_is_remembered_is_bounded() -> None:
    blocks = RequestBlocks(b"example.com")
    gc.collect()
    for n in range(MAX_REMEMBERED * 2 + 10):
        blocks.head_and_tail(Fields((b"x-number", b"%d" % n)))
    gc.collect()
    assert sum(isinstance(thing, Fields) for thing in gc.get_objects()) <= MAX_REMEMBERED + 100


def test_table_size_changes_are_announced_smallest_first() -> None:
    wire = Wire()
    wire.headers(wire.send(an_exchange()))
    wire.receive(settings({TABLE: 0}), settings({TABLE: 50}), settings({TABLE: 50}), settings({TABLE: 4096}))
    frames = wire.send(an_exchange())
    headers_frame = next(frame for frame in frames if isinstance(frame, HeadersFrame))
    assert headers_frame.data.startswith(b"\x20\x3f\xe1\x1f")  # size updates to 0 and 4096
    assert wire.headers(frames)[4:6] == list(FIELDS.pairs)


def test_the_same_table_size_twice_is_not_forgotten() -> None:
    wire = Wire()
    wire.headers(wire.send(an_exchange()))
    wire.receive(settings({TABLE: 0}), settings({TABLE: 0}))
    wire.decoder.max_allowed_table_size = 0
    assert wire.headers(wire.send(an_exchange()))[4:6] == list(FIELDS.pairs)


def test_a_block_larger_than_a_frame_goes_on_in_continuations() -> None:
    wire = Wire()
    fields = Fields((b"x-large", b"v" * 40_000))
    frames = wire.send(an_exchange(b"body", fields=fields))
    assert kinds(frames) == ["HeadersFrame", "ContinuationFrame", "ContinuationFrame", "DataFrame"]
    assert ["END_HEADERS" in frame.flags for frame in frames[:3]] == [False, False, True]
    assert wire.headers(frames)[4] == (b"x-large", b"v" * 40_000)
    frames = wire.send(an_exchange(b"", fields=fields))
    assert ["END_STREAM" in frame.flags for frame in frames] == [True, False, False]


# Answers of every legal shape


def test_trailers_interim_answers_padding_and_continuation() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    whole = block((b":status", b"503"), (b"apns-id", b"x"))
    padded = HeadersFrame(1, data=whole[:5], flags=["PADDED"], pad_length=9).serialize()
    assert wire.receive(answer(1, block((b":status", b"103")), ["END_HEADERS"])) == []
    assert wire.receive(padded, ContinuationFrame(1, data=whole[5:9]).serialize()) == []
    assert wire.receive(ContinuationFrame(1, data=whole[9:], flags=["END_HEADERS"]).serialize()) == []
    assert wire.receive(DataFrame(1, data=b"rea", flags=["PADDED"], pad_length=200).serialize()) == []
    assert wire.receive(data_frame(1, b""), data_frame(1, b"son")) == []
    assert wire.receive(answer(1, block((b"grpc-status", b"0")))) == [exchange]
    assert (exchange.status, exchange.header(b"apns-id"), exchange.body_in) == (503, b"x", b"reason")


def test_a_priority_in_headers_is_skipped() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    prioritised = HeadersFrame(1, data=b"\x88", flags=["PRIORITY", "END_STREAM", "END_HEADERS"])
    assert wire.receive(PriorityFrame(1).serialize(), prioritised.serialize()) == [exchange]
    assert exchange.status == 200


def test_a_200_with_body_and_trailers() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    trailers = answer(1, block((b"t", b"v")))
    assert wire.receive(answer(1, flags=["END_HEADERS"]), data_frame(1, b"{}"), trailers) == [exchange]
    assert (exchange.status, exchange.body_in) == (200, b"{}")


def test_unknown_frames_and_settings_are_ignored() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    unknown = b"\x00\x00\x03\xfa\xff\x00\x00\x00\x01abc"
    assert wire.receive(unknown, settings({0xF00: 1}), answer(1)) == [exchange]


@pytest.mark.parametrize("status", [200, 413])
def test_an_answer_before_the_request_is_sent_whole(status: int) -> None:
    wire = Wire({WINDOW: 10})
    exchange = an_exchange(b"b" * 30)
    assert sent_body(wire.send(exchange)) == b"b" * 10
    assert wire.receive(answer(1, block((b":status", b"%d" % status), (b"apns-id", b"x")))) == [exchange]
    (frame,) = wire.out()
    assert isinstance(frame, RstStreamFrame)
    assert exchange.status == status
    assert wire.receive(window_update(1, 100), settings({WINDOW: 1000})) == []
    assert kinds(wire.out()) == ["SettingsFrame"]
    assert wire.out() == []


def test_a_long_body_is_cut_and_its_stream_cancelled() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    page = answer(1, block((b":status", b"502")), ["END_HEADERS"]) + data_frame(1, b"p" * MAX_BODY)
    assert wire.receive(page) == []
    assert wire.receive(data_frame(1, b"p" * 100)) == [exchange]
    assert (exchange.end, exchange.status, len(exchange.body_in)) == (End.RESPONSE, 502, MAX_BODY)
    assert kinds(wire.out()) == ["RstStreamFrame"]
    assert wire.receive(data_frame(1, b"p" * 100, "END_STREAM")) == []


def test_a_long_body_that_ends_is_cut() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    wire.receive(answer(1, block((b":status", b"502")), ["END_HEADERS"]), data_frame(1, b"p" * (MAX_BODY - 1)))
    assert wire.receive(data_frame(1, b"p" * 100, "END_STREAM")) == [exchange]
    assert len(exchange.body_in) == MAX_BODY
    assert wire.out() == []


MALFORMED = {
    "no status": answer(1, block((b"apns-id", b"x"))),
    "an empty block": answer(1, b""),
    "status not first": answer(1, block((b"a", b"b"), (b":status", b"200"))),
    "status of two digits": answer(1, block((b":status", b"20"))),
    "status of letters": answer(1, block((b":status", b"2x0"))),
    "status below 100": answer(1, block((b":status", b"099"))),
    "interim answer that ends": answer(1, block((b":status", b"100"))),
    "body before headers": data_frame(1, b"x"),
    "headers after the answer": answer(1, flags=["END_HEADERS"]) + answer(1, flags=["END_HEADERS"]),
}


@pytest.mark.parametrize("frames", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_answer_resets_its_stream_only(frames: bytes) -> None:
    wire = Wire()
    exchange, other = an_exchange(), an_exchange()
    wire.send(exchange, other)
    assert wire.receive(frames) == [exchange]
    assert (exchange.end, exchange.error_code) == (End.RESET, ErrorCode.PROTOCOL_ERROR)
    (frame,) = wire.out()
    assert isinstance(frame, RstStreamFrame)
    assert wire.receive(answer(3)) == [other]


# Streams that are reset, GOAWAY, loss


@pytest.mark.parametrize("code", [0, 1, 2, 5, 8, 11, 0xFFFF])
def test_a_reset_leaves_the_fate_unknown(code: int) -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    assert wire.receive(reset(1, code)) == [exchange]
    assert (exchange.end, exchange.error_code) == (End.RESET, code)


def test_refused_is_unprocessed() -> None:
    wire = Wire()
    exchange = an_exchange()
    wire.send(exchange)
    assert wire.receive(reset(1, ErrorCode.REFUSED_STREAM)) == [exchange]
    assert exchange.end is End.UNPROCESSED


def test_a_reset_of_an_ended_stream_is_ignored() -> None:
    wire = Wire()
    wire.send(an_exchange())
    assert len(wire.receive(answer(1), reset(1, 0))) == 1
    assert wire.receive(reset(1, 8), data_frame(1, b"x"), window_update(1, 1), answer(1)) == []


def test_goaway_and_what_follows_in_the_same_bytes() -> None:
    wire = Wire()
    exchanges = [an_exchange() for _ in range(3)]
    wire.send(*exchanges)
    ended = wire.receive(
        goaway(3, 0, b'{"reason":"Shutdown"}'), answer(1), PingFrame(0, opaque_data=b"12345678").serialize(), answer(3)
    )
    assert {exchange.stream_id: exchange.end for exchange in ended} == {
        1: End.RESPONSE,
        3: End.RESPONSE,
        5: End.UNPROCESSED,
    }
    assert wire.client.retiring
    assert wire.client.room() == 0
    assert (wire.client.goaway_code, wire.client.goaway_reason) == (0, b'{"reason":"Shutdown"}')
    assert kinds(wire.out()) == ["PingFrame"]


def test_goaway_in_two_steps() -> None:
    wire = Wire({STREAMS: 2})
    written = [an_exchange(), an_exchange()]
    wire.send(*written)
    waiting = an_exchange()
    wire.client.request([waiting], 0.0)
    assert wire.receive(goaway(MAX_31_BITS)) == [waiting]
    assert waiting.end is End.UNPROCESSED
    assert wire.receive(settings({STREAMS: 9}), goaway(1, 0)) == [written[1]]
    assert written[1].end is End.UNPROCESSED
    assert wire.receive(goaway(MAX_31_BITS)) == []
    assert wire.receive(answer(1)) == [written[0]]
    assert wire.client.in_flight == 0


def test_loss_tells_written_from_never_written() -> None:
    wire = Wire({STREAMS: 1})
    written, waiting = an_exchange(), an_exchange()
    wire.client.request([written, waiting], 0.0)
    wire.out()
    assert wire.client.lost() == [written, waiting]
    assert (written.end, waiting.end) == (End.LOST, End.UNPROCESSED)
    assert wire.client.lost() == []


def test_what_ended_before_a_failure_is_not_lost() -> None:
    wire = Wire()
    answered, other = an_exchange(), an_exchange()
    wire.send(answered, other)
    with pytest.raises(ConnectionFailed):
        wire.receive(answer(1), data_frame(99, b"x"))
    assert wire.client.lost() == [answered, other]
    assert (answered.end, other.end) == (End.RESPONSE, End.LOST)


def test_cancel_and_expire() -> None:
    wire = Wire({STREAMS: 2})
    old, young, waiting = an_exchange(), an_exchange(), an_exchange()
    wire.send(old, now=10.0)
    wire.send(young, now=20.0)
    wire.client.request([waiting], 21.0)
    assert wire.client.expire(10.0) == []
    assert wire.client.expire(15.0) == [old]
    assert old.end is End.TIMEOUT
    assert kinds(wire.out(22.0)) == ["RstStreamFrame", "HeadersFrame", "DataFrame"]
    assert wire.client.cancel(old) == []
    assert wire.client.cancel(waiting) == [waiting]
    assert wire.client.cancel(young) == [young]
    assert wire.receive(answer(1), answer(3), answer(5)) == []


def test_what_waits_too_long_was_never_processed() -> None:
    wire = Wire({WINDOW: 100})
    first = an_exchange(b"x" * 100)
    wire.send(first)
    wire.receive(answer(1))
    wire.client._outbound.window = 0
    waiting = an_exchange()
    assert wire.send(waiting, now=1.0) == []
    assert wire.client.expire(2.0) == [waiting]
    assert waiting.end is End.UNPROCESSED
    assert wire.out() == []


def test_retiring_gives_back_what_waits() -> None:
    wire = Wire({STREAMS: 1})
    written, waiting = an_exchange(), an_exchange()
    wire.client.request([written, waiting], 0.0)
    wire.out()
    assert wire.client.retire() == [waiting]
    assert wire.receive(answer(1)) == [written]
    wire.client.close()
    assert kinds(wire.out()) == ["GoAwayFrame"]
    assert wire.receive(settings()) == []


def test_ping() -> None:
    pair = Pair()
    pair.pump()
    pair.client.ping()
    assert pair.client.ping_pending
    pair.pump()
    assert not pair.client.ping_pending


# Streams and windows


def test_one_stream_until_the_first_answer_then_the_announced_number() -> None:
    wire = Wire({STREAMS: 1})
    assert wire.client.room() == 1
    first = an_exchange()
    wire.send(first)
    assert wire.client.room() == 0
    assert wire.receive(answer(1), settings({STREAMS: 1000})) == [first]
    assert wire.client.room() == 1000


def test_the_number_of_streams_may_fall_to_nothing_and_rise() -> None:
    wire = Wire({STREAMS: 3})
    open_ones = [an_exchange(), an_exchange()]
    wire.send(*open_ones)
    waiting = an_exchange()
    wire.client.request([waiting], 0.0)
    assert wire.receive(settings({STREAMS: 0})) == [waiting]
    assert waiting.end is End.UNPROCESSED
    assert wire.client.room() == 0
    assert wire.receive(answer(1), answer(3)) == open_ones
    assert wire.client.room() == 0
    wire.receive(settings({STREAMS: 1}))
    assert wire.client.room() == 1
    assert kinds(wire.send(an_exchange()))[-2:] == ["HeadersFrame", "DataFrame"]


def test_a_stream_is_opened_only_when_one_is_free() -> None:
    wire = Wire({STREAMS: 1})
    first, second = an_exchange(), an_exchange()
    assert [frame.stream_id for frame in wire.send(first, second)] == [1, 1]
    wire.receive(answer(1))
    assert [frame.stream_id for frame in wire.out()] == [3, 3]


def test_stream_ids_end() -> None:
    wire = Wire()
    wire.client._outbound.next_id = MAX_31_BITS - 2
    assert wire.client.room() == 2
    exchanges = [an_exchange(), an_exchange()]
    wire.send(*exchanges)
    assert [exchange.stream_id for exchange in exchanges] == [MAX_31_BITS - 2, MAX_31_BITS]
    assert wire.client.room() == 0
    assert wire.client.retiring
    assert wire.receive(answer(MAX_31_BITS), answer(MAX_31_BITS - 2)) == exchanges[::-1]


def test_a_body_waits_for_the_window_of_its_stream() -> None:
    wire = Wire({WINDOW: 4})
    frames = wire.send(an_exchange(b"0123456789"))
    assert sent_body(frames) == b"0123"
    wire.receive(window_update(1, 3))
    assert sent_body(wire.out()) == b"456"
    wire.receive(window_update(1, 100))
    frames = wire.out()
    assert sent_body(frames) == b"789"
    assert "END_STREAM" in frames[-1].flags


def test_a_body_waits_for_the_window_of_the_connection() -> None:
    wire = Wire()
    bodies = [b"a" * 16_000] * 5
    frames = wire.send(*[an_exchange(body) for body in bodies])
    assert len(sent_body(frames)) == 65_535
    assert wire.client.room() == 0
    assert wire.send(an_exchange(b"late")) == []
    wire.receive(window_update(0, 14_465))
    assert len(sent_body(wire.out())) == 14_465
    assert wire.out() == []
    wire.receive(window_update(0, 1000))
    assert sent_body(wire.out()) == b"late"


def test_a_negative_window_is_paid_off_first() -> None:
    wire = Wire({WINDOW: 10})
    assert sent_body(wire.send(an_exchange(b"x" * 25))) == b"x" * 10
    wire.receive(settings({WINDOW: 2}))
    assert sent_body(wire.out()) == b""  # the window is -8
    wire.receive(window_update(1, 8))
    assert sent_body(wire.out()) == b""
    wire.receive(window_update(1, 5))
    assert sent_body(wire.out()) == b"x" * 5
    wire.receive(settings({WINDOW: 12}))
    assert sent_body(wire.out()) == b"x" * 10


def test_the_acknowledgement_precedes_what_the_new_settings_allow() -> None:
    wire = Wire({WINDOW: 0})
    wire.send(an_exchange(b"body"))
    wire.receive(settings({WINDOW: 65_535}))
    frames = wire.out()
    assert kinds(frames) == ["SettingsFrame", "DataFrame"]
    assert "ACK" in frames[0].flags


def test_frames_grow_only_with_the_peers_leave() -> None:
    wire = Wire({WINDOW: 1_000_000})
    wire.receive(window_update(0, 1_000_000))
    assert [len(payload(frame)) for frame in wire.send(an_exchange(b"x" * 40_000))[1:]] == [16_384, 16_384, 7_232]
    wire.receive(settings({FRAME: 50_000}))
    wire.out()
    assert [len(payload(frame)) for frame in wire.send(an_exchange(b"x" * 40_000))[1:]] == [40_000]


def test_more_than_2_gib_over_one_connection() -> None:
    wire = Wire()
    sent = 0
    body = b"x" * 16_384
    while sent <= 2**31 + 2**20:
        exchange = an_exchange(body)
        wire.client.request([exchange], 0.0)
        assert len(wire.client.take_output(0.0)) > len(body)
        sent += len(body)
        assert wire.receive(window_update(0, len(body)), answer(exchange.stream_id)) == [exchange]
    assert wire.client.room() > 0


@pytest.mark.parametrize("cancelled", [False, True], ids=["answered", "given up"])
def test_received_data_is_given_back(cancelled: bool) -> None:
    pair = Pair()
    pair.pump()
    for _ in range(400):  # 3.2 MB, three times the window
        exchange = an_exchange()
        pair.client.request([exchange], 0.0)
        pair.pump()
        pair.respond(exchange.stream_id, 400, b"r" * 8000)
        if cancelled:
            late = pair.server.data_to_send()
            pair.client.cancel(exchange)
            pair.client.receive(late)
        assert exchange in pair.pump() or cancelled
    assert pair.server.outbound_flow_control_window > 0


def test_the_output_comes_in_batches() -> None:
    wire = Wire()
    wire.receive(window_update(0, 10_000_000))
    wire.client.request([an_exchange(b"x" * 4000) for _ in range(100)], 1.0)
    sizes = []
    while output := wire.client.take_output(2.0):
        sizes.append(len(output))
    assert len(sizes) > 5
    assert max(sizes) < 64 * 1024


# What a peer must not do


def _oversized(kind: int) -> bytes:
    return (16_385).to_bytes(3, "big") + bytes([kind, 0]) + (1).to_bytes(4, "big")


FAILURES: dict[str, tuple[int, bytes]] = {
    "frame too large": (ErrorCode.FRAME_SIZE_ERROR, _oversized(0)),
    "unknown frame too large": (ErrorCode.FRAME_SIZE_ERROR, _oversized(0xFA)),
    "frame on an idle stream": (ErrorCode.PROTOCOL_ERROR, answer(99)),
    "frame on an even stream": (ErrorCode.PROTOCOL_ERROR, answer(2)),
    "DATA on stream 0": (ErrorCode.PROTOCOL_ERROR, b"\0\0\1\0\0\0\0\0\0x"),
    "push": (ErrorCode.PROTOCOL_ERROR, PushPromiseFrame(1, promised_stream_id=2, data=b"\x82").serialize()),
    "stray CONTINUATION": (ErrorCode.PROTOCOL_ERROR, ContinuationFrame(1, data=b"").serialize()),
    "interrupted block": (ErrorCode.PROTOCOL_ERROR, answer(1, flags=[]) + settings()),
    "continued elsewhere": (ErrorCode.PROTOCOL_ERROR, answer(1, flags=[]) + ContinuationFrame(3).serialize()),
    "whole answer within a block": (ErrorCode.PROTOCOL_ERROR, answer(1, flags=[]) + answer(3)),
    "padding too long": (ErrorCode.PROTOCOL_ERROR, b"\0\0\2\0\x08\0\0\0\1\x09x"),
    "padding without length": (ErrorCode.PROTOCOL_ERROR, b"\0\0\0\0\x08\0\0\0\1"),
    "priority cut off": (ErrorCode.FRAME_SIZE_ERROR, b"\0\0\3\1\x24\0\0\0\1abc"),
    "RST_STREAM of 3 octets": (ErrorCode.FRAME_SIZE_ERROR, b"\0\0\3\3\0\0\0\0\1abc"),
    "WINDOW_UPDATE of 5 octets": (ErrorCode.FRAME_SIZE_ERROR, b"\0\0\5\x08\0\0\0\0\0abcde"),
    "WINDOW_UPDATE by 0": (ErrorCode.PROTOCOL_ERROR, b"\0\0\4\x08\0\0\0\0\0\0\0\0\0"),
    "connection window too large": (ErrorCode.FLOW_CONTROL_ERROR, window_update(0, MAX_31_BITS)),
    "GOAWAY cut off": (ErrorCode.FRAME_SIZE_ERROR, b"\0\0\4\7\0\0\0\0\0abcd"),
    "GOAWAY on a stream": (ErrorCode.PROTOCOL_ERROR, b"\0\0\x08\7\0\0\0\0\1abcdefgh"),
    "SETTINGS of 5 octets": (ErrorCode.FRAME_SIZE_ERROR, b"\0\0\5\4\0\0\0\0\0abcde"),
    "SETTINGS frame size too small": (ErrorCode.PROTOCOL_ERROR, settings({FRAME: 1})),
    "SETTINGS window too large": (ErrorCode.FLOW_CONTROL_ERROR, settings({WINDOW: 2**31})),
    "header block that is no HPACK": (ErrorCode.COMPRESSION_ERROR, answer(1, b"\x40\xff\xff")),
    "header bomb": (ErrorCode.COMPRESSION_ERROR, answer(1, block((b":status", b"500")) + b"\x9f" * 2000)),
    "reference to an entry that cannot be": (ErrorCode.COMPRESSION_ERROR, answer(1, b"\xbe")),
}


@pytest.mark.parametrize(("code", "frames"), FAILURES.values(), ids=FAILURES.keys())
def test_what_the_peer_must_not_do_fails_the_connection(code: int, frames: bytes) -> None:
    wire = Wire()
    exchanges = [an_exchange(), an_exchange()]
    wire.send(*exchanges)
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(frames)
    assert failure.value.code == code
    (frame,) = wire.out()
    assert isinstance(frame, GoAwayFrame)
    assert frame.error_code == code
    assert wire.client.room() == 0
    assert wire.receive(answer(1)) == []
    assert wire.client.lost() == exchanges


def test_nothing_follows_our_goaway() -> None:
    wire = Wire()
    written, waiting = an_exchange(), an_exchange()
    wire.send(written)
    wire.client.request([waiting], 0.0)
    with pytest.raises(ConnectionFailed):
        wire.receive(FAILURES["GOAWAY on a stream"][1])
    assert kinds(wire.out()) == ["GoAwayFrame"]
    assert wire.client.lost() == [written, waiting]
    assert (written.end, waiting.end) == (End.LOST, End.UNPROCESSED)


def test_the_first_frame_must_be_settings() -> None:
    client = Connection(b"example.com")
    with pytest.raises(ConnectionFailed):
        client.receive(PingFrame(0, opaque_data=b"12345678").serialize())


def test_settings_that_make_a_streams_window_too_large() -> None:
    wire = Wire({WINDOW: 1})
    wire.send(an_exchange(b"xyz"))
    wire.client._outbound.window = 0
    wire.receive(window_update(1, MAX_31_BITS - 10))
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(settings({WINDOW: 1000}))
    assert failure.value.code == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    ("increment", "code"), [(0, ErrorCode.PROTOCOL_ERROR), (MAX_31_BITS, ErrorCode.FLOW_CONTROL_ERROR)]
)
def test_a_bad_window_of_a_stream_resets_it(increment: int, code: int) -> None:
    wire = Wire({WINDOW: 1})
    exchange = an_exchange(b"xyz")
    wire.send(exchange)
    wire.client._outbound.window = 0
    wire.receive(window_update(1, 1))
    assert wire.receive(b"\0\0\4\x08\0\0\0\0\1" + increment.to_bytes(4, "big")) == [exchange]
    assert (exchange.end, exchange.error_code) == (End.RESET, code)


@pytest.mark.parametrize("fragment", [b"", b"\x9f" * 1000], ids=["empty", "long"])
def test_a_flood_of_continuations_fails(fragment: bytes) -> None:
    wire = Wire()
    wire.send(an_exchange())
    wire.receive(answer(1, flags=[]))
    flood = ContinuationFrame(1, data=fragment).serialize() * 5000
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(flood)
    assert failure.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_flood_of_pings_that_nobody_reads_the_answers_of_fails() -> None:
    wire = Wire()
    pings = PingFrame(0, opaque_data=b"12345678").serialize() * 200_000
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(pings)
    assert failure.value.code == ErrorCode.ENHANCE_YOUR_CALM


# A peer that indexes though we said no


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("sensitive", [False, True])
@pytest.mark.parametrize("resized", [False, True])
def test_a_status_is_read_the_same_whether_the_block_is_decoded_or_not(
    *, huffman: bool, sensitive: bool, resized: bool
) -> None:
    decoding, looking = ResponseBlocks(indexing=False), ResponseBlocks(indexing=False)
    told = set()
    for status in range(100, 600):
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        size_update = encoder.encode([])
        fields = [(b":status", str(status).encode(), sensitive), (b"retry-after", b"7", sensitive)]
        whole = encoder.encode(fields, huffman=huffman)
        whole = size_update + whole if resized else whole
        assert decoding.decode(whole)[0] == (b":status", str(status).encode())
        if found := looking.status(whole):
            assert found == status
            told.add(status)
    assert told == {*range(100, 200), 200, *range(400, 500)} - {403, 429}


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("status", [200, 400, 410])
def test_a_block_with_a_wanted_field_is_decoded_whatever_the_status(*, huffman: bool, status: int) -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    told = {}
    for name in (b"apns-unique-id", b"apns-unique"):
        fields = [(b":status", str(status).encode()), (b"apns-id", b"x"), (name, b"y")]
        told[name] = ResponseBlocks(indexing=False, wanted=b"apns-unique-id").status(
            encoder.encode(fields, huffman=huffman)
        )
    assert told == {b"apns-unique-id": 0, b"apns-unique": status}


@pytest.mark.parametrize("start", [b"", b"\x20", b"\x08", b"\x08\x03", b"\x08\x03\x34\x31", b"\x80", b"\xff"])
def test_a_block_that_begins_otherwise_says_no_status(start: bytes) -> None:
    assert ResponseBlocks(indexing=False).status(start) == 0


def test_a_refusal_has_its_body_and_no_headers() -> None:
    pair = Pair()
    pair.pump()
    exchange = an_exchange()
    pair.client.request([exchange], 0.0)
    pair.pump()
    pair.respond(1, 410, b'{"reason":"Unregistered"}', (b"apns-id", b"x"))
    assert pair.pump() == [exchange]
    assert (exchange.status, exchange.headers, exchange.body_in) == (410, [], b'{"reason":"Unregistered"}')


def indexing_answers() -> tuple[bytes, bytes]:
    encoder = hpack.Encoder()
    headers = [(b":status", b"503"), (b"apns-id", b"x")]
    return encoder.encode(headers), encoder.encode(headers)


def test_a_peer_that_indexes_all_the_same_is_understood_and_remembered() -> None:
    first, second = indexing_answers()
    wire = Wire()
    exchanges = [an_exchange(), an_exchange()]
    wire.send(*exchanges)
    assert wire.receive(answer(1, first), answer(3, second)) == exchanges
    assert exchanges[1].header(b"apns-id") == b"x"
    assert wire.client.peer_indexes


@pytest.mark.parametrize("ordinary", [1, 20, 5_000])
def test_entries_that_came_with_answers_that_were_not_decoded_are_caught_up_with(ordinary: int) -> None:
    encoder = hpack.Encoder()
    wire = Wire()
    for number in range(ordinary):
        wire.send(exchange := an_exchange())
        headers = [(b":status", b"200"), (b"apns-id", b"%d" % number), (b"server", b"h2o")]
        assert wire.receive(answer(2 * number + 1, encoder.encode(headers))) == [exchange]
    wire.send(late := an_exchange())
    headers = [(b":status", b"429"), (b"server", b"h2o"), (b"retry-after", b"7")]
    assert wire.receive(answer(2 * ordinary + 1, encoder.encode(headers))) == [late]
    assert (late.header(b"server"), late.header(b"retry-after")) == (b"h2o", b"7")


def test_a_peer_that_shows_a_table_of_size_0_is_believed_and_nothing_is_kept() -> None:
    wire = Wire()
    for number in range(100):
        wire.send(exchange := an_exchange())
        assert wire.receive(answer(2 * number + 1, b"\x20" * (number == 0) + USUAL)) == [exchange]
        assert not wire.client._responses.keeps
        assert not wire.client._responses._kept


def test_what_is_kept_is_bounded() -> None:
    wire = Wire()
    for number in range(10_000):
        wire.send(exchange := an_exchange())
        assert wire.receive(answer(2 * number + 1)) == [exchange]
    assert not wire.client._responses.indexing
    assert not wire.client._responses._kept


def test_a_peer_that_begins_to_index_late_is_found_out() -> None:
    first, second = indexing_answers()
    wire = Wire()
    wire.send(ordinary := an_exchange())
    assert wire.receive(answer(1, b"\x20" + USUAL)) == [ordinary]
    wire.send(an_exchange(), an_exchange())
    with pytest.raises(ConnectionFailed) as failure:
        wire.receive(answer(3, first), answer(5, second))
    assert failure.value.code == ErrorCode.COMPRESSION_ERROR
    assert wire.client.peer_indexes


def test_and_is_understood_when_it_may() -> None:
    first, second = indexing_answers()
    wire = Wire(indexing=True)
    announced: Any = next(frames_in(wire.preface))
    assert announced.settings[SettingCodes.HEADER_TABLE_SIZE] == 4096
    exchanges = [an_exchange(), an_exchange()]
    wire.send(*exchanges)
    wire.client.cancel(exchanges[0])
    assert wire.receive(answer(1, first)) == []  # a stream that was given up fills the table all the same
    assert wire.receive(answer(3, second)) == [exchanges[1]]
    assert exchanges[1].header(b"apns-id") == b"x"
    wire.out()
    wire.send(third := an_exchange())
    assert wire.receive(answer(5, b"\x88" + second[1:])) == [third]
    assert (third.status, third.header(b"apns-id")) == (200, b"x")


def test_a_window_update_on_an_idle_stream_fails() -> None:
    with pytest.raises(ConnectionFailed):
        Wire().receive(WindowUpdateFrame(1, window_increment=5).serialize())
