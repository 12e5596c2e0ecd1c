"""One connection to Google's XMPP service: TLS, login, one writer and one reader greenlet, pings.

A link lives once: ``open`` it, ``send`` on it, and when it is down make another one. It holds no window and sends
nothing twice; its owner learns by ``on_down`` that it has ended, and from ``unwritten`` which messages never left. The
XMPP library is behind ``engine``.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from xml.sax.saxutils import quoteattr

import gevent
from gevent.event import Event
from gevent.pool import Group

from pusher.providers.google.xmpp.engine import (
    DOMAIN,
    AuthError,
    Engine,
    LinkError,
    connection_failed,
    message_stanza,
)
from pusher.providers.http2.transport import ConnectFailed, Origin, TlsSocket, connect
from pusher.providers.proxy import Proxy
from pusher.push.fields import InvalidMessage, Json, decode_object
from pusher.telemetry.log import Seldom, few, logger

__all__ = ["AuthError", "CertificateError", "ClosedError", "Link", "LinkError", "LinkSettings"]

_few = few(logger(__name__))
_seldom = Seldom(logger(__name__), period_s=60)

#: Beyond so many bytes that the peer has not taken, ``send`` waits.
MAX_UNWRITTEN_BYTES = 1 << 20
#: Beyond so many, which only answers to a server that does not read them can make up, the link ends.
MAX_QUEUED_BYTES = 2 << 20
#: After a failed write what the server said before is still read, for so long.
_LAST_WORDS_S = 1.0
_STREAM_END = b"</stream:stream>"


class CertificateError(LinkError):
    """The server's certificate is not trusted, or not for this host name."""


class ClosedError(LinkError):
    """The link was closed by its owner."""


@dataclass(frozen=True)
class LinkSettings:
    """Where to connect, as whom, and how patiently."""

    host: str
    port: int
    sender_id: str
    api_key: str
    #: Silence after which the peer is asked for a sign of life.
    ping_interval_s: float = 30.0
    #: How long the peer may take to give one, and to take what is written.
    ping_timeout_s: float = 10.0
    #: For name look-up, TCP, TLS and login together.
    connect_timeout_s: float = 20.0
    #: Whose link it is, for log lines.
    app: str = ""
    proxy: Proxy | None = None


