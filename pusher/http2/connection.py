"""One HTTP/2 connection as a client, without I/O: bytes in, bytes out, ended exchanges out (RFC 9113).

Theory. A library that runs a state machine for each stream spends some 300 us on a request. Ours are all alike: one
POST, one short answer. So h2 keeps what is intricate and rare on stream 0 (preface, SETTINGS both ways with their
validation and acknowledgement, PING), while request streams, the windows and GOAWAY are packed and parsed here. GOAWAY
is not shown to h2: it would close its state machine and refuse the SETTINGS and PING of the streams still in flight.

A request is only queued by `request`. It becomes a stream (gets an id, has its header block packed) when
`take_output` takes it to be written, so "never written" is exact, and settings, GOAWAY and the header table always
apply in the order in which the peer sees our frames.

Rules. Nothing here waits, reads a clock or knows a socket. Everything that leaves leaves through `take_output`, in
order. Every exchange ends once, through `_end`, and is handed out once: by `receive`, `expire`, `cancel`, `retire` or
`lost`. What the peer does wrong on a stream ends that stream (RESET); what it does wrong on the connection raises
`ConnectionFailed`, after which only `take_output` (the GOAWAY) and `lost` are of use.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Never

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import PingAckReceived, RemoteSettingsChanged
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from pusher.http2.exchange import End, Exchange
from pusher.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEAD_OCTETS,
    HEADERS,
    MAX_31_BITS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    U32,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from pusher.http2.header_block import (
    MAX_LIST_OCTETS,
    STATUS_200,
    TABLE_SIZE_0,
    Fields,
    HeaderBlockError,
    PeerIndexes,
    RequestBlocks,
    ResponseBlocks,
    length,
    literal_field,
)

MAX_BODY: Final = 16 * 1024
"""Octets of an answer's body that are kept; a longer one is cut and its stream cancelled."""
MAX_FRAME: Final = 16 * 1024
"""Octets of the largest frame that we receive (the protocol's default)."""
MAX_BLOCK: Final = 32 * 1024
"""Octets of the largest header block that we collect from CONTINUATION frames."""
MAX_BLOCK_FRAMES: Final = 1024
RECEIVE_WINDOW: Final = 1024 * 1024
"""Octets that the peer may send before we acknowledge some."""
MAX_QUEUED_FRAMES: Final = 100_000
"""A peer that makes us queue more control frames than this without reading them is cut off."""
OUTPUT_OCTETS: Final = 48 * 1024
"""About how much `take_output` packs at once."""
INITIAL_WINDOW: Final = 65_535

_OPEN_FLAGS: Final = END_HEADERS | END_STREAM


