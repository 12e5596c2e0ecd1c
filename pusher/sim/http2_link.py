"""The server's end of one HTTP/2 connection, on hyper-h2: correct by default, wrong on request.

h2 judges every byte the client sends; what it refuses ends the connection and is listed in `protocol_errors`. Frames
that h2 would not send, or only at the price of its own state, are made with hyperframe: GOAWAY with work going on after
it, header blocks cut into CONTINUATION, padded HEADERS. One greenlet reads, one writes; a complete request goes to the
service, which answers through the link, at once or later.

Rule: nothing here knows what a push is, and nothing here is shared with the sender's own HTTP/2 code.
"""

import os
import socket
import ssl
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.events import Event as ProtocolEvent
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

from pusher.sim.schedule import Schedule
from pusher.sim.shape import PLAIN, Shape, reshaped

#: Last-stream-id of a GOAWAY that announces an end without refusing anything yet (RFC 9113, 6.8).
ALL_STREAMS = 2**31 - 1
#: Receive window of a connection, in bytes: never what limits a client, unless windows are made small on purpose.
CONNECTION_WINDOW = 2**24
#: How long a half-closed connection waits for the client's end of it.
LINGER_S = 15.0
READ_BYTES = 65536


@dataclass(frozen=True)
class Service:
    """What all links of one server share: its limits, its records, and `serve`, which gets each complete request.

    `first_streams` is announced instead of max_streams to new connections, until the service announces more;
    `initial_window` is the bytes a client may send on a stream before WINDOW_UPDATE (None: the protocol's 65535).
    """

    serve: Callable[["Request"], None]
    max_streams: int
    first_streams: int | None
    initial_window: int | None
    schedule: Schedule = field(default_factory=Schedule)
    counts: Counter[str] = field(default_factory=Counter)
    protocol_errors: deque[str] = field(
        default_factory=lambda: deque(maxlen=1000)
    )  #: what clients did against the protocol


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    shape: Shape = PLAIN


@dataclass(slots=True)
class Request:
    """A complete request. Header names are lower case; of a name given twice the last value stands in `headers`."""

    link: "Link"
    stream_id: int
    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    repeated: tuple[bytes, ...]
    body: bytes = b""
    _chunks: list[bytes] = field(default_factory=list)

    def add(self, chunk: bytes) -> None:
        """Takes one DATA frame's content."""
        self._chunks.append(chunk)

    def complete(self) -> None:
        """Joins what was received into `body`."""
        self.body = b"".join(self._chunks)
        self._chunks.clear()


class ServerConnection(H2Connection):
    """h2's server side with three habits changed: streams are counted by the link (h2 walks over all streams for each
    new one, and ends the connection where RFC 9113, 5.1.2 allows to refuse the stream), and a GOAWAY from the client
    does not end the streams that are open.
    """

    SWEEP_EVERY = 128

    def __init__(self, max_streams: int) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False))
        self.local_settings = Settings(
            client=False,
            initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: max_streams, SettingCodes.MAX_HEADER_LIST_SIZE: 65536},
        )
        self._until_sweep = self.SWEEP_EVERY

    @property
    def open_inbound_streams(self) -> int:
        """Nothing, as far as h2's own limit goes; h2 drops closed streams while it counts, so let it now and then."""
        self._until_sweep -= 1
        if not self._until_sweep:
            self._until_sweep = self.SWEEP_EVERY
            self._open_streams(1)
        return 0

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[ProtocolEvent]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        return [], [event]


