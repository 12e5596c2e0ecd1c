"""A server that sends anything over HTTP/2: the connection ends each request once, says GOAWAY, and stays small."""

from __future__ import annotations

import random
import struct

from hyperframe.frame import GoAwayFrame

from lab.http2_wire import frames_in
from pusher.providers.http2 import MAX_BODY, Connection, ConnectionFailed, End, Exchange, Fields, literal_field
from pusher.providers.http2.connection import MAX_FRAME, RECEIVE_WINDOW
from pusher.providers.http2.frames import HEAD_OCTETS
from pusher.providers.http2.inbound import MAX_BLOCK
from tests.fuzz.draw import Draw

KINDS = [Fields((b"authorization", b"bearer %d" % n), (b"apns-topic", b"t" * 40 * n)) for n in range(12)]
BODIES = (b"{}", b"x" * 300, b"", b"y" * 20_000)
SPLITS = (7, 9, 10, 100, 1000, 100_000)
#: Octets that one octet of input may make us write: the answer to a PING is as large as the question.
MOST_OUT = 8
#: A server needs at least these to free a place for the next request.
OCTETS_A_REQUEST = 1_000


class Client:
    """A connection that always has as many requests as there is room for."""

    def __init__(self, draw: Draw) -> None:
        flags = draw.number(256)
        self.connection = Connection(b"example.com", indexing=flags & 1 == 1)
        self.body = BODIES[flags >> 1 & 3]
        self.split = SPLITS[(flags >> 3 & 7) % len(SPLITS)]
        self.started: list[Exchange] = []
        self.ended: list[Exchange] = []
        self.octets_in = self.octets_out = self.requested = 0
        self.now = 0.0

    def hear(self, data: bytes) -> bool:
        """Takes the server's bytes in pieces; False when the connection has failed."""
        for position in range(0, len(data), self.split):
            self._request()
            piece = data[position : position + self.split]
            self.octets_in += len(piece)
            try:
                self.ended += self.connection.receive(piece)
            except ConnectionFailed:
                last = list(frames_in(self.connection.take_output(self.now)))[-1]
                assert isinstance(last, GoAwayFrame)
                assert self.connection.receive(b"anything") == []
                return False
            self._stays_small()
        return True

    def _request(self) -> None:
        room = min(self.connection.room(), 8)
        fresh: list[Exchange] = []
        for _ in range(room):
            number = len(self.started) + len(fresh)
            literals = literal_field(b"apns-id", b"%d" % number)
            fresh.append(Exchange(number, KINDS[number % len(KINDS)], b"/3/device/00", literals, self.body))
            self.requested += len(self.body) + OCTETS_A_REQUEST
        self.connection.request(fresh, self.now)
        self.started += fresh
        self.octets_out += len(self.connection.take_output(self.now))
        self.now += 1.0

    def give_up(self, draw: Draw) -> None:
        """What a sender does beside reading."""
        action = draw.number(5)
        if action == 0 and self.started:
            self.ended += self.connection.cancel(draw.choice(self.started))
        elif action == 1:
            self.ended += self.connection.expire(self.now - draw.number(10))
        elif action == 2 and not self.connection.ping_pending:
            self.connection.ping()
        elif action == 3 and draw.one_in(16):
            self.ended += self.connection.retire()

    def _stays_small(self) -> None:
        connection = self.connection
        assert len(connection._rest) < HEAD_OCTETS + MAX_FRAME
        assert len(connection._blocks._collected) <= MAX_BLOCK + MAX_FRAME
        assert connection._unacknowledged < RECEIVE_WINDOW
        queued = sum(map(len, connection._outbound.queue))
        assert queued + self.octets_out <= MOST_OUT * self.octets_in + self.requested + 1_000

    def finish(self) -> None:
        self.ended += self.connection.lost()
        assert len(self.ended) == len(self.started)
        assert {id(exchange) for exchange in self.ended} == {id(exchange) for exchange in self.started}
        assert self.connection.in_flight == 0
        for exchange in self.ended:
            assert exchange.end is not End.OPEN
            assert len(exchange.body_in) <= MAX_BODY
            assert (200 <= exchange.status <= 999) or exchange.end is not End.RESPONSE


def octets(data: bytes) -> None:
    """A transcript of a server."""
    draw = Draw(data)
    client = Client(draw)
    client.hear(draw.rest())
    client.finish()


def frames(data: bytes) -> None:
    """Frames of any kind, flags, stream and content, most of them well-formed, while the client does what it does."""
    draw = Draw(data)
    client = Client(draw)
    alive = client.hear(_frame(4, 0, 0, b"\0\3\0\0\0\x14") if draw.number(8) else b"")
    while alive and draw.left:
        if draw.number(8) == 0:
            client.give_up(draw)
        alive = client.hear(_any_frame(draw, len(client.started)))
    client.finish()


