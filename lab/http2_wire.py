"""The other end of a client connection, in memory: frames made by hand, or h2's server side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from pusher.providers.http2 import Connection, Exchange, Fields, literal_field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = Fields((b"authorization", b"bearer abc"), (b"apns-topic", b"com.example.game"))
PATH = b"/3/device/00ff"


def an_exchange(body: bytes = b"{}", fields: Fields = FIELDS, subject: object = None) -> Exchange:
    return Exchange(subject, fields, PATH, literal_field(b"apns-id", b"1"), body)


def frames_in(data: bytes) -> Iterator[Frame]:
    """Frames of an output; the preface is left out."""
    view = memoryview(data.removeprefix(PREFACE))
    while view:
        frame, octets = Frame.parse_frame_header(view[:9])
        frame.parse_body(view[9 : 9 + octets])
        view = view[9 + octets :]
        yield frame


def settings(values: dict[int, int] | None = None) -> bytes:
    return SettingsFrame(0, settings=values or {}).serialize()


def window_update(stream_id: int, increment: int) -> bytes:
    frame = WindowUpdateFrame(stream_id, window_increment=1)
    frame.window_increment = increment
    return frame.serialize()


USUAL = b"\x88" + literal_field(b"apns-id", b"x")
"""The header block of an answer: status 200."""


def answer(stream_id: int, block: bytes = USUAL, flags: Iterable[str] = ("END_STREAM", "END_HEADERS")) -> bytes:
    return HeadersFrame(stream_id, data=block, flags=list(flags)).serialize()


def block(*headers: tuple[bytes, bytes]) -> bytes:
    """A header block that makes no use of a table."""
    return hpack.Encoder().encode([(name, value, True) for name, value in headers])


class Wire:
    """A client connection and a server that is written by hand; requests are decoded as a strict server would."""

    def __init__(self, announced: dict[int, int] | None = None, *, indexing: bool = False) -> None:
        self.client = Connection(b"example.com", indexing=indexing)
        self.decoder = hpack.Decoder()
        self.preface = self.client.take_output(0.0)
        self.receive(settings(announced))
        self.out()

    def send(self, *exchanges: Exchange, now: float = 0.0) -> list[Frame]:
        self.client.request(exchanges, now)
        return self.out(now)

    def out(self, now: float = 0.0) -> list[Frame]:
        frames: list[Frame] = []
        while output := self.client.take_output(now):
            frames += frames_in(output)
        return frames

    def receive(self, *frames: bytes) -> list[Exchange]:
        return self.client.receive(b"".join(frames))

    def headers(self, frames: Iterable[Frame]) -> list[tuple[bytes, bytes]]:
        """The one request's header list in these frames."""
        data = b"".join(frame.data for frame in frames if hasattr(frame, "data") and frame.type in (1, 9))
        return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(data, raw=True)]


class Pair:
    """A client connection and h2's server side, joined."""

    def __init__(self, *, indexing: bool = False) -> None:
        self.client = Connection(b"example.com", indexing=indexing)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.server.initiate_connection()
        self.headers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytes] = {}
        self.complete: list[int] = []
        self.resets: list[int] = []
        self.now = 0.0

    def pump(self) -> list[Exchange]:
        """Carry bytes both ways until nothing is left; returns the exchanges that ended."""
        ended: list[Exchange] = []
        while True:
            to_server = self.client.take_output(self.now)
            if to_server:
                for event in self.server.receive_data(to_server):
                    self._note(event)
            to_client = self.server.data_to_send()
            if to_client:
                ended += self.client.receive(to_client)
            if not to_server and not to_client:
                return ended

    def _note(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            assert event.stream_id is not None
            self.headers[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            self.bodies[event.stream_id] = b""
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None
            self.bodies[event.stream_id] += event.data or b""
            if event.flow_controlled_length:
                self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            assert event.stream_id is not None
            self.complete.append(event.stream_id)
        elif isinstance(event, StreamReset):
            assert event.stream_id is not None
            self.resets.append(event.stream_id)

    def respond(self, stream_id: int, status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
        self.server.send_headers(stream_id, [(b":status", b"%d" % status), *headers], end_stream=not body)
        if body:
            self.server.send_data(stream_id, body, end_stream=True)
