"""One request over HTTP/1.1 and its answer, whatever the other end does.

The answer is bounded in octets as they come from the socket, so that everything counts: TLS handshake and session
tickets, interim answers, chunk heads, trailers. It is bounded in time by one limit for the whole exchange, and after
each slice of work the other greenlets have their turn, so that octets that never pause cannot hold the process.
Redirects are not followed. Each exchange has a connection of its own.

h11 is the protocol; nothing here but ``exchange`` waits. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import socket as stdlib_socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

import gevent
import h11
from gevent import socket

from pusher.errors import CredentialError
from pusher.providers.http2.transport import describe

T = TypeVar("T")

#: All that may come for one answer. Answers of token endpoints have some 2 KB, certificate chains up to 10 KB.
MAX_OCTETS = 131_072
MAX_BODY_BYTES = 65_536
#: After so much work on octets that are there already the others have their turn.
SLICE_S = 0.005
#: gevent runs up to 50 callbacks, of which sleep(0) is one, before it looks at sockets and timers again.
_PAUSE_S = 0.0001
_READ_OCTETS = 16_384
_SHOWN_CHARACTERS = 100


class ExchangeFailed(Exception):
    """There is no answer. The text is one line for an operator."""


class Unusable(Exception):
    """What came is no answer that we take."""


@dataclass(frozen=True)
class Request:
    """``url`` has the scheme http or https."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Response(NamedTuple):
    """An answer; names of header fields are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def exchange(request: Request, tls: Callable[[], ssl.SSLContext], timeout_s: float) -> Response:
    """One exchange. Waits up to ``timeout_s``; raises ``ExchangeFailed``. May be interrupted at any wait.

    ``tls`` gives a client context that verifies the server; it is asked only for https.
    """
    host = urlsplit(request.url).hostname
    # One limit for all of it: a socket's own would begin again with each octet.
    with gevent.Timeout(timeout_s, ExchangeFailed(f"{host} gave no answer within {timeout_s:g} s")):
        try:
            return _exchange(request, tls, timeout_s)
        except CredentialError as error:
            raise ExchangeFailed(str(error)) from error
        except OSError as error:
            raise ExchangeFailed(f"{host}: {describe(error)}") from error
        except Unusable as error:
            raise ExchangeFailed(f"{host}: {error}") from error
        except h11.RemoteProtocolError as error:
            raise ExchangeFailed(f"{host} does not speak HTTP: {str(error)[:_SHOWN_CHARACTERS]!r}") from error
        except (h11.LocalProtocolError, ValueError):
            # its text may hold what we were about to send
            raise ExchangeFailed(f"{host}: the address or a header cannot be written as HTTP") from None


def _exchange(request: Request, tls: Callable[[], ssl.SSLContext], timeout_s: float) -> Response:
    url = urlsplit(request.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Unusable("not an address of the web")
    context = tls() if url.scheme == "https" else None
    sock = _connect(str(url.hostname), url.port or (443 if context else 80), timeout_s)
    try:
        channel = _Channel(sock, context, str(url.hostname))
        connection = h11.Connection(h11.CLIENT)
        channel.send(_encoded(connection, request, url))
        return Answer(connection, channel.receive).read()
    finally:
        sock.close()


def _connect(host: str, port: int, timeout_s: float) -> socket.socket:
    addresses = socket.getaddrinfo(host, port, 0, stdlib_socket.SOCK_STREAM)
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        # Each address has a share of the time, so that a mute one does not hide the next.
        sock.settimeout(timeout_s / (len(addresses) + 1))
        try:
            sock.connect(address)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            sock.settimeout(None)
            return sock
    raise failure


def _encoded(connection: h11.Connection, request: Request, url: SplitResult) -> bytes:
    target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    host = url.netloc.rpartition("@")[2]
    headers = {"Host": host, "Connection": "close", **request.headers}
    if request.body or request.method == "POST":
        headers["Content-Length"] = str(len(request.body))
    head = h11.Request(method=request.method, target=target, headers=list(headers.items()))
    parts = [connection.send(head), connection.send(h11.Data(request.body)), connection.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)


class _Channel:
    """A connected socket, plain or under TLS, that gives up after ``MAX_OCTETS``."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, host: str) -> None:
        self._socket, self._left = sock, MAX_OCTETS
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None if context is None else context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        if self._tls is not None:
            self._waiting_for_input(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        """All of it. Waits."""
        if self._tls is None:
            self._socket.sendall(data)
            return
        self._tls.write(data)
        self._flush()

    def receive(self) -> bytes:
        """What has come, b"" at the end. Waits; raises Unusable after ``MAX_OCTETS``."""
        if self._tls is None:
            return self._pull()
        tls = self._tls
        try:
            return self._waiting_for_input(lambda: tls.read(_READ_OCTETS))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def _waiting_for_input(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed(self._pull())
            except ssl.SSLError:
                with suppress(OSError):  # the first error counts
                    self._flush()
                raise
            else:
                self._flush()
                return result

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _pull(self) -> bytes:
        data: bytes = self._socket.recv(_READ_OCTETS)
        self._left -= len(data)
        if self._left < 0:
            raise Unusable(f"the answer is longer than {MAX_OCTETS} octets")
        return data

    def _flush(self) -> None:
        """What TLS has to say: its part of the handshake, an alert that says why we refuse."""
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())


class Answer:
    """An answer as it comes in: ``receive`` gives some of its octets, b"" at their end."""

    def __init__(self, connection: h11.Connection, receive: Callable[[], bytes]) -> None:
        self._connection, self._receive = connection, receive
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._slice_ends = time.monotonic() + SLICE_S

    def read(self) -> Response:
        """Waits until it is complete. Raises h11.ProtocolError, OSError, Unusable."""
        while not isinstance(event := self._connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self._connection.receive_data(self._receive())
            elif isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._add(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                raise Unusable("the connection was closed before an answer came")
            self._let_others_run()
        if self._head is None:
            raise Unusable("the connection was closed before an answer came")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head.headers}
        return Response(self._head.status_code, headers, bytes(self._body))

    def _add(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            raise Unusable(f"the answer is longer than {MAX_BODY_BYTES} octets")

    def _let_others_run(self) -> None:
        if time.monotonic() >= self._slice_ends:
            gevent.sleep(_PAUSE_S)
            self._slice_ends = time.monotonic() + SLICE_S