#: Header blocks and parts of some.
BLOCKS = (
    b"\x88",
    b"\x20\x88",
    b"\x88\x00\x07apns-id\x01x",
    b"\x08\x03400",
    b"\x08\x03103",
    b"\x08\x0310",
    b"\x8d\x0f\x0d\x0210",
    b"\x3f\xe1\x1f\x88",
    b"\x48\x03200",
    b"\xbe",
    b"\x00\x01t\x01v",
    b"\x08\x03\xff\xff\xff",
    b"",
)
PAYLOADS = (b"", b"\0" * 4, b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\0" * 8, b"\x80\0\0\7\0\0\0\7", b"{}" * 40, b"\xff" * 6)
SETTINGS = ((1, 0), (1, 60), (1, 70_000), (2, 0), (2, 1), (3, 0), (3, 1), (3, 100), (4, 0), (4, 10), (4, 2**31 - 1))
MORE_SETTINGS = ((4, 2**31), (5, 16_384), (5, 2**24 - 1), (5, 1), (6, 0), (8, 1), (8, 2), (0, 0), (0xFFFF, 7))


def _any_frame(draw: Draw, streams: int) -> bytes:
    kind = draw.choice((0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 0xF1))
    stream_id = 2 * draw.number(max(1, streams)) + 1
    if draw.one_in(10):
        stream_id = draw.choice((0, 2, 2**31 - 1, 2**31 + 1, stream_id + 100))
    flags = draw.choice((0, 1, 4, 5, 5, 5, 8, 9, 12, 13, 32, 37, 45, draw.number(256)))
    if kind in (4, 6, 7) or (kind == 8 and draw.flag()):
        stream_id = stream_id if draw.one_in(10) else 0
        flags = draw.choice((0, 0, 0, 1))
    return _frame(kind, flags, stream_id, _payload(draw, kind, flags))


def _payload(draw: Draw, kind: int, flags: int) -> bytes:
    if draw.one_in(10):
        return draw.short()
    if kind == 4 and not flags & 1:
        values = [draw.choice(SETTINGS + MORE_SETTINGS) for _ in range(draw.number(5))]
        return b"".join(struct.pack(">HI", *value) for value in values)
    if kind in (1, 5, 9):
        content = b"".join(draw.choice(BLOCKS) for _ in range(1 + draw.number(3)))
    elif kind == 0:
        content = b"d" * draw.choice((0, 1, 300, 16_000))
    elif kind in (3, 8):
        content = struct.pack(">I", draw.choice((0, 1, 7, 8, 11, 1000, 65_535, 2**31 - 1, 2**32 - 1)))
    elif kind == 7:
        content = struct.pack(">II", draw.choice((0, 1, 5, 2**31 - 1)), draw.number(14)) + draw.octets(draw.number(20))
    else:
        content = draw.choice(PAYLOADS)
    if kind in (0, 1) and flags & 0x20:
        content = b"\0\0\0\0\0" + content
    if kind in (0, 1) and flags & 8:
        padding = draw.number(9)
        content = bytes((padding,)) + content + b"\0" * padding
    return content


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream_id) + payload


def mutate(data: bytes, source: random.Random) -> bytes:
    """A transcript with its frames changed in ways that keep most of them whole."""
    head, found = data[:1], list(_frames_of(data[1:]))
    if not found or len(found[-1]) <= HEAD_OCTETS:
        return data
    place = source.randrange(len(found))
    action = source.randrange(6)
    if action == 0:
        found.insert(source.randrange(len(found) + 1), found[place])
    elif action == 1:
        del found[place]
    elif action == 2:
        other = source.randrange(len(found))
        found[place], found[other] = found[other], found[place]
    else:
        frame = bytearray(found[place])
        if action == 3:
            frame[source.choice((3, 4, 8))] ^= 1 << source.randrange(8)
        elif action == 4:
            frame[5:9] = struct.pack(">I", source.choice((0, 1, 3, 5, 7, 2**31 - 1)))
        else:
            payload = bytearray(frame[9:])
            payload[source.randrange(len(payload) + 1) :] = source.choice((*BLOCKS, *PAYLOADS))
            frame = bytearray(_frame(frame[3], frame[4], 0, bytes(payload))[:5]) + frame[5:9] + payload
        found[place] = bytes(frame)
    return head + b"".join(found)


def _frames_of(data: bytes) -> list[bytes]:
    found = []
    while len(data) >= HEAD_OCTETS:
        octets = HEAD_OCTETS + int.from_bytes(data[:3], "big")
        found.append(data[:octets])
        data = data[octets:]
    return [*found, data] if data else found
