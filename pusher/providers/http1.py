"""One request over HTTP/1.1 and its answer, whatever the other end does.

The answer is bounded in all of its octets: interim answers, chunk heads and trailers count like header fields and body;
what TLS says without content is bounded below (``transport``). It is bounded in time by one limit for the whole
exchange, and after each slice of work the other greenlets have their turn, so that octets that never pause cannot hold
the process. Redirects are not followed. Each exchange has a connection of its own.

h11 is the protocol; nothing here but ``exchange`` waits. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import gevent
import h11
from gevent import socket

from pusher.errors import StartError
from pusher.providers.budget import Turns
from pusher.providers.http2.transport import ConnectFailed, Origin, TlsSocket, connect, describe
from pusher.providers.proxy import ProxyOf, direct

#: All that may come for one answer; those of token endpoints have some 2 KB.
MAX_OCTETS = 131_072
MAX_BODY_BYTES = 65_536
_READ_OCTETS = 16_384
_SHOWN_CHARACTERS = 100


class ExchangeFailed(Exception):
    """There is no answer. The text is one line for an operator."""


class Unusable(Exception):
    """The received data is not an answer that pusher accepts."""


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


@dataclass(frozen=True)
class Client:
    """How to get out: ``tls`` gives a context that verifies the server, ``proxy_of`` the proxy on the way to a host.

    Both are for https; http is for what stands beside this machine.
    """

    tls: Callable[[], ssl.SSLContext]
    proxy_of: ProxyOf = direct


def exchange(request: Request, client: Client, timeout_s: float) -> Response:
    """One exchange. Waits up to ``timeout_s``; raises ``ExchangeFailed``. May be interrupted at any wait."""
    host = urlsplit(request.url).hostname
    # One limit for all of it: a socket's own would begin again with each octet.
    with gevent.Timeout(timeout_s, ExchangeFailed(f"{host} gave no answer within {timeout_s:g} s")):
        try:
            return _exchange(request, client, timeout_s)
        except StartError as error:
            raise ExchangeFailed(str(error)) from error
        except ConnectFailed as error:
            raise ExchangeFailed(f"{host}: {error}") from error
        except OSError as error:
            raise ExchangeFailed(f"{host}: {describe(error)}") from error
        except Unusable as error:
            raise ExchangeFailed(f"{host}: {error}") from error
        except h11.RemoteProtocolError as error:
            raise ExchangeFailed(f"{host} does not speak HTTP: {str(error)[:_SHOWN_CHARACTERS]!r}") from error
        except (h11.LocalProtocolError, ValueError):
            # its text may hold what we were about to send
            raise ExchangeFailed(f"{host}: the address or a header is not valid in HTTP") from None


def _exchange(request: Request, client: Client, timeout_s: float) -> Response:
    url = urlsplit(request.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Unusable("not an http or https address")
    with closing(_open(url, client, timeout_s)) as channel:
        connection = h11.Connection(h11.CLIENT)
        channel.send(_encoded(connection, request, url))
        return ResponseReader(connection, channel.receive).read()


def _open(url: SplitResult, client: Client, timeout_s: float) -> TlsSocket | _Plain:
    host = str(url.hostname)
    if url.scheme == "https":
        origin = Origin(host, url.port or 443, proxy=client.proxy_of(host))
        return connect(origin, client.tls(), timeout_s, alpn="")
    return _Plain(socket.create_connection((host, url.port or 80), timeout_s))


class _Plain:
    """A connection without TLS: to Google's metadata server, which is a part of the machine."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        data: bytes = self._socket.recv(_READ_OCTETS)
        return data

    def close(self) -> None:
        self._socket.close()


def _encoded(connection: h11.Connection, request: Request, url: SplitResult) -> bytes:
    target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    host = url.netloc.rpartition("@")[2]
    headers = {"Host": host, "Connection": "close", **request.headers}
    if request.body or request.method == "POST":
        headers["Content-Length"] = str(len(request.body))
    head = h11.Request(method=request.method, target=target, headers=list(headers.items()))
    parts = [connection.send(head), connection.send(h11.Data(request.body)), connection.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)


class ResponseReader:
    """An answer as it comes in: ``receive`` gives some of its octets, b"" at their end."""

    def __init__(self, connection: h11.Connection, receive: Callable[[], bytes]) -> None:
        self._connection, self._receive = connection, receive
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._left = MAX_OCTETS
        self._turns = Turns()

    def read(self) -> Response:
        """Waits until it is complete. Raises h11.ProtocolError, OSError, Unusable."""
        while not isinstance(event := self._connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self._connection.receive_data(self._received())
            elif isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._add(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                raise Unusable("the connection was closed before an answer came")
            self._turns.give_way()
        if self._head is None:
            raise Unusable("the connection was closed before an answer came")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head.headers}
        return Response(self._head.status_code, headers, bytes(self._body))

    def _add(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            raise Unusable(f"the answer is longer than {MAX_BODY_BYTES} octets")

    def _received(self) -> bytes:
        data = self._receive()
        self._left -= len(data)
        if self._left < 0:
            raise Unusable(f"the answer is longer than {MAX_OCTETS} octets")
        return data
