"""What leaves a connection: requests packed into frames, within the peer's limits and windows (RFC 9113, 5.2, 6.9).

The usual request is a HEADERS and a DATA frame, packed at once. One whose body does not fit the windows or the peer's
largest frame keeps its rest in `unsent` and goes on when a window opens. A stream's window is only counted while it
has something unsent. `queue` holds the frames in the order in which they must leave.
"""

from typing import Final

from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    MAX_31_BITS,
    RST_STREAM,
    U32,
    WINDOW_UPDATE,
    frame,
)
from pusher.providers.http2.header_block import RequestBlocks, length

INITIAL_WINDOW: Final = 65_535
INITIAL_FRAME: Final = 16 * 1024


class _Unsent:
    """The rest of a body that waits for window."""

    __slots__ = ("body", "window")

    def __init__(self, body: bytes, window: int) -> None:
        self.body = memoryview(body)
        self.window = window


class Outbound:
    """The sending half of a connection. Every change of a window sends what it makes room for."""

    def __init__(self, authority: bytes) -> None:
        self.blocks = RequestBlocks(authority)
        self.queue: list[bytes] = []
        self.unsent: dict[int, _Unsent] = {}
        self.window = INITIAL_WINDOW
        self.next_id = 1
        self._initial_window = INITIAL_WINDOW
        self._max_frame = INITIAL_FRAME

    @property
    def ids_left(self) -> int:
        """Streams that can still be opened on this connection."""
        return max(0, (MAX_31_BITS - self.next_id) // 2 + 1)

    def open(self, exchange: Exchange) -> int:
        """Give the request a stream and pack it; returns about how many octets it takes."""
        stream_id = exchange.stream_id = self.next_id
        self.next_id = stream_id + 2
        path, literals, body = exchange.path, exchange.literals, exchange.body
        head, tail = self.blocks.head_and_tail(exchange.fields)
        path_length = length(path)
        block_octets = len(head) + len(path_length) + len(path) + len(tail) + len(literals)
        body_octets = len(body)
        largest = self._max_frame
        if 0 < body_octets <= self._initial_window and block_octets <= largest >= body_octets <= self.window:
            self.window -= body_octets
            self.queue += (
                HEAD.pack(block_octets << 8 | HEADERS, END_HEADERS, stream_id),
                head,
                path_length,
                path,
                tail,
                literals,
                HEAD.pack(body_octets << 8 | DATA, END_STREAM, stream_id),
                body,
            )
        else:
            self._queue_block(stream_id, b"".join((head, path_length, path, tail, literals)), last=not body)
            if body:
                self.unsent[stream_id] = _Unsent(body, self._initial_window)
                self._send_body(stream_id)
        return block_octets + body_octets

    def _queue_block(self, stream_id: int, block: bytes, *, last: bool) -> None:
        """A header block in as many frames as the peer's largest frame makes necessary."""
        kind, flags, largest = HEADERS, END_STREAM if last else 0, self._max_frame
        while len(block) > largest:
            self.queue.append(frame(kind, flags, stream_id, block[:largest]))
            kind, flags, block = CONTINUATION, 0, block[largest:]
        self.queue.append(frame(kind, flags | END_HEADERS, stream_id, block))

    def _send_body(self, stream_id: int) -> None:
        unsent = self.unsent[stream_id]
        while (octets := min(len(unsent.body), unsent.window, self.window, self._max_frame)) > 0:
            part, unsent.body = unsent.body[:octets], unsent.body[octets:]
            unsent.window -= octets
            self.window -= octets
            self.queue.append(frame(DATA, 0 if unsent.body else END_STREAM, stream_id, bytes(part)))
        if not unsent.body:
            del self.unsent[stream_id]

    def _send_bodies(self) -> None:
        for stream_id in list(self.unsent):
            if self.window <= 0:
                break
            self._send_body(stream_id)

    def widen(self, increment: int) -> bool:
        """WINDOW_UPDATE of the connection; False when the window would be too large."""
        self.window += increment
        if self.window > MAX_31_BITS:
            return False
        self._send_bodies()
        return True

    def widen_stream(self, stream_id: int, increment: int) -> bool:
        """WINDOW_UPDATE of a stream that has something unsent; False when its window would be too large."""
        self.unsent[stream_id].window += increment
        if self.unsent[stream_id].window > MAX_31_BITS:
            return False
        self._send_body(stream_id)
        return True

    def apply(self, initial_window: int, max_frame: int, table_octets: int) -> bool:
        """The peer's SETTINGS; False when a stream's window would be too large. A window may become negative."""
        self._max_frame = max_frame
        self.blocks.limit_table(table_octets)
        delta, self._initial_window = initial_window - self._initial_window, initial_window
        for unsent in self.unsent.values():
            unsent.window += delta
            if unsent.window > MAX_31_BITS:
                return False
        self._send_bodies()
        return True

    def reset(self, stream_id: int, code: int) -> None:
        """RST_STREAM; what is unsent of the stream is dropped."""
        self.unsent.pop(stream_id, None)
        self.queue.append(frame(RST_STREAM, 0, stream_id, U32.pack(code)))

    def acknowledge(self, octets: int) -> None:
        """Give received DATA back to the window of the connection."""
        self.queue.append(frame(WINDOW_UPDATE, 0, 0, U32.pack(octets)))