class ConnectionFailed(Exception):  # noqa: N818 - it is what happened, not only an error of ours
    """The peer broke the protocol. `code` is the error code that our GOAWAY carries."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Unsent:
    """The rest of a body that waits for window."""

    __slots__ = ("body", "exchange", "window")

    def __init__(self, exchange: Exchange, window: int) -> None:
        self.exchange = exchange
        self.body = memoryview(exchange.body)
        self.window = window


class _Block:
    """A header block whose CONTINUATION frames have not all come."""

    __slots__ = ("flags", "frames", "payload", "stream_id")

    def __init__(self, stream_id: int, flags: int, payload: bytes) -> None:
        self.stream_id = stream_id
        self.flags = flags
        self.payload = bytearray(payload)
        self.frames = 1


class Connection:
    """The engine. Single owner; no method waits. `authority` goes into every request.

    `indexing` lets the peer index its answers' header fields: dearer, and needed only for a peer that does so
    although it was told not to (`peer_indexes` says so after a failure).
    """

    def __init__(self, authority: bytes, *, indexing: bool = False) -> None:
        self.ready = False
        """The peer's first SETTINGS have come."""
        self.retiring = False
        """No new streams: GOAWAY came, we retired the connection, or the stream ids are used up."""
        self.goaway_reason = b""
        """The debug data of the peer's GOAWAY; Apple writes JSON with a `reason`."""
        self.goaway_code: int | None = None
        self.peer_indexes = False
        self.ping_pending = False
        self._requests = RequestBlocks(authority)
        self._responses = ResponseBlocks(indexing=indexing)
        self._h2 = _stream_0(self._responses.table_octets)
        self._out: list[bytes] = [
            self._h2.data_to_send(),
            frame(WINDOW_UPDATE, 0, 0, U32.pack(RECEIVE_WINDOW - INITIAL_WINDOW)),
        ]
        self._waiting: deque[Exchange] = deque()
        self._streams: dict[int, Exchange] = {}
        self._unsent: dict[int, _Unsent] = {}
        self._ended: list[Exchange] = []
        self._next_id = 1
        self._last_id = MAX_31_BITS
        self._max_streams = 0
        self._max_frame = MAX_FRAME
        self._initial_window = INITIAL_WINDOW
        self._window = INITIAL_WINDOW
        self._received = 0
        self._rest = b""
        self._block: _Block | None = None
        self._closed = False
        self._on_frame: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            PRIORITY: self._ignore,
            RST_STREAM: self._on_rst_stream,
            PUSH_PROMISE: self._on_push_promise,
            WINDOW_UPDATE: self._on_window_update,
        }

    # Outbound

    @property
    def in_flight(self) -> int:
        """Exchanges that have not ended."""
        return len(self._streams) + len(self._waiting)

    @property
    def has_output(self) -> bool:
        """Whether `take_output` may have something."""
        return bool(self._out or self._waiting)

    def room(self) -> int:
        """How many requests may be handed over now."""
        if not self.ready or self.retiring or self._window <= 0:
            return 0
        ids_left = (MAX_31_BITS - self._next_id) // 2 + 1
        return max(0, min(self._max_streams - len(self._streams), ids_left) - len(self._waiting))

    def request(self, exchanges: Iterable[Exchange], now: float) -> None:
        """Queue requests; the caller has seen that there is `room`. `now` is monotonic, in seconds."""
        for exchange in exchanges:
            exchange.sent_at = now
            self._waiting.append(exchange)

    def take_output(self, now: float) -> bytes:
        """What is to be written now, b"" for nothing; whatever it holds counts as handed to TLS at `now`."""
        out, self._out = self._out, []
        waiting = self._waiting
        if waiting and not self._closed:
            size = 0
            streams = self._streams
            while waiting and size < OUTPUT_OCTETS and self._window > 0 and len(streams) < self._max_streams:
                exchange = waiting.popleft()
                exchange.sent_at = now
                size += self._pack(exchange, out)
            if self._next_id > MAX_31_BITS:
                self.retiring = True
        return b"".join(out)

    def _pack(self, exchange: Exchange, out: list[bytes]) -> int:
        """Open a stream; returns about how many octets it takes."""
        stream_id = self._next_id
        self._next_id = stream_id + 2
        exchange.stream_id = stream_id
        self._streams[stream_id] = exchange
        path, literals, body = exchange.path, exchange.literals, exchange.body
        head, tail = self._requests.head_and_tail(exchange.fields)
        path_length = length(path)
        block_octets = len(head) + len(path_length) + len(path) + len(tail) + len(literals)
        body_octets = len(body)
        largest = self._max_frame
        if 0 < body_octets <= self._initial_window and block_octets <= largest >= body_octets <= self._window:
            self._window -= body_octets
            out += (
                HEAD.pack(block_octets << 8 | HEADERS, END_HEADERS, stream_id),
                head,
                path_length,
                path,
                tail,
                literals,
                HEAD.pack(body_octets << 8, END_STREAM, stream_id),
                body,
            )
        else:
            block = b"".join((head, path_length, path, tail, literals))
            self._pack_block(stream_id, block, 0 if body else END_STREAM, out)
            if body:
                self._unsent[stream_id] = _Unsent(exchange, self._initial_window)
                self._send_body(stream_id, out)
        return block_octets + body_octets

    def _pack_block(self, stream_id: int, block: bytes, flags: int, out: list[bytes]) -> None:
        """A header block in as many frames as the peer's largest frame makes necessary."""
        largest = self._max_frame
        kind = HEADERS
        while len(block) > largest:
            out.append(frame(kind, flags, stream_id, block[:largest]))
            kind, flags, block = CONTINUATION, 0, block[largest:]
        out.append(frame(kind, flags | END_HEADERS, stream_id, block))

    def _send_body(self, stream_id: int, out: list[bytes]) -> None:
        unsent = self._unsent[stream_id]
        while (octets := min(len(unsent.body), unsent.window, self._window, self._max_frame)) > 0:
            part, unsent.body = unsent.body[:octets], unsent.body[octets:]
            unsent.window -= octets
            self._window -= octets
            out.append(frame(DATA, 0 if unsent.body else END_STREAM, stream_id, bytes(part)))
        if not unsent.body:
            del self._unsent[stream_id]

    def _send_bodies(self) -> None:
        for stream_id in list(self._unsent):
            if self._window <= 0:
                break
            self._send_body(stream_id, self._out)

    def ping(self) -> None:
        """Queue a PING; `ping_pending` falls when its acknowledgement comes."""
        if not self._closed:
            self.ping_pending = True
            self._h2.ping(b"pusher\0\0")
            self._out.append(self._h2.data_to_send())

    def close(self) -> None:
        """Queue a GOAWAY; nothing is sent or received after it."""
        if not self._closed:
            self._say_goaway(ErrorCode.NO_ERROR)

    def _say_goaway(self, code: int) -> None:
        self._closed = self.retiring = True
        self._h2.close_connection(code, last_stream_id=0)
        self._out.append(self._h2.data_to_send())

    def _fail(self, code: ErrorCode, message: str) -> Never:
        self._say_goaway(code)
        raise ConnectionFailed(code, message)

    # The ends

    def cancel(self, exchange: Exchange) -> list[Exchange]:
        """Give up an exchange: TIMEOUT, or UNPROCESSED when it was never written. Empty when it had ended."""
        if exchange.end:
            return []
        if exchange.stream_id:
            self._reset(exchange.stream_id, ErrorCode.CANCEL)
            self._end(exchange, End.TIMEOUT)
        else:
            self._waiting.remove(exchange)
            self._end(exchange, End.UNPROCESSED)
        return self._take_ended()

    def expire(self, before: float) -> list[Exchange]:
        """Cancel what was handed over before that time; see `cancel`."""
        expired = []
        for queue in (self._streams.values(), self._waiting):  # both are in the order of `sent_at`
            for exchange in queue:
                if exchange.sent_at >= before:
                    break
                expired.append(exchange)
        return [ended for exchange in expired for ended in self.cancel(exchange)]

    def retire(self) -> list[Exchange]:
        """Take no more requests; what was never written ends UNPROCESSED, open streams go on."""
        self.retiring = True
        self._return_waiting(keep=0)
        return self._take_ended()

    def lost(self) -> list[Exchange]:
        """The transport is gone: everything still open ends, LOST or (never written) UNPROCESSED."""
        self._closed = self.retiring = True
        for exchange in list(self._streams.values()):
            self._end(exchange, End.LOST)
        self._return_waiting(keep=0)
        return self._take_ended()

    def _end(self, exchange: Exchange, end: End) -> None:
        exchange.end = end
        if exchange.stream_id:
            del self._streams[exchange.stream_id]
            self._unsent.pop(exchange.stream_id, None)
        self._ended.append(exchange)

    def _respond(self, exchange: Exchange) -> None:
        if exchange.stream_id in self._unsent:  # answered before it was sent whole: our half of the stream is open
            self._reset(exchange.stream_id, ErrorCode.CANCEL)
        self._end(exchange, End.RESPONSE)

    def _malformed(self, exchange: Exchange, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        """What came is no HTTP: a stream error (RFC 9113, section 8.1.1)."""
        self._reset(exchange.stream_id, code)
        exchange.error_code = code
        self._end(exchange, End.RESET)

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        self._out.append(frame(RST_STREAM, 0, stream_id, U32.pack(code)))

    def _return_waiting(self, keep: int) -> None:
        while len(self._waiting) > keep:
            self._end(self._waiting.pop(), End.UNPROCESSED)

    def _take_ended(self) -> list[Exchange]:
        ended, self._ended = self._ended, []
        return ended

    # Inbound

    def receive(self, data: bytes) -> list[Exchange]:
        """Take what the peer sent; returns the exchanges that it ended, in order.

        Raises ConnectionFailed after queueing GOAWAY; what had ended until then is in `lost()`.
        """
        if self._closed:
            return []
        buffer = self._rest + data if self._rest else data
        available = len(buffer)
        position = 0
        unpack = HEAD.unpack_from
        streams = self._streams
        ended = self._ended
        fast = not self._responses.indexing
        while available - position >= HEAD_OCTETS:
            word, flags, stream_id = unpack(buffer, position)
            start = position + HEAD_OCTETS
            stop = start + (word >> 8)
            if stop > available:
                if word >> 8 > MAX_FRAME:
                    self._fail(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than we allow")
                break
            position = stop
            # The usual answer: one whole HEADERS frame that begins with ":status 200".
            if word & 0xFF == HEADERS and flags == _OPEN_FLAGS and fast and stop - start > 1 and self._block is None:
                first = buffer[start]
                if first == STATUS_200 or (first == TABLE_SIZE_0 and buffer[start + 1] == STATUS_200):
                    exchange = streams.get(stream_id)
                    if exchange is not None and not exchange.status and stream_id not in self._unsent:
                        exchange.status = 200
                        exchange.end = End.RESPONSE
                        del streams[stream_id]
                        ended.append(exchange)
                        continue
            self._receive_frame(word & 0xFF, flags, stream_id & MAX_31_BITS, buffer[start - HEAD_OCTETS : stop])
        self._rest = buffer[position:]
        return self._take_ended()

    def _receive_frame(self, kind: int, flags: int, stream_id: int, whole: bytes) -> None:
        octets = len(whole) - HEAD_OCTETS
        if octets > MAX_FRAME:
            self._fail(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than we allow")
        if not self.ready and kind != SETTINGS:
            self._fail(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block is not None or kind == CONTINUATION:
            self._on_continuation(kind, flags, stream_id, whole[HEAD_OCTETS:])
        elif kind in (SETTINGS, PING):
            self._on_stream_0(whole)
        elif kind == GOAWAY:
            self._on_goaway(stream_id, whole[HEAD_OCTETS:])
        elif kind in self._on_frame:  # unknown types must be ignored
            if kind != WINDOW_UPDATE or stream_id:
                self._refuse_idle(stream_id)
            self._on_frame[kind](stream_id, flags, whole[HEAD_OCTETS:])

    def _refuse_idle(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id >= self._next_id:
            self._fail(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which we have not opened")

    def _ignore(self, stream_id: int, flags: int, payload: bytes) -> None:
        """PRIORITY means nothing to a client."""

    def _on_push_promise(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - one signature
        self._fail(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we switched off")

    def _unpadded(self, flags: int, payload: bytes) -> bytes:
        if not flags & PADDED:
            return payload
        if not payload or payload[0] >= len(payload):
            self._fail(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
        return payload[1 : len(payload) - payload[0]]

    def _on_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        payload = self._unpadded(flags, payload)
        if flags & PRIORITISED:
            if len(payload) < 5:
                self._fail(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(stream_id, flags, payload)
        else:
            self._block = _Block(stream_id, flags, payload)

    def _on_continuation(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or kind != CONTINUATION or stream_id != block.stream_id:
            self._fail(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted, or continued without a beginning")
        block.payload += payload
        block.frames += 1
        if len(block.payload) > MAX_BLOCK or block.frames > MAX_BLOCK_FRAMES:
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, "a header block larger than we allow")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(stream_id, block.flags, bytes(block.payload))

    def _on_block(self, stream_id: int, flags: int, block: bytes) -> None:
        exchange = self._streams.get(stream_id)
        if self._responses.is_200(block):
            if exchange is not None and not exchange.status:
                exchange.status = 200
                self._end_if(flags, exchange)
                return
        elif exchange is not None or self._responses.indexing:
            headers = self._decode(block)
            if exchange is not None and not exchange.status:
                self._on_answer(exchange, flags, headers)
                return
        if exchange is None:  # a stream that we gave up
            return
        if flags & END_STREAM:  # trailers
            self._respond(exchange)
        else:
            self._malformed(exchange)

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        try:
            return self._responses.decode(block)
        except HeaderBlockError as error:
            self.peer_indexes = isinstance(error, PeerIndexes)
            self._fail(ErrorCode.COMPRESSION_ERROR, f"header block: {error}")

    def _on_answer(self, exchange: Exchange, flags: int, headers: list[tuple[bytes, bytes]]) -> None:
        name, status = headers[0] if headers else (b"", b"")
        if name != b":status" or len(status) != 3 or not status.isdigit() or status < b"100":
            self._malformed(exchange)
        elif status >= b"200":
            exchange.status = int(status)
            exchange.headers = headers
            self._end_if(flags, exchange)
        elif flags & END_STREAM:  # an interim answer (1xx) cannot be the last one
            self._malformed(exchange)

    def _end_if(self, flags: int, exchange: Exchange) -> None:
        if flags & END_STREAM:
            self._respond(exchange)

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._acknowledge(len(payload))
        payload = self._unpadded(flags, payload)
        exchange = self._streams.get(stream_id)
        if exchange is None:
            return
        if not exchange.status:
            self._malformed(exchange)
            return
        exchange.body_in += payload
        if len(exchange.body_in) > MAX_BODY:
            exchange.body_in = exchange.body_in[:MAX_BODY]
            self._unsent.pop(stream_id, None)
            self._reset(stream_id, ErrorCode.CANCEL)
            self._end(exchange, End.RESPONSE)
        else:
            self._end_if(flags, exchange)

    def _acknowledge(self, octets: int) -> None:
        """Give DATA back to the connection's window, padding included, whatever became of its stream."""
        self._received += octets
        if self._received >= RECEIVE_WINDOW // 2:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, U32.pack(self._received)))
            self._received = 0

    def _u32(self, payload: bytes) -> int:
        if len(payload) != 4:
            self._fail(ErrorCode.FRAME_SIZE_ERROR, "a frame of a wrong size")
        value: int = U32.unpack(payload)[0]
        return value

    def _on_rst_stream(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - one signature
        code = self._u32(payload)
        exchange = self._streams.get(stream_id)
        if exchange is not None:
            exchange.error_code = code
            self._end(exchange, End.UNPROCESSED if code == ErrorCode.REFUSED_STREAM else End.RESET)

    def _on_window_update(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - one signature
        increment = self._u32(payload) & MAX_31_BITS
        if not stream_id:
            self._window += increment
            if not increment or self._window > MAX_31_BITS:
                self._fail(
                    ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR, "a bad WINDOW_UPDATE"
                )
            self._send_bodies()
            return
        unsent = self._unsent.get(stream_id)
        if unsent is None:
            return
        unsent.window += increment
        if not increment or unsent.window > MAX_31_BITS:
            self._malformed(unsent.exchange, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)
        else:
            self._send_body(stream_id, self._out)

    # Stream 0

    def _on_stream_0(self, whole: bytes) -> None:
        try:
            events = self._h2.receive_data(whole)
        except ProtocolError as error:
            self._closed = self.retiring = True
            self._out.append(self._h2.data_to_send())  # h2 has queued the GOAWAY
            raise ConnectionFailed(error.error_code, str(error)) from error
        # The acknowledgement must precede every frame that makes use of the new settings.
        self._out.append(self._h2.data_to_send())
        if len(self._out) > MAX_QUEUED_FRAMES:
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, "a flood of control frames")
        for event in events:
            if isinstance(event, RemoteSettingsChanged):
                self._apply_settings()
            elif isinstance(event, PingAckReceived):
                self.ping_pending = False

    def _apply_settings(self) -> None:
        settings = self._h2.remote_settings
        self.ready = True
        self._max_frame = settings.max_frame_size
        self._max_streams = settings.max_concurrent_streams
        self._requests.limit_table(settings.header_table_size)
        delta = settings.initial_window_size - self._initial_window
        self._initial_window += delta
        for unsent in self._unsent.values():
            unsent.window += delta
            if unsent.window > MAX_31_BITS:
                self._fail(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS make a stream's window too large")
        if delta > 0:
            self._send_bodies()
        self._return_waiting(keep=max(0, self._max_streams - len(self._streams)))

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) < 8:
            self._fail(ErrorCode.FRAME_SIZE_ERROR if len(payload) < 8 else ErrorCode.PROTOCOL_ERROR, "a bad GOAWAY")
        self._last_id = min(self._last_id, U32.unpack_from(payload)[0] & MAX_31_BITS)
        self.goaway_code = U32.unpack_from(payload, 4)[0]
        self.goaway_reason = payload[8:]
        self.retiring = True
        for exchange in [e for e in self._streams.values() if e.stream_id > self._last_id]:
            self._end(exchange, End.UNPROCESSED)
        self._return_waiting(keep=0)


def _stream_0(table_octets: int) -> H2Connection:
    """h2, with our settings announced."""
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    h2.local_settings = Settings(
        client=True,
        initial_values={
            SettingCodes.HEADER_TABLE_SIZE: table_octets,
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_LIST_OCTETS,
        },
    )
    h2.initiate_connection()
    return h2


__all__ = ["MAX_BODY", "Connection", "ConnectionFailed", "End", "Exchange", "Fields", "literal_field"]
