"""One HTTP/2 connection as a client, without I/O: bytes in, bytes out, ended exchanges out (RFC 9113).

Theory. A library that runs a state machine for each stream spends some 300 us on a request. Ours are all alike: one
POST, one short answer. So h2 keeps what is intricate and rare on stream 0 (`stream_0`), while requests are packed
(`outbound`) and answers are parsed here.

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
from typing import Final

from pusher.providers.http2.exchange import End, Exchange
from pusher.providers.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEAD_OCTETS,
    HEADERS,
    MAX_31_BITS,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
)
from pusher.providers.http2.header_block import (
    STATUS_200,
    TABLE_SIZE_0,
    Fields,
    HeaderBlockError,
    PeerIndexes,
    ResponseBlocks,
    literal_field,
)
from pusher.providers.http2.inbound import HeaderBlock, HeaderBlocks, goaway, number, unpadded
from pusher.providers.http2.outbound import INITIAL_WINDOW, Outbound
from pusher.providers.http2.stream_0 import ConnectionFailed, Stream0

MAX_BODY: Final = 16 * 1024
"""Octets of an answer's body that are kept; a longer one is cut and its stream cancelled."""
MAX_FRAME: Final = 16 * 1024
"""Octets of the largest frame that we receive (the protocol's default)."""
RECEIVE_WINDOW: Final = 1024 * 1024
"""Octets that the peer may send before we acknowledge some."""
MAX_QUEUED_FRAMES: Final = 100_000
"""A peer that makes us queue more frames than this without reading them is cut off."""
MAX_IDLE_COST: Final = 20_000
"""What may come between two `breathe` without ending a request, in units of some 10 us of work: a frame costs one, a
setting `SETTING_COST`, a decoded field one, `OCTETS_A_UNIT` octets one. A peer that sends more only costs time."""
SETTING_COST: Final = 4
OCTETS_A_UNIT: Final = 500
OUTPUT_OCTETS: Final = 48 * 1024
"""About how much `take_output` packs at once."""

_WHOLE_ANSWER: Final = END_HEADERS | END_STREAM


