"""The HTTP server of the admin port.

It shares the process with the pushes, so it must not be able to hurt them: few connections at a time, one request
each, and a few seconds for all of it, after which the connection is cut. Where there are too many, the oldest gives
way: slow clients do not delay others, however many there are. It only reads, and shows no secret.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import gevent
import orjson
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from pusher.telemetry.log import logger

log = logger(__name__)

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
#: Connections whose request is not complete, and as many that are being answered; a further one takes the place of the
#: oldest of its kind.
CONNECTIONS = 64
BACKLOG = 64
#: From accepting a connection to having sent the answer.
PATIENCE_S = 5.0
#: What supervisors and load balancers ask, with or without a token.
OPEN = ("/healthz", "/readyz")
_STATUS = {
    200: "OK",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    503: "Service Unavailable",
}
_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Connection", "close"),
]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Page(NamedTuple):
    """The content of an answer."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


#: The parameters of an address; of one that is given twice the last.
Query = Mapping[str, str]
Route = Callable[[Query], Page]


def json_answer(content: object, status: int = 200) -> Page:
    """``content`` as JSON."""
    return Page(status, JSON, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


class _Handler(WSGIHandler):
    """One connection, cut off when its time is over, whatever it waits for."""

    server: _Server
    socket: socket.socket

    def handle(self) -> None:
        connection = self.socket
        self.server.admit(connection)
        timer = gevent.spawn_later(self.server.patience_s, _cut, connection)
        try:
            super().handle()
        except OSError as error:
            log.debug("admin connection lost", error=str(error))
        finally:
            timer.kill(block=False)
            self.server.ended(connection)

    def read_request(self, raw_requestline: str) -> Any:
        """Raises ValueError for what is no request: for any other error gevent prints a trace past our log."""
        try:
            read = super().read_request(raw_requestline)
        except (HTTPException, OSError) as error:
            raise ValueError(str(error)) from None
        self.server.complete(self.socket)
        return read

    def log_error(self, msg: str, *args: object) -> None:
        """Errors of clients do not concern operators, so they are logged at debug."""
        log.debug("admin request refused", error=msg % args if args else msg)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("admin connection was closed by the client", error=str(error))


class _Server(WSGIServer):
    handler_class = _Handler
    patience_s = PATIENCE_S

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: Connections whose request is not complete, and those that are being answered, the oldest first.
        self._incomplete: dict[socket.socket, None] = {}
        self._answering: dict[socket.socket, None] = {}

    def admit(self, connection: socket.socket) -> None:
        """A new connection."""
        _put(self._incomplete, connection)

    def complete(self, connection: socket.socket) -> None:
        """Its request has come."""
        self._incomplete.pop(connection, None)
        _put(self._answering, connection)

    def ended(self, connection: socket.socket) -> None:
        """The connection has ended."""
        self._incomplete.pop(connection, None)
        self._answering.pop(connection, None)


def _put(connections: dict[socket.socket, None], connection: socket.socket) -> None:
    """Where there are too many, the oldest is cut."""
    while len(connections) >= CONNECTIONS:
        oldest = next(iter(connections))
        del connections[oldest]
        _cut(oldest)
    connections[connection] = None


class AdminServer:
    """Serves ``routes``, by path. ``port`` is where it listens, None while it does not."""

    def __init__(
        self, host: str, port: int, routes: Mapping[str, Route], *, patience_s: float = PATIENCE_S, token: str = ""
    ) -> None:
        """With ``token`` "" every client can read everything; else clients without it can read only ``OPEN``."""
        self._routes = routes
        self._token = token.encode()
        self._address = (host, port)
        self._patience_s = patience_s
        self._server: _Server | None = None
        #: A web page whose name was made to lead to this machine must not read what is open to this machine alone.
        self._local = host in ("localhost", "::1") or host.startswith("127.")

    @property
    def port(self) -> int | None:
        """None while it does not listen."""
        return None if self._server is None else self._server.server_port

    def start(self) -> None:
        """Listens. An address that cannot be had costs a warning, not the process: pushes matter more."""
        host, port = self._address
        try:
            listener = _listen(host, port)
        except OSError as error:
            log.warning(
                "admin port cannot be opened, continuing without it; give each process on a host its own admin.port"
                if error.errno == errno.EADDRINUSE
                else "admin port cannot be opened, continuing without it; see admin.host and admin.port",
                address=f"{host}:{port}",
                error=error.strerror or str(error),
            )
            return
        self._server = _Server(listener, self._answer, log=None, error_log=None, spawn=Pool(4 * CONNECTIONS))
        self._server.patience_s = self._patience_s
        self._server.start()
        log.info("admin port open", address=f"{host}:{self.port}")
        if not (self._local or self._token):
            log.warning(
                "the admin port is reachable from other hosts without a token: set admin.token, or set admin.host to "
                "127.0.0.1",
                address=f"{host}:{self.port}",
            )

    def stop(self) -> None:
        """Closes the port and what is connected. Waits a moment at most."""
        if self._server is not None:
            self._server.stop(timeout=0.2)
            self._server = None

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._local and not _is_unforgeable(environ.get("HTTP_HOST", "")):
            answer = Page(421, TEXT, b"ask for localhost or an address\n")
        elif not self._may_read(environ):
            answer = Page(401, TEXT, b"needs the bearer token of admin.token\n", (("WWW-Authenticate", "Bearer"),))
        else:
            answer = self._find(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        headers = [
            *_HEADERS,
            *answer.headers,
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
        ]
        start_response(f"{answer.status} {_STATUS[answer.status]}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    def _may_read(self, environ: Mapping[str, Any]) -> bool:
        if not self._token or environ["PATH_INFO"] in OPEN:
            return True
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token)

    def _find(self, method: str, path: str, query: str) -> Page:
        if method not in ("GET", "HEAD"):
            return Page(405, TEXT, b"only GET and HEAD\n", (("Allow", "GET, HEAD"),))
        route = self._routes.get(path)
        return route(dict(parse_qsl(query))) if route is not None else Page(404, TEXT, b"not found\n")


def _is_unforgeable(host: str) -> bool:
    """Whether a Host header is localhost, an address, or empty: no name that others can let lead to this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("", "localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Waits for the name service; raises ``OSError``."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
