"""A server that keeps to HTTP/2 in every way that it allows, by h2: what it did with a stream is what we report.

h2 raises ProtocolError where the client overruns a window, opens too many streams, writes too large a frame or a header
block that cannot be read. Its frames are cut anew on the way: padding, CONTINUATION, pieces of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PriorityFrame

from lab.http2_wire import PREFACE, frames_in
from pusher.providers.http2 import MAX_BODY, Connection, End, Exchange, Fields, literal_field
from pusher.providers.http2.frames import HEAD_OCTETS
from tests.fuzz.draw import Draw

KINDS = [Fields((b"authorization", b"bearer %d" % n), (b"apns-topic", b"t" * 60 * n)) for n in range(12)]
BODIES = (0, 1, 200, 5_000, 70_000)
PIECES = (1, 8, 9, 30, 500, 100_000)
VALUES: dict[SettingCodes, tuple[int, ...]] = {
    SettingCodes.MAX_CONCURRENT_STREAMS: (0, 1, 5, 100),
    SettingCodes.INITIAL_WINDOW_SIZE: (0, 10, 1_000, 65_535, 200_000),
    SettingCodes.MAX_FRAME_SIZE: (16_384, 20_000),
    SettingCodes.HEADER_TABLE_SIZE: (0, 60, 200, 4_096, 10_000),
}
MAX_31_BITS = 2**31 - 1


@dataclass
class Stream:
    """What the server has heard and said."""

    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    whole: bool = False
    status: int = 0
    answer: bytes = b""
    #: What it has done with the stream, once it has.
    end: End = End.OPEN
    code: int = 0


@dataclass
class Server:
    """h2's server side, doing what is drawn."""

    draw: Draw
    streams: dict[int, Stream] = field(default_factory=dict)
    goaway: int = MAX_31_BITS

    def __post_init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        streams = {SettingCodes.MAX_CONCURRENT_STREAMS: self.draw.choice((1, 5, 100))}
        self.h2.local_settings = Settings(client=False, initial_values=streams)
        self.h2.initiate_connection()
        #: Settings are not acknowledged yet. With two of them under way, h2 applies both at the first acknowledgement.
        self._asked = True
        self._out = b""
        self._cut_out()

    def hear(self, data: bytes) -> None:
        preface = len(PREFACE) if data.startswith(PREFACE) else 0
        for whole in (data[:preface], *_wholes(data[preface:])):
            for event in self.h2.receive_data(whole):
                self._note(event)
        self._cut_out()

    def _note(self, event: Event) -> None:
        if isinstance(event, SettingsAcknowledged):
            self._asked = False
        elif isinstance(event, RequestReceived):
            assert event.stream_id is not None
            headers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            self.streams[event.stream_id] = Stream(headers)
            if event.stream_id > self.goaway:
                self.streams[event.stream_id].end = End.UNPROCESSED
        elif isinstance(event, DataReceived):
            self.streams[event.stream_id or 0].body += event.data or b""
        elif isinstance(event, StreamEnded):
            self.streams[event.stream_id or 0].whole = True
        elif isinstance(event, StreamReset):
            stream = self.streams[event.stream_id or 0]
            stream.end = stream.end or End.TIMEOUT

    def said(self, octets: int) -> bytes:
        piece, self._out = self._out[:octets], self._out[octets:]
        return piece

    @property
    def has_more(self) -> bool:
        return bool(self._out)

    # What it does

    def act(self) -> None:
        action = self.draw.number(16)
        if action < 8:
            self._answer()
        else:
            (
                self._open_windows,
                self._open_windows,
                self._reset,
                self._settings,
                lambda: self.h2.ping(b"question"),
                self._goaway,
                self._noise,
                self._open_windows,
            )[action - 8]()
        self._cut_out()

    def _open(self) -> tuple[int, Stream] | None:
        found = [(number, stream) for number, stream in self.streams.items() if not stream.end]
        return self.draw.choice(found) if found else None

    def _answer(self) -> None:
        """The next part of an answer: interim, head, body, trailers."""
        found = self._open()
        if found is None:
            return
        stream_id, stream = found
        last = self.draw.flag()
        if not stream.status:
            interim = self.draw.one_in(6)
            status = 103 if interim else self.draw.choice((200, 200, 200, 204, 400, 410, 429, 503))
            headers = [(b":status", b"%d" % status), (b"apns-id", b"x" * self.draw.number(60))]
            self.h2.send_headers(stream_id, headers, end_stream=last and not interim)
            stream.status = 0 if interim else status
            last = last and not interim
        elif self.draw.one_in(4):
            last = True
            self.h2.send_headers(stream_id, [(b"grpc-status", b"0")], end_stream=True)
        else:
            self._body(stream_id, stream, last=last)
        if last:
            stream.end = End.RESPONSE

    def _body(self, stream_id: int, stream: Stream, *, last: bool) -> None:
        padding = self.draw.choice((None, 0, 7, 255))
        octets = self.draw.choice((0, 1, 30, 500, 9_000))
        room = self.h2.local_flow_control_window(stream_id) - (0 if padding is None else padding + 1)
        if room < octets:
            padding, octets = None, 0
        self.h2.send_data(stream_id, b"b" * octets, end_stream=last, pad_length=padding)
        stream.answer += b"b" * octets

    def _reset(self) -> None:
        found = self._open()
        if found is not None:
            stream_id, stream = found
            stream.code = self.draw.choice((0, 2, 7, 8, 11))
            stream.end = End.UNPROCESSED if stream.code == 7 else End.RESET
            self.h2.reset_stream(stream_id, stream.code)

    def _open_windows(self) -> None:
        increment = self.draw.choice((1, 1_000, 60_000, 2**20))
        if self.h2.inbound_flow_control_window + increment < 2**30:
            self.h2.increment_flow_control_window(increment)
        found = self._open()
        if found is not None and not found[1].whole:
            window = self.h2.remote_flow_control_window(found[0])
            if window + increment < 2**30:
                self.h2.increment_flow_control_window(increment, found[0])

    def _settings(self) -> None:
        codes = [code for code in VALUES if self.draw.flag()]
        if self._asked:
            return
        self._asked = True
        self.h2.update_settings({code: self.draw.choice(VALUES[code]) for code in codes})

    def _goaway(self) -> None:
        """Not through h2, which would take no more part in the connection."""
        if not self.draw.one_in(4):
            return
        self.goaway = min(self.goaway, self.draw.choice((MAX_31_BITS, *self.streams)))
        self._cut_out()
        self._out += GoAwayFrame(0, last_stream_id=self.goaway, error_code=0, additional_data=b"{}").serialize()
        for number, stream in self.streams.items():
            if number > self.goaway and not stream.end:
                stream.end = End.UNPROCESSED

    def _noise(self) -> None:
        self._cut_out()
        self._out += self.draw.choice((b"\0\0\2\xf1\7\0\0\0\3hi", PriorityFrame(7).serialize()))

    # Frames cut anew

    def _cut_out(self) -> None:
        for frame in frames_in(self.h2.data_to_send()):
            if isinstance(frame, HeadersFrame) and self.draw.one_in(3):
                self._out += b"".join(part.serialize() for part in self._cut_headers(frame))
            elif isinstance(frame, DataFrame) and frame.pad_length == 0 and len(frame.data) > 1 and self.draw.one_in(3):
                half = len(frame.data) // 2
                first = DataFrame(frame.stream_id, data=frame.data[:half])
                rest = DataFrame(frame.stream_id, data=frame.data[half:], flags=list(frame.flags))
                self._out += first.serialize() + rest.serialize()
            else:
                self._out += frame.serialize()

    def _cut_headers(self, frame: HeadersFrame) -> Iterator[Frame]:
        flags = [flag for flag in frame.flags if flag != "END_HEADERS"]
        first = self.draw.number(len(frame.data) + 1)
        second = first + self.draw.number(len(frame.data) - first + 1)
        yield HeadersFrame(frame.stream_id, data=frame.data[:first], flags=[*flags, "PADDED"], pad_length=3)
        yield ContinuationFrame(frame.stream_id, data=frame.data[first:second])
        yield ContinuationFrame(frame.stream_id, data=frame.data[second:], flags=["END_HEADERS"])