class Connection:
    """The engine. Single owner; no method waits. `authority` goes into every request.

    `indexing` lets the peer index its answers' header fields: dearer, and needed only for a peer that does so
    although it was told not to (`peer_indexes` says so after a failure). `wanted` is the name of a header that is read
    whatever the status, b"" for none; others may stay unread, as `Exchange` says.
    """

    def __init__(self, authority: bytes, *, indexing: bool = False, wanted: bytes = b"") -> None:
        self.ready = False
        """The peer's first SETTINGS have come."""
        self.retiring = False
        """No new streams: GOAWAY came, we retired the connection, or the stream ids are used up."""
        self.goaway_code: int | None = None
        self.goaway_reason = b""
        """The debug data of the peer's GOAWAY; Apple writes JSON with a `reason`."""
        self.peer_indexes = False
        self._responses = ResponseBlocks(indexing=indexing, wanted=wanted)
        self._stream_0 = Stream0(self._responses.table_octets)
        self._outbound = Outbound(authority)
        self._outbound.queue.append(self._stream_0.take())
        self._outbound.acknowledge(RECEIVE_WINDOW - INITIAL_WINDOW)
        self._waiting: deque[Exchange] = deque()
        self._streams: dict[int, Exchange] = {}
        self._ended: list[Exchange] = []
        self._max_streams = 0
        self._unacknowledged = 0
        self._idle_cost = 0
        self._rest = b""
        self._blocks = HeaderBlocks()
        self._closed = False
        self._on_frame: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            RST_STREAM: self._on_rst_stream,
            PUSH_PROMISE: self._on_push_promise,
            WINDOW_UPDATE: self._on_window_update,
        }

    # Requests

    @property
    def in_flight(self) -> int:
        """Exchanges that have not ended."""
        return len(self._streams) + len(self._waiting)

    @property
    def has_output(self) -> bool:
        """Whether `take_output` may have something."""
        return bool(self._outbound.queue or self._waiting)

    def room(self) -> int:
        """How many requests may be handed over now."""
        outbound = self._outbound
        if not self.ready or self.retiring or outbound.window <= 0:
            return 0
        return max(0, min(self._max_streams - len(self._streams), outbound.ids_left) - len(self._waiting))

    def request(self, exchanges: Iterable[Exchange], now: float) -> None:
        """Queue requests; the caller has seen that there is `room`. `now` is monotonic, in seconds."""
        for exchange in exchanges:
            exchange.sent_at = now
            self._waiting.append(exchange)

    def take_output(self, now: float) -> bytes:
        """What is to be written now, b"" for nothing; whatever it holds counts as handed to TLS at `now`."""
        outbound, waiting, streams = self._outbound, self._waiting, self._streams
        octets = 0
        while (
            waiting
            and not self._closed  # nothing follows our GOAWAY
            and octets < OUTPUT_OCTETS
            and outbound.window > 0
            and len(streams) < self._max_streams
            and outbound.next_id <= MAX_31_BITS
        ):
            exchange = waiting.popleft()
            exchange.sent_at = now
            octets += outbound.open(exchange)
            streams[exchange.stream_id] = exchange
        if not outbound.ids_left:
            self.retiring = True
        output = b"".join(outbound.queue)
        outbound.queue.clear()
        return output

    @property
    def ping_pending(self) -> bool:
        """A PING of ours has not been acknowledged."""
        return self._stream_0.ping_pending

    def ping(self) -> None:
        """Queue a PING."""
        if not self._closed:
            self._stream_0.ping()
            self._outbound.queue.append(self._stream_0.take())

    def close(self) -> None:
        """Queue a GOAWAY; nothing is sent or received after it."""
        if not self._closed:
            self._say_goaway(ErrorCode.NO_ERROR)

    def _say_goaway(self, code: int) -> None:
        self._closed = self.retiring = True
        self._stream_0.goaway(code)
        self._outbound.queue.append(self._stream_0.take())

    # Ends

    def cancel(self, exchange: Exchange) -> list[Exchange]:
        """Give up an exchange: TIMEOUT, or UNPROCESSED when it was never written. Empty when it had ended."""
        if exchange.end:
            return []
        if exchange.stream_id:
            self._outbound.reset(exchange.stream_id, ErrorCode.CANCEL)
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
        """Takes no more requests; unwritten ones end UNPROCESSED, open streams continue."""
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
            self._outbound.unsent.pop(exchange.stream_id, None)
        self._ended.append(exchange)

    def _respond(self, exchange: Exchange) -> None:
        if exchange.stream_id in self._outbound.unsent:  # answered before it was sent whole: our half is still open
            self._outbound.reset(exchange.stream_id, ErrorCode.CANCEL)
        self._end(exchange, End.RESPONSE)

    def _malformed(self, exchange: Exchange, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        """The received data is not valid HTTP: a stream error (RFC 9113, section 8.1.1)."""
        self._outbound.reset(exchange.stream_id, code)
        exchange.error_code = code
        self._end(exchange, End.RESET)

    def _return_waiting(self, keep: int) -> None:
        while len(self._waiting) > keep:
            self._end(self._waiting.pop(), End.UNPROCESSED)

    def _take_ended(self) -> list[Exchange]:
        ended, self._ended = self._ended, []
        return ended

    # Frames

    def receive(self, data: bytes) -> list[Exchange]:
        """Take what the peer sent; returns the exchanges that it ended, in order.

        Raises ConnectionFailed after queueing GOAWAY; what had ended until then is in `lost()`.
        """
        if self._closed:
            return []
        buffer = self._rest + data if self._rest else data
        try:
            self._rest = buffer[self._receive_frames(buffer) :]
        except ConnectionFailed as failed:
            self._say_goaway(failed.code)
            raise
        if self._ended:
            self._idle_cost = 0
        return self._take_ended()

    def breathe(self) -> None:
        """Call about once a second: a flood is what comes within it."""
        self._idle_cost = 0

    def _spend(self, cost: int) -> None:
        self._idle_cost += cost
        if self._idle_cost > MAX_IDLE_COST:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that answer no request")

    def _receive_frames(self, buffer: bytes) -> int:
        """Take the whole frames; returns where the rest begins."""
        available = len(buffer)
        position = 0
        unpack = HEAD.unpack_from
        streams, ended, unsent, blocks = self._streams, self._ended, self._outbound.unsent, self._blocks
        responses = self._responses
        wanted = responses.wants(buffer)
        fast = not (wanted or responses.indexing)
        while available - position >= HEAD_OCTETS:
            word, flags, stream_id = unpack(buffer, position)
            start = position + HEAD_OCTETS
            stop = start + (word >> 8)
            if word >> 8 > MAX_FRAME:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than we allow")
            if stop > available:
                break
            # The usual answer: one whole HEADERS frame that begins with ":status 200".
            if word & 0xFF == HEADERS and flags == _WHOLE_ANSWER and fast and stop - start > 1 and not blocks.open:
                first = buffer[start]
                if first == STATUS_200 or (first == TABLE_SIZE_0 and buffer[start + 1] == STATUS_200):
                    exchange = streams.get(stream_id)
                    if exchange is not None and not exchange.status and stream_id not in unsent:
                        if responses.keeps:
                            self._keep(buffer[start:stop])
                        exchange.status = 200
                        exchange.end = End.RESPONSE
                        del streams[stream_id]
                        ended.append(exchange)
                        position = stop
                        continue
            self._receive_frame(word & 0xFF, flags, stream_id & MAX_31_BITS, buffer[position:stop])
            fast = not (wanted or responses.indexing)
            position = stop
        return position

    def _receive_frame(self, kind: int, flags: int, stream_id: int, whole: bytes) -> None:
        payload = whole[HEAD_OCTETS:]
        self._spend(1 + len(payload) // OCTETS_A_UNIT)
        if not self.ready and kind != SETTINGS:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._blocks.open or kind == CONTINUATION:
            self._on_block(self._blocks.go_on(kind, stream_id, flags, payload))
        elif kind in (SETTINGS, PING):
            self._on_stream_0(whole)
        elif kind == GOAWAY:
            self._on_goaway(stream_id, payload)
        elif kind in self._on_frame:  # PRIORITY means nothing to a client, and unknown types must be ignored
            if stream_id or kind != WINDOW_UPDATE:
                self._refuse_idle(stream_id)
            self._on_frame[kind](stream_id, flags, payload)

    def _refuse_idle(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id >= self._outbound.next_id:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which we have not opened")

    def _on_push_promise(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - one signature
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we disabled")

    def _on_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._on_block(self._blocks.begin(stream_id, flags, payload))

    def _on_block(self, whole: HeaderBlock | None) -> None:
        """An interim answer, an answer or trailers."""
        if whole is None:
            return
        stream_id, flags, block = whole
        exchange = self._streams.get(stream_id)
        first = exchange is not None and not exchange.status
        headers: list[tuple[bytes, bytes]] = []
        status = self._responses.status(block) if first else 0
        if self._responses.indexing or (first and not status):
            headers = self._decode(block)  # with indexing even those of streams that we gave up
            status = _status(headers)
        elif self._responses.keeps:
            self._keep(block)
        if exchange is None:
            return
        if first:
            self._on_answer(exchange, flags, status, headers)
        elif flags & END_STREAM:
            self._respond(exchange)
        else:
            self._malformed(exchange)

    def _keep(self, block: bytes) -> None:
        try:
            self._responses.keep(block)
        except HeaderBlockError as error:
            raise self._undecodable(error) from error

    def _undecodable(self, error: HeaderBlockError) -> ConnectionFailed:
        self.peer_indexes = isinstance(error, PeerIndexes)
        return ConnectionFailed(ErrorCode.COMPRESSION_ERROR, f"header block: {error}")

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        try:
            headers = self._responses.decode(block)
        except HeaderBlockError as error:
            raise self._undecodable(error) from error
        self.peer_indexes = self._responses.indexing
        self._spend(len(headers))
        return headers

    def _on_answer(self, exchange: Exchange, flags: int, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if status < 100:
            self._malformed(exchange)
        elif status >= 200:
            exchange.status = status
            exchange.headers = headers
            if flags & END_STREAM:
                self._respond(exchange)
        elif flags & END_STREAM:  # an interim answer (1xx) cannot be the last one
            self._malformed(exchange)

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._acknowledge(len(payload))
        payload = unpadded(flags, payload)
        exchange = self._streams.get(stream_id)
        if exchange is None:
            return
        if not exchange.status:
            self._malformed(exchange)
            return
        exchange.body_in += payload
        if flags & END_STREAM:
            self._respond(exchange)
        elif len(exchange.body_in) > MAX_BODY:
            self._outbound.reset(stream_id, ErrorCode.CANCEL)
            self._end(exchange, End.RESPONSE)
        if len(exchange.body_in) > MAX_BODY:
            exchange.body_in = exchange.body_in[:MAX_BODY]

    def _acknowledge(self, octets: int) -> None:
        """DATA counts, padding included, whatever became of its stream."""
        self._unacknowledged += octets
        if self._unacknowledged >= RECEIVE_WINDOW // 2:
            self._outbound.acknowledge(self._unacknowledged)
            self._unacknowledged = 0

    def _on_rst_stream(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - one signature
        code = number(payload)
        exchange = self._streams.get(stream_id)
        if exchange is not None:
            exchange.error_code = code
            self._end(exchange, End.UNPROCESSED if code == ErrorCode.REFUSED_STREAM else End.RESET)

    def _on_window_update(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - one signature
        increment = number(payload) & MAX_31_BITS
        code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
        queued = len(self._outbound.queue)
        if not stream_id:
            if not increment or not self._outbound.widen(increment):
                raise ConnectionFailed(code, "a bad WINDOW_UPDATE")
        elif stream_id in self._outbound.unsent and not (
            increment and self._outbound.widen_stream(stream_id, increment)
        ):
            self._malformed(self._streams[stream_id], code)
            return
        if len(self._outbound.queue) > queued:
            self._idle_cost = max(0, self._idle_cost - 1)  # a body goes on: however small the window, that is no flood

    # Stream 0

    def _on_stream_0(self, whole: bytes) -> None:
        self._spend(SETTING_COST * ((len(whole) - HEAD_OCTETS) // 6))
        announced = self._stream_0.receive(whole)
        # The acknowledgement must precede every frame that makes use of the new settings.
        self._outbound.queue.append(self._stream_0.take())
        if len(self._outbound.queue) > MAX_QUEUED_FRAMES:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a flood of control frames")
        if announced:
            self._apply_settings()

    def _apply_settings(self) -> None:
        settings = self._stream_0.settings
        self.ready = True
        self._max_streams = settings.max_concurrent_streams
        if not self._outbound.apply(settings.initial_window_size, settings.max_frame_size, settings.header_table_size):
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS make a stream's window too large")
        self._return_waiting(keep=max(0, self._max_streams - len(self._streams)))

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        last_id, self.goaway_code, self.goaway_reason = goaway(stream_id, payload)
        self.retiring = True
        for exchange in [e for e in self._streams.values() if e.stream_id > last_id]:
            self._end(exchange, End.UNPROCESSED)
        self._return_waiting(keep=0)


def _status(headers: list[tuple[bytes, bytes]]) -> int:
    """Of an answer's fields; 0 where they do not begin with one (RFC 9113, section 8.3.2)."""
    name, value = headers[0] if headers else (b"", b"")
    return int(value) if name == b":status" and len(value) == 3 and value.isdigit() else 0


__all__ = ["MAX_BODY", "Connection", "ConnectionFailed", "End", "Exchange", "Fields", "literal_field"]
