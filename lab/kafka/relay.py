"""A way to a broker that counts what each client fetches there. Needs gevent."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator

import gevent
from gevent import socket
from gevent.server import StreamServer

_FETCH = 1
#: Of a request: its size; key, version and number of the request, and how long the name of the client is.
_SIZE, _HEAD = struct.Struct(">i"), struct.Struct(">hhih")


class Relay:
    """Passes on what comes to its port to the broker's, both of 127.0.0.1. Brokers pass here too, with other names."""

    def __init__(self, broker_port: int) -> None:
        self._target = ("127.0.0.1", broker_port)
        #: Requests for records, and the bytes of all answers on connections that such requests came on, by client.id.
        self.fetches: Counter[str] = Counter()
        self.fetched_bytes: Counter[str] = Counter()
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port = int(self._server.server_port or 0)

    def stop(self) -> None:
        """Admits nobody any more, and ends all connections."""
        self._server.stop(timeout=0)

    def _serve(self, client: socket.socket, _: object) -> None:
        try:
            broker = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        fetching: set[str] = set()
        back = gevent.spawn(self._answer, broker, client, fetching)
        try:
            for client_id, request in _requests(client):
                if client_id is not None:
                    fetching.add(client_id)
                    self.fetches[client_id] += 1
                broker.sendall(request)
        except OSError:
            pass  # whoever was cut off knows
        finally:
            back.kill()
            broker.close()
            client.close()

    def _answer(self, broker: socket.socket, client: socket.socket, fetching: set[str]) -> None:
        try:
            while data := broker.recv(65_536):
                for client_id in fetching:
                    self.fetched_bytes[client_id] += len(data)
                client.sendall(data)
        except OSError:
            pass  # the broker was killed, or the client is gone
        # The other direction reads: a close alone would wait for it.
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _requests(client: socket.socket) -> Iterator[tuple[str | None, bytes]]:
    """Each request as it came, and who asks for records with it, if it does."""
    with client.makefile("rb") as stream:
        while len(size := stream.read(_SIZE.size)) == _SIZE.size:
            request = stream.read(*_SIZE.unpack(size))
            if len(request) < _HEAD.size:
                return
            api, _, _, length = _HEAD.unpack_from(request)
            asks = request[_HEAD.size : _HEAD.size + length].decode() if api == _FETCH else None
            yield asks, size + request
