"""The engine against a server that does anything a server may do, by seed; and against broken versions of that.

The server is strict: it counts windows, streams and frame sizes, and decodes every header block. What it believes to
have done with each stream must be what the engine reports.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

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
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from lab.http2_wire import block, frames_in, window_update
from pusher.providers.http2 import Connection, ConnectionFailed, End, Exchange, Fields, literal_field

STREAMS, WINDOW = SettingCodes.MAX_CONCURRENT_STREAMS, SettingCodes.INITIAL_WINDOW_SIZE
FRAME, TABLE = SettingCodes.MAX_FRAME_SIZE, SettingCodes.HEADER_TABLE_SIZE
KINDS = [Fields((b"authorization", b"bearer %d" % n), (b"apns-topic", b"t" * 40 * n)) for n in range(12)]
MAX_WINDOW = 2**31 - 1


@dataclass
class Stream:
    """What the server knows of a request."""

    headers: list[tuple[bytes, bytes]]
    window: int
    body: bytes = b""
    whole: bool = False
    status: int = 0
    answer: bytes = b""


class StrictServer:
    """Keeps to the protocol and checks that the client does."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.decoder = hpack.Decoder()
        self.encoder = hpack.Encoder()
        self.encoder.header_table_size = 0
        self.said: list[bytes] = []
        self.announced: list[dict[SettingCodes, int]] = []
        self.limits = {STREAMS: 2**32, WINDOW: 65_535, FRAME: 16_384, TABLE: 4096}
        self.window = 65_535
        self.open: dict[int, Stream] = {}
        self.requests: list[Stream] = []
        self.last_id = 0
        self.fates: dict[int, tuple[End, int, bytes]] = {}
        self.goaway: int | None = None
        self._pending: list[Frame] = []
        self.announce({STREAMS: source.choice([1, 5, 100])})

    def say(self, *frames: Frame) -> None:
        self.said += [frame.serialize() for frame in frames]

    def announce(self, values: dict[SettingCodes, int]) -> None:
        self.announced.append(values)
        self.say(SettingsFrame(0, settings={int(code): value for code, value in values.items()}))

    # What the client sends

    def hear(self, data: bytes) -> None:
        for frame in frames_in(data):
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                self._on_headers(frame)
            elif isinstance(frame, DataFrame):
                self._on_data(frame)
            elif isinstance(frame, RstStreamFrame):
                assert 0 < frame.stream_id <= self.last_id, "reset of an idle stream"
                if self.open.pop(frame.stream_id, None):
                    self.fates[frame.stream_id] = (End.TIMEOUT, 0, b"")
            elif isinstance(frame, SettingsFrame) and "ACK" in frame.flags:
                self._apply(self.announced.pop(0))
            else:
                assert isinstance(frame, SettingsFrame | PingFrame | WindowUpdateFrame), frame

    def _apply(self, values: dict[SettingCodes, int]) -> None:
        for stream in self.open.values():
            stream.window += values.get(WINDOW, self.limits[WINDOW]) - self.limits[WINDOW]
        self.limits |= values
        self.decoder.max_allowed_table_size = self.limits[TABLE]

    def _on_headers(self, frame: HeadersFrame | ContinuationFrame) -> None:
        assert len(frame.data) <= self.limits[FRAME]
        self._pending.append(frame)
        if "END_HEADERS" not in frame.flags:
            return
        pending, self._pending = self._pending, []
        data = b"".join(part.data for part in pending if isinstance(part, HeadersFrame | ContinuationFrame))
        headers = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(data, raw=True)]
        assert frame.stream_id == (self.last_id + 2 if self.last_id else 1)
        self.last_id = frame.stream_id
        if self.goaway is not None and frame.stream_id > self.goaway:
            self.fates[frame.stream_id] = (End.UNPROCESSED, 0, b"")
            return
        stream = Stream(headers, self.limits[WINDOW], whole="END_STREAM" in pending[0].flags)
        self.requests += [stream] * stream.whole
        self.open[frame.stream_id] = stream
        assert len(self.open) <= self.limits[STREAMS], "more streams than announced"

    def _on_data(self, frame: DataFrame) -> None:
        self.window -= len(frame.data)
        assert self.window >= 0, "the connection's window is overrun"
        assert len(frame.data) <= self.limits[FRAME]
        stream = self.open.get(frame.stream_id)
        if stream is not None:
            assert not stream.whole
            stream.window -= len(frame.data)
            assert stream.window >= 0, "a stream's window is overrun"
            stream.body += frame.data
            stream.whole = "END_STREAM" in frame.flags
            self.requests += [stream] * stream.whole

    # What the server does

    def act(self) -> None:
        self.source.choice(
            [self._answer] * 6
            + [self._answer_part, self._open_windows] * 3
            + [self._reset, self._ping, self._settings, self._noise, self._goaway]
        )()

    def _any_stream(self) -> int:
        return self.source.choice(list(self.open)) if self.open else 0

    def _end(self, stream_id: int, end: End, code: int = 0) -> None:
        stream = self.open.pop(stream_id)
        self.fates[stream_id] = (end, stream.status if end is End.RESPONSE else code, stream.answer)

    def _head(self, stream_id: int, status: int, *, last: bool) -> None:
        headers = [(":status", str(status)), ("apns-id", "x" * self.source.randrange(50))]
        data = self.encoder.encode(headers, huffman=self.source.random() < 0.5)
        flags = ["END_STREAM"] * last
        cut = self.source.choice([0, 0, 0, len(data) // 2, len(data) - 1])
        if not cut:
            self.say(HeadersFrame(stream_id, data=data, flags=[*flags, "END_HEADERS"]))
        else:
            self.say(HeadersFrame(stream_id, data=data[:cut], flags=[*flags, "PADDED"], pad_length=3))
            self.say(ContinuationFrame(stream_id, data=data[cut:], flags=["END_HEADERS"]))

    def _body(self, stream_id: int, *, last: bool) -> None:
        data = b"b" * self.source.choice([0, 1, 30, 500])
        flags = ["END_STREAM"] * last
        if self.source.random() < 0.5:
            self.say(DataFrame(stream_id, data=data, flags=[*flags, "PADDED"], pad_length=self.source.randrange(9)))
        else:
            self.say(DataFrame(stream_id, data=data, flags=flags))
        self.open[stream_id].answer += data

    def _answer(self) -> None:
        stream_id = self._any_stream()
        if not stream_id:
            return
        stream = self.open[stream_id]
        last = self.source.random() < 0.5
        if not stream.status:
            stream.status = self.source.choice([200, 200, 200, 400, 410, 429, 503])
            self._head(stream_id, stream.status, last=last)
        elif last:
            self.say(HeadersFrame(stream_id, data=block((b"t", b"v")), flags=["END_STREAM", "END_HEADERS"]))
        if not last:
            self._body(stream_id, last=True)
        self._end(stream_id, End.RESPONSE)

    def _answer_part(self) -> None:
        stream_id = self._any_stream()
        if not stream_id:
            return
        stream = self.open[stream_id]
        if stream.status:
            self._body(stream_id, last=False)
        elif self.source.random() < 0.3:
            self._head(stream_id, 103, last=False)
        else:
            stream.status = self.source.choice([200, 500])
            self._head(stream_id, stream.status, last=False)

    def _reset(self) -> None:
        stream_id = self._any_stream()
        if stream_id:
            code = self.source.choice([0, 2, 7, 8, 11])
            self.say(RstStreamFrame(stream_id, error_code=code))
            self._end(stream_id, End.UNPROCESSED if code == 7 else End.RESET, code)

    def _open_windows(self) -> None:
        stream_id = self._any_stream()
        increment = self.source.choice([1, 1000, 60_000])
        if self.window + increment <= 2**30:
            self.window += increment
            self.said.append(window_update(0, increment))
        if stream_id and self.open[stream_id].window + increment <= 2**30:
            self.open[stream_id].window += increment
            self.said.append(window_update(stream_id, increment))

    def _ping(self) -> None:
        self.say(PingFrame(0, opaque_data=b"question"))

    def _settings(self) -> None:
        choices: dict[SettingCodes, list[int]] = {
            STREAMS: [0, 1, 5, 100],
            WINDOW: [0, 10, 1000, 65_535, 200_000],
            FRAME: [16_384, 20_000],
            TABLE: [0, 60, 200, 4096, 10_000],
        }
        codes = self.source.sample(list(choices), self.source.randrange(5))
        self.announce({code: self.source.choice(choices[code]) for code in codes})

    def _noise(self) -> None:
        self.said.append(self.source.choice([b"\0\0\2\xf1\7\0\0\0\3hi", PriorityFrame(7).serialize()]))

    def _goaway(self) -> None:
        if self.source.random() > 0.02:
            return
        last = self.source.choice([MAX_WINDOW, self._any_stream()])
        last = last if self.goaway is None else min(last, self.goaway)
        self.goaway = last
        self.say(GoAwayFrame(0, last_stream_id=last, error_code=0))
        for stream_id in [n for n in self.open if n > last]:
            self.open.pop(stream_id)
            self.fates[stream_id] = (End.UNPROCESSED, 0, b"")


class Session:
    """A client and such a server; the bytes of the two cross each other in pieces of any size."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.server = StrictServer(self.source)
        self.client = Connection(b"example.com")
        self.exchanges: list[Exchange] = []
        self.ended: list[Exchange] = []
        self.transcript: list[bytes] = []
        self._to_server = b""
        self._to_client = b""

    def run(self, steps: int) -> None:
        for now in range(steps):
            self.source.choice([self._request, self._write, self._carry, self._carry, self.server.act])()
            if self.source.random() < 0.01:
                self.ended += self.client.expire(now - 200)
            for exchange in self.exchanges[-1:]:
                if self.source.random() < 0.01:
                    self.ended += self.client.cancel(exchange)
            self.now = now
        self._settle()

    def _settle(self) -> None:
        """Everything that is on its way arrives; then the connection is lost."""
        for _ in range(20):
            self._write()
            self._carry(whole=True)
        self.ended += self.client.lost()

    now = 0

    def _request(self) -> None:
        room = min(self.client.room(), self.source.randrange(5))
        fresh = [self._an_exchange(len(self.exchanges) + n) for n in range(room)]
        self.client.request(fresh, self.now)
        self.exchanges += fresh

    def _an_exchange(self, count: int) -> Exchange:
        number = b"%d" % count
        body = b"y" * self.source.choice([0, 1, 200, 5000, 70_000])
        literals = literal_field(b"apns-id", number)
        return Exchange(number, self.source.choice(KINDS), b"/3/device/" + number, literals, body)

    def _write(self) -> None:
        self._to_server += self.client.take_output(self.now)

    def _carry(self, *, whole: bool = False) -> None:
        """The server hears a batch, since it reads all; the client hears a piece of any size."""
        # What the server said before it heard this is on its way already.
        self._to_client += b"".join(self.server.said)
        self.server.said.clear()
        self.server.hear(self._to_server)
        self._to_server = b""
        octets = len(self._to_client) if whole else self.source.choice([1, 10, 100, 5000])
        piece, self._to_client = self._to_client[:octets], self._to_client[octets:]
        self.transcript.append(piece)
        self.ended += self.client.receive(piece)


def assert_each_ended_once(session: Session) -> None:
    assert len(session.ended) == len(session.exchanges)
    assert {id(exchange) for exchange in session.ended} == {id(exchange) for exchange in session.exchanges}
    assert End.OPEN not in {exchange.end for exchange in session.exchanges}
    assert session.client.in_flight == 0


def assert_requests_arrived_whole(session: Session) -> None:
    for stream in session.server.requests:
        headers = dict(stream.headers)
        exchange = session.exchanges[int(headers[b"apns-id"])]
        assert headers[b":path"] == exchange.path
        assert stream.headers[4:6] == list(exchange.fields.pairs)
        assert stream.body == exchange.body


def test_the_seeds_reach_everything() -> None:
    ends: set[End] = set()
    requests = 0
    for seed in range(20):
        session = Session(seed)
        session.run(1500)
        ends |= {exchange.end for exchange in session.exchanges}
        requests += len(session.server.requests)
    assert ends == set(End) - {End.OPEN}
    assert requests > 500


@pytest.mark.parametrize("seed", range(150))
def test_a_legal_server(seed: int) -> None:
    session = Session(seed)
    session.run(1500)
    assert_each_ended_once(session)
    assert_requests_arrived_whole(session)
    for exchange in session.exchanges:
        end, value, body = session.server.fates.get(exchange.stream_id, (None, 0, b""))
        if exchange.stream_id == 0:
            assert exchange.end is End.UNPROCESSED
        elif exchange.end is End.RESPONSE:
            assert (end, value, body) == (End.RESPONSE, exchange.status, exchange.body_in)
        elif exchange.end is End.TIMEOUT:
            pass  # the answer may have been on its way
        elif exchange.end is End.LOST:
            assert end is None
        else:
            assert end is exchange.end
            assert value == exchange.error_code


def mutate(data: bytes, source: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(source.randrange(1, 6)):
        position = source.randrange(len(broken))
        kind = source.randrange(4)
        if kind == 0:
            broken[position] = source.randrange(256)
        elif kind == 1:
            broken[position] ^= 1 << source.randrange(8)
        elif kind == 2:
            del broken[position : position + source.randrange(1, 20)]
        else:
            broken[position:position] = broken[: source.randrange(1, 30)]
    return bytes(broken)


@pytest.mark.parametrize("seed", range(300))
@pytest.mark.parametrize("indexing", [False, True])
def test_a_broken_server(seed: int, indexing: bool) -> None:
    recorded = Session(seed % 10)
    recorded.run(300)
    source = random.Random(seed)
    transcript = mutate(b"".join(recorded.transcript), source)
    client = Connection(b"example.com", indexing=indexing)
    exchanges: list[Exchange] = []
    ended: list[Exchange] = []
    position = 0
    try:
        while position < len(transcript):
            fresh = [Exchange(None, fields, b"/", b"", b"x" * 100) for fields in KINDS[: client.room()]]
            client.request(fresh, 0.0)
            exchanges += fresh
            client.take_output(0.0)
            octets = source.choice([1, 20, 1000])
            ended += client.receive(transcript[position : position + octets])
            position += octets
    except ConnectionFailed:
        assert isinstance(list(frames_in(client.take_output(0.0)))[-1], GoAwayFrame)
    ended += client.lost()
    assert len(ended) == len(exchanges)
    assert {id(exchange) for exchange in ended} == {id(exchange) for exchange in exchanges}
    assert all(exchange.end for exchange in exchanges)