class Link:
    """The server's end of one connection. Methods are called from greenlets of this server and never wait."""

    def __init__(self, sock: ssl.SSLSocket, service: Service) -> None:
        self.service = service
        self.peer_certificate = sock.getpeercert()
        self.memory: Any = None  #: whatever the service remembers about this client
        self.highest_served = 0  #: newest stream that was handed to the service, before the one it has in hand
        self._sock = sock
        self._h2 = ServerConnection(service.max_streams if service.first_streams is None else service.first_streams)
        self._out: list[bytes] = []
        self._wake = Event()
        self._thawed = Event()
        self._thawed.set()
        self._open: dict[int, Request] = {}
        self._unsent: dict[int, tuple[bytes, Shape]] = {}
        self._last_stream_id = ALL_STREAMS
        self._torn: tuple[bytes, Callable[[], object]] | None = None
        self._announced: dict[SettingCodes, int] = {}  # without what was announced for a while only
        self._draining = self._closing = self._cut = False

    # ---- what a service may do

    @property
    def open_streams(self) -> int:
        """Requests that have begun and have no complete answer."""
        return len(self._open)

    @property
    def highest_stream_id(self) -> int:
        """The newest stream the client has opened."""
        return self._h2.highest_inbound_stream_id

    def respond(self, stream_id: int, answer: Reply) -> None:
        """Answers a request; nothing happens when the stream or the connection is gone."""
        if stream_id not in self._open or self._cut:
            return
        shape = answer.shape
        if shape.interim:
            self._h2.send_headers(stream_id, [(b":status", b"%d" % shape.interim)])
        headers = [(b":status", b"%d" % answer.status), *answer.headers]
        if shape.continuation or shape.padding:
            self._drain_h2()
        self._h2.send_headers(stream_id, headers, end_stream=not (answer.body or shape.trailers))
        if shape.continuation or shape.padding:
            self._out.append(reshaped(self._h2.data_to_send(), shape))
        self._unsent[stream_id] = (answer.body, shape)
        self._send_body(stream_id)
        self._wake.set()

    def tear(self, stream_id: int, answer: Reply, octets: int, then: Callable[[], object]) -> None:
        """Answers, but only so many octets of the answer go out before `then` is called; wholly while one is torn."""
        if stream_id not in self._open or self._cut:
            return
        if self._torn is not None:
            self.respond(stream_id, answer)
            return
        self._drain_h2()
        self.respond(stream_id, answer)
        before = len(b"".join(self._out)) + octets
        self._drain_h2()
        data = b"".join(self._out)
        self._torn, self._out = (data[:before], then), [data[before:]]

    def reset(self, stream_id: int, code: int) -> None:
        """Sends RST_STREAM."""
        if self._open.pop(stream_id, None) is None or self._cut:
            return
        self._unsent.pop(stream_id, None)
        self._h2.reset_stream(stream_id, code)
        self._wake.set()
        self._close_when_drained()

    def abandon(self) -> None:
        """Notes that a stream will never be answered; it goes on to count against the client's limit."""
        self.service.counts["abandoned"] += 1

    def goaway(self, last_stream_id: int, code: int = 0, debug: bytes = b"") -> None:
        """Sends GOAWAY. Streams above last_stream_id get no answer; with ALL_STREAMS it is a mere warning, else the
        link closes when the streams that remain are answered.
        """
        last_stream_id = min(last_stream_id, self._last_stream_id)  # RFC 9113, 6.8: never raised again
        self._raw(GoAwayFrame(0, last_stream_id, code, debug))
        if last_stream_id < ALL_STREAMS:
            self._last_stream_id = last_stream_id
            for stream_id in [stream_id for stream_id in self._open if stream_id > last_stream_id]:
                del self._open[stream_id]
            self._draining = True
            self._close_when_drained()

    def announce(self, setting: SettingCodes, value: int, for_s: float = 0.0) -> None:
        """Sends SETTINGS, which bind the client once it has acknowledged them; with for_s the old value comes back."""
        if self._cut:
            return
        if for_s:
            old = self._announced.get(setting, self._h2.local_settings[setting])
            self.service.schedule.after(for_s, self.announce, setting, old)
        else:
            self._announced[setting] = value
        self._h2.update_settings({setting: value})
        self._wake.set()

    def freeze(self, seconds: float) -> None:
        """Neither reads nor writes for a while; the connection stays up."""
        self._thawed.clear()
        self.service.schedule.after(seconds, self._thawed.set)

    def close(self) -> None:
        """Sends what is to be sent, then closes in order; streams that are open get no answer."""
        self._closing = True
        self._open.clear()
        self._unsent.clear()
        self._wake.set()

    def cut(self) -> None:
        """Ends the TCP connection at once by a reset; what was not sent is dropped."""
        if self._cut:
            return
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop()

    # ---- reading

    def run(self) -> None:
        """Serves the connection until it ends; waits."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW)
        if self.service.initial_window is not None:
            self.announce(SettingCodes.INITIAL_WINDOW_SIZE, self.service.initial_window)
        self._wake.set()
        writer = gevent.spawn(self._write)
        try:
            while data := self._read():
                self._thawed.wait()
                if not self._closing:
                    self._receive(data)
        finally:
            writer.kill(block=False)
            self._drop()

    def _read(self) -> bytes:
        try:
            return b"" if self._cut else self._sock.recv(READ_BYTES)
        except OSError:
            return b""

    def _receive(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError as error:
            self.service.protocol_errors.append(f"{type(error).__name__}: {error}")
            self.close()
            return
        for event in events:
            handle = self._handlers.get(type(event))
            if handle is not None and not self._cut:
                handle(self, event)
        self._wake.set()

    def _begin(self, event: RequestReceived) -> None:
        if event.stream_id > self._last_stream_id:
            return
        if len(self._open) >= self._h2.local_settings.max_concurrent_streams:
            self.service.counts["refused_streams"] += 1
            self._h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        fields = event.headers
        headers: dict[bytes, bytes] = dict(fields)
        repeated: tuple[bytes, ...] = ()
        if len(headers) != len(fields):
            repeated = tuple(name for name, times in Counter(bytes(name) for name, _ in fields).items() if times > 1)
        method, path = headers[b":method"], headers[b":path"]
        self._open[event.stream_id] = Request(self, event.stream_id, method, path, headers, repeated)

    def _take_data(self, event: DataReceived) -> None:
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        request = self._open.get(event.stream_id)
        if request is not None:
            request.add(event.data)

    def _serve(self, event: StreamEnded) -> None:
        request = self._open.get(event.stream_id)
        if request is not None:
            request.complete()
            self.service.counts["requests"] += 1
            self.service.serve(request)
            self.highest_served = max(self.highest_served, request.stream_id)

    def _reset_by_client(self, event: StreamReset) -> None:
        self.service.counts["resets_by_client"] += 1
        self._open.pop(event.stream_id, None)
        self._unsent.pop(event.stream_id, None)
        self._close_when_drained()

    def _window_opened(self, _event: ProtocolEvent) -> None:
        for stream_id in list(self._unsent):
            self._send_body(stream_id)

    def _client_leaves(self, _event: ConnectionTerminated) -> None:
        self.service.counts["goaways_by_client"] += 1
        self._draining = True
        self._close_when_drained()

    def _ping(self, _event: PingReceived) -> None:
        self.service.counts["pings"] += 1

    def _priority(self, _event: PriorityUpdated) -> None:
        self.service.protocol_errors.append("PRIORITY: the provider asks not to send it")

    _handlers: ClassVar[Mapping[type[ProtocolEvent], Callable[["Link", Any], None]]] = {
        RequestReceived: _begin,
        DataReceived: _take_data,
        StreamEnded: _serve,
        StreamReset: _reset_by_client,
        WindowUpdated: _window_opened,
        RemoteSettingsChanged: _window_opened,
        ConnectionTerminated: _client_leaves,
        PingReceived: _ping,
        PriorityUpdated: _priority,
    }

    # ---- writing

    def _send_body(self, stream_id: int) -> None:
        body, shape = self._unsent[stream_id]
        padding = shape.padding or None
        while body:
            room = self._h2.local_flow_control_window(stream_id) - (shape.padding + 1 if padding else 0)
            if room <= 0:
                self._unsent[stream_id] = (body, shape)
                return
            chunk, body = body[:room], body[room:]
            self._h2.send_data(stream_id, chunk, end_stream=not (body or shape.trailers), pad_length=padding)
        if shape.trailers:
            self._h2.send_headers(stream_id, [(b"x-trailer", b"end")], end_stream=True)
        del self._unsent[stream_id], self._open[stream_id]
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self._draining and not self._open:
            self.close()

    def _raw(self, frame: Frame) -> None:
        self._drain_h2()
        self._out.append(frame.serialize())
        self._wake.set()

    def _drain_h2(self) -> None:
        self._out.append(self._h2.data_to_send())

    def _write(self) -> None:
        while self._wake.wait():
            self._wake.clear()
            self._thawed.wait()
            if self._cut:
                return
            data, then = self._next_output()
            try:
                if data:
                    self._sock.sendall(data)
            except OSError:
                self._drop()
                return
            if then is not None:
                then()
                self._wake.set()  # the rest
            if self._closing and not self._wake.is_set():
                self._half_close()
                return

    def _next_output(self) -> tuple[bytes, Callable[[], object] | None]:
        """What is to be written in one go, and what is to be done then."""
        if self._torn is not None:
            (data, then), self._torn = self._torn, None
            return data, then
        self._drain_h2()
        data = b"".join(self._out)
        self._out.clear()
        return data, None

    def _half_close(self) -> None:
        """Ends our direction only: closing with unread input would reset the connection and destroy our last frames."""
        with socket.socket(fileno=os.dup(self._sock.fileno())) as plain:
            plain.shutdown(socket.SHUT_WR)
        self.service.schedule.after(LINGER_S, self._drop)

    def _drop(self) -> None:
        self._cut = True
        self._open.clear()
        self._unsent.clear()
        self._thawed.set()
        self._sock.close()
