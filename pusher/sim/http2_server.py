"""Listens for HTTP/2 over TLS and keeps one link a connection."""

import socket
import ssl
from collections.abc import Callable
from typing import Any

from gevent.pool import Pool
from gevent.server import StreamServer

from pusher.sim.http2_link import Link, Request, Service


class Http2Server:
    """Listens, and hands each complete request to `serve` (called in the reader's greenlet; must not wait)."""

    def __init__(
        self,
        serve: Callable[[Request], None],
        tls_context: ssl.SSLContext,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        max_streams: int = 1000,
        first_streams: int | None = None,
        initial_window: int | None = None,
    ) -> None:
        self.host = host
        self.port = port  #: 0 until the first start() chose a free one
        self.max_streams = max_streams
        self.links: list[Link] = []
        self._service = Service(serve, max_streams, first_streams, initial_window)
        self.schedule = self._service.schedule
        self.counts = self._service.counts  #: connections, requests, pings, refused_streams, resets_by_client, ...
        self.protocol_errors = self._service.protocol_errors  #: what clients did against the protocol
        self._tls_context = tls_context
        self._greenlets = Pool()
        self._listener: StreamServer | None = None

    def start(self) -> None:
        """Listens; after stop() again on the same port. Raises OSError when the port is taken."""
        self._listener = StreamServer((self.host, self.port), self._handle, spawn=self._greenlets)
        self._listener.start()
        self.port = self._listener.socket.getsockname()[1]
        self._greenlets.spawn(self.schedule.run)

    def stop(self) -> None:
        """Stops listening and drops all connections; waits for their greenlets, which takes milliseconds."""
        if self._listener is not None:
            self._listener.stop(timeout=0)
            self._listener = None
        self._greenlets.kill()

    def cut(self) -> None:
        """Resets all connections."""
        for link in list(self.links):
            link.cut()

    def _handle(self, sock: socket.socket, _address: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            secured = self._tls_context.wrap_socket(sock, server_side=True)
        except OSError as error:
            self.counts["tls_failures"] += 1
            self.protocol_errors.append(f"TLS: {error}")
            return
        if secured.selected_alpn_protocol() != "h2":
            self.protocol_errors.append("TLS: the client did not offer h2 by ALPN")
            secured.close()
            return
        link = Link(secured, self._service)
        self.counts["connections"] += 1
        self.links.append(link)
        try:
            link.run()
        finally:
            self.links.remove(link)