def _wholes(data: bytes) -> Iterator[bytes]:
    """One frame at a time, for what an acknowledgement of settings changes counts from the next frame on."""
    while data:
        octets = HEAD_OCTETS + int.from_bytes(data[:3], "big")
        yield data[:octets]
        data = data[octets:]


class Meeting:
    """A client and that server; what they say crosses."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.client = Connection(b"example.com", indexing=draw.flag())
        self.server = Server(draw)
        self.started: list[Exchange] = []
        self.ended: list[Exchange] = []
        self.now = 0

    def run(self) -> None:
        while self.draw.left:
            action = self.draw.number(8)
            if action <= 1:
                self._request()
            elif action == 2:
                self._give_up()
            elif action <= 4:
                self.server.act()
            else:
                self._carry(self.draw.choice(PIECES))
            self.now += 1
        for _ in range(4):
            self._carry(1 << 30)
        self.ended += self.client.lost()

    def _request(self) -> None:
        room = min(self.client.room(), self.draw.number(5))
        fresh = [self._an_exchange(b"%d" % (len(self.started) + n)) for n in range(room)]
        self.client.request(fresh, self.now)
        self.started += fresh

    def _an_exchange(self, number: bytes) -> Exchange:
        body = b"y" * self.draw.choice(BODIES)
        literals = literal_field(b"apns-id", number)
        return Exchange(number, self.draw.choice(KINDS), b"/3/device/" + number, literals, body)

    def _give_up(self) -> None:
        action = self.draw.number(16)
        if action == 0:
            self.ended += self.client.expire(self.now - 200)
        elif action == 1 and self.started:
            self.ended += self.client.cancel(self.draw.choice(self.started))
        elif action == 2 and not self.client.ping_pending:
            self.client.ping()
        elif action == 3:
            self.ended += self.client.retire()

    def _carry(self, octets: int) -> None:
        to_client = self.server.said(octets)
        self.server.hear(self.client.take_output(self.now))
        self.ended += self.client.receive(to_client)


def meeting(data: bytes) -> None:
    met = Meeting(Draw(data))
    met.run()
    assert len(met.ended) == len(met.started)
    assert {id(exchange) for exchange in met.ended} == {id(exchange) for exchange in met.started}
    for exchange in met.started:
        stream = met.server.streams.get(exchange.stream_id)
        if stream is None:
            assert exchange.end in (End.UNPROCESSED, End.LOST)
            assert exchange.end is End.UNPROCESSED or exchange.stream_id
        else:
            _check_request(exchange, stream)
            _check_end(exchange, stream)


def _check_request(exchange: Exchange, stream: Stream) -> None:
    headers = dict(stream.headers)
    assert headers[b":path"] == exchange.path
    assert headers[b"apns-id"] == exchange.subject
    assert stream.headers[4:6] == list(exchange.fields.pairs)
    assert exchange.body == stream.body if stream.whole else exchange.body.startswith(stream.body)


def _check_end(exchange: Exchange, stream: Stream) -> None:
    if exchange.end is End.TIMEOUT:
        return  # the answer may have been on its way
    if exchange.end is End.RESPONSE and len(exchange.body_in) == MAX_BODY and stream.end is not End.RESPONSE:
        assert stream.answer.startswith(exchange.body_in)  # cut, because it is too long
        return
    if exchange.end is End.LOST:
        assert stream.end in (End.OPEN, End.TIMEOUT)
        return
    assert exchange.end is stream.end
    if exchange.end is End.RESPONSE:
        assert (exchange.status, exchange.body_in) == (stream.status, stream.answer[:MAX_BODY])
    else:
        assert exchange.error_code == stream.code