class Link:
    """A connection, logged in once ``open`` has returned.

    The callbacks run in the link's greenlets and must not wait. ``on_message`` gets the JSON object of every stanza
    that is not an error (acks, nacks, control, receipts, upstream), and may run before ``open`` has returned.
    ``on_stanza_error`` gets the message's id, the condition and the server's words. ``on_down`` is called exactly once
    after an ``open`` that returned, with the reason; an exception out of a callback ends the link and is its cause.
    """

    def __init__(
        self,
        settings: LinkSettings,
        *,
        on_message: Callable[[dict[str, Json]], None],
        on_stanza_error: Callable[[str, str, str], None],
        on_down: Callable[[LinkError], None],
    ) -> None:
        self.settings = settings
        #: Why the link is down; None while it is not.
        self.reason: LinkError | None = None
        #: Ids of messages that were not even begun to be written when the link went down, oldest first.
        self.unwritten: list[str] = []
        self.received_at = time.monotonic()
        self._on_message, self._on_stanza_error, self._on_down = on_message, on_stanza_error, on_down
        self._socket: TlsSocket | None = None
        self._greenlets = Group()
        #: Set when the login has succeeded, and when the link is down.
        self._settled = Event()
        self._ended = Event()
        self._opened = False
        self._closing = False
        self._out: list[tuple[str, bytes]] = []
        self._out_bytes = 0
        self._out_waiting = Event()
        self._out_taken = Event()
        self._pings = 0
        self._engine = Engine(settings.sender_id, settings.api_key, self)

    @property
    def up(self) -> bool:
        """Whether messages can be sent."""
        return self._opened and self.reason is None

    # --- life ---------------------------------------------------------------------------------------------------------
    def open(self, tls: ssl.SSLContext) -> None:
        """Connects and logs in; waits for it. Raises ``LinkError`` (``AuthError``, ``CertificateError``).

        A dead link does not keep the context: it lives on in the library's cycles until a full garbage collection, and
        a context that is not shared any more weighs 0.9 MB with Debian's authorities.
        """
        where = f"{self.settings.host}:{self.settings.port}"
        limit_s = self.settings.connect_timeout_s
        try:
            with gevent.Timeout(limit_s, LinkError(f"no login at {where} within {limit_s:g} s")):
                self._socket = self._connect(where, tls)
                self.spawn(partial(self._write, self._socket))
                self._engine.start(self._socket)
                self._settled.wait()
        except BaseException as error:
            self._end(error if isinstance(error, LinkError) else ClosedError("opening was cancelled"))
            raise
        if self.reason is not None:
            raise self.reason
        self._opened = True
        self.spawn(self._ping)

    def close(self, timeout_s: float = 2.0) -> None:
        """Ends the stream politely; waits for the server to do so too, at most ``timeout_s``. Not for callbacks."""
        if self.up:
            self._closing = True
            self._queue("", _STREAM_END)
            self._greenlets.join(timeout_s)
        self.kill(ClosedError("closed"))

    def kill(self, reason: LinkError) -> None:
        """Ends the link at once; the first reason stays. Does not wait."""
        if self.reason is None:
            self._end(ClosedError("closed") if self._closing else reason)

    def _end(self, reason: LinkError) -> None:
        self.reason = self.reason or reason
        self.unwritten = [message_id for message_id, _ in self._out if message_id]
        self._out = []
        self._engine.release()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._settled.set()
        self._ended.set()
        self._out_taken.set()
        current = gevent.getcurrent()
        gevent.killall([greenlet for greenlet in self._greenlets if greenlet is not current], block=False)
        if self._opened:
            self._on_down(self.reason)

    # --- out ----------------------------------------------------------------------------------------------------------
    def send(self, message_id: str, body: bytes) -> None:
        """Queues a message, ``body`` being its JSON. Waits only while too much is unwritten. Raises ``LinkError``."""
        while self._out_bytes > MAX_UNWRITTEN_BYTES and self.reason is None:
            self._out_taken.clear()
            self._out_taken.wait()
        if self.reason is not None:
            raise self.reason
        self._queue(message_id, message_stanza(message_id, body))

    def _queue(self, message_id: str, data: bytes) -> None:
        self._out.append((message_id, data))
        self._out_bytes += len(data)
        self._out_waiting.set()

    def _write(self, tls_socket: TlsSocket) -> None:
        """The writer: what has gathered goes out in one TLS write."""
        limit_s = self.settings.ping_timeout_s
        while True:
            self._out_waiting.wait()
            self._out_waiting.clear()
            batch, self._out, self._out_bytes = self._out, [], 0
            self._out_taken.set()
            try:
                with gevent.Timeout(limit_s, LinkError(f"the server has read nothing for {limit_s:g} s")):
                    tls_socket.send(b"".join([data for _, data in batch]))
            except LinkError as error:
                return self.kill(error)
            except OSError as error:
                # answers that were received count: the reader ends the link when it has read them
                self._ended.wait(_LAST_WORDS_S)
                return self.kill(connection_failed(error))

    def _ping(self) -> None:
        """The pinger: sends a ping to a silent peer, and ends the link of one that stays silent."""
        settings = self.settings
        while True:
            asked_at = time.monotonic()
            silence_s = asked_at - self.received_at
            if silence_s < settings.ping_interval_s:
                gevent.sleep(settings.ping_interval_s - silence_s)
                continue
            self._pings += 1
            sender = f"{settings.sender_id}@{DOMAIN}"
            ping = f"<iq from={quoteattr(sender)} to={quoteattr(settings.host)} id='ping{self._pings}' type='get'>"
            self._queue("", f"{ping}<ping xmlns='urn:xmpp:ping'/></iq>".encode())
            gevent.sleep(settings.ping_timeout_s)
            if self.received_at < asked_at:
                return self.kill(LinkError(f"no answer to a ping within {settings.ping_timeout_s:g} s"))

    # --- what the engine asks for -------------------------------------------------------------------------------------
    def spawn(self, run: Callable[[], object]) -> None:
        """Starts one of the link's greenlets; its death by an exception ends the link."""
        greenlet = self._greenlets.spawn(run)
        greenlet.link_exception(self._died)

    def write(self, data: bytes) -> None:
        """Queues bytes of the protocol."""
        self._queue("", data)
        if self._out_bytes > MAX_QUEUED_BYTES:
            self.kill(LinkError("the server sends more requests than it reads answers"))

    def logged_in(self) -> None:
        """The stream is open, the resource bound."""
        self._settled.set()

    def failed(self, error: LinkError) -> None:
        """The connection cannot continue."""
        self.kill(error)

    def useful(self) -> None:
        """Notes that the last data answered something: see ``engine``."""
        self._engine.useful()

    def payload(self, text: str | None) -> None:
        """The content of a message stanza."""
        app = self.settings.app
        if text is None:
            _seldom.warning((app, "no payload"), "message without a payload from Google ignored", game=app)
            return
        try:
            message = decode_object(text.encode())
        except InvalidMessage as error:
            key = (app, error.reason)
            _few.warning(key, "undecodable message from Google ignored", game=app, error=error.detail)
            return
        self._on_message(message)

    def stanza_error(self, stanza_id: str, condition: str, text: str) -> None:
        """The server refuses a stanza."""
        self._on_stanza_error(stanza_id, condition, text)

    # --- connecting ---------------------------------------------------------------------------------------------------
    def _connect(self, where: str, tls: ssl.SSLContext) -> TlsSocket:
        settings = self.settings
        try:
            origin = Origin(settings.host, settings.port, proxy=settings.proxy)
            return connect(origin, tls, settings.connect_timeout_s, alpn="")
        except ConnectFailed as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                refused = f"the certificate of {where} is refused: {error.__cause__.verify_message}"
                raise CertificateError(refused) from None
            raise LinkError(f"cannot connect to {where}: {error}") from None

    def _died(self, greenlet: gevent.Greenlet[..., object]) -> None:
        failure = LinkError(f"{type(greenlet.exception).__name__}: {greenlet.exception}")
        failure.__cause__ = greenlet.exception
        self.kill(failure)
