"""TLS apart from the socket: what came before an error counts, and records without content cost little."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from lab.http2_server import make_files
from lab.processes import wait_until
from pusher.providers.http2.transport import ConnectFailed, Origin, TlsSocket, connect


class Server:
    """A TLS server whose records a test sends as it likes."""

    def __init__(self, directory: Path, tickets: int = 2) -> None:
        self.files = make_files(directory)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.files.certificate, self.files.key)
        self._context.set_alpn_protocols(["h2"])
        self._context.num_tickets = tickets
        self._listener: Any = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1)
        self.port = self._listener.getsockname()[1]
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self._context.wrap_bio(self._in, self._out, server_side=True)

    def accepted(self) -> Any:
        """A connection after its handshake; the last flight is sent, tickets included."""
        connection, _ = self._listener.accept()
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(self._out.read())
                self._in.write(connection.recv(65_536))
            else:
                connection.sendall(self._out.read())
                return connection

    def records(self, *contents: bytes) -> bytes:
        for content in contents:
            self.tls.write(content)
        return self._out.read()


@contextmanager
def connected(server: Server, serve: Callable[[Any], None]) -> Iterator[TlsSocket]:
    serving = gevent.spawn(lambda: serve(server.accepted()))
    transport = connect(Origin("localhost", server.port), server.files.client_context(), 10)
    yield transport
    transport.close()
    serving.kill()


BROKEN = {
    "a record that was changed": b"\x17\x03\x03\x00\x30" + b"x" * 48,
    "no record at all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a record too large": b"\x17\x03\x03\xff\xff" + b"x" * 70_000,
    "plain data": b"\x17\x03\x03\x00\x01x",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_was_decrypted_before_an_error_is_returned_and_the_error_comes_next(tmp_path: Path, kind: str) -> None:
    server = Server(tmp_path)

    def serve(connection: Any) -> None:
        connection.sendall(server.records(b"first", b"second") + BROKEN[kind])
        gevent.sleep(60)

    with connected(server, serve) as transport:
        received = b""
        while len(received) < len(b"firstsecond"):
            received += transport.receive()
        assert received == b"firstsecond"
        with pytest.raises(ssl.SSLError):
            transport.receive()


def test_session_tickets_without_end_are_cut_off_and_keep_nobody_waiting(tmp_path: Path) -> None:
    server = Server(tmp_path, tickets=20_000)

    def serve(connection: Any) -> None:
        gevent.sleep(60)

    serving = gevent.spawn(lambda: serve(server.accepted()))
    pauses = [time.monotonic()]

    def clock() -> None:
        while True:
            gevent.sleep(0.01)
            pauses.append(time.monotonic())

    ticking = gevent.spawn(clock)
    transport = connect(Origin("localhost", server.port), server.files.client_context(), 20)
    with pytest.raises(ConnectionError, match="without content"):
        transport.receive()
    ticking.kill()
    serving.kill()
    transport.close()
    # the other end makes its tickets in this process too
    assert len(pauses) > 1


def test_a_handshake_that_only_talks_ends_in_time(tmp_path: Path) -> None:
    listener: Any = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)

    def talk() -> None:
        connection, _ = listener.accept()
        # the beginning of a server's flight, of which the rest never comes
        connection.sendall(b"\x16\x03\x03\x40\x00" + b"\x02\x00\xff\xff")
        while True:
            connection.sendall(b"x" * 65_536)

    talking = gevent.spawn(talk)
    with pytest.raises(ConnectFailed):
        connect(Origin("localhost", listener.getsockname()[1]), make_files(tmp_path).client_context(), 2)
    talking.kill()
    listener.close()


def test_what_comes_together_with_the_end_is_returned_first(tmp_path: Path) -> None:
    server = Server(tmp_path)

    def serve(connection: Any) -> None:
        last = server.records(b"first", b"second", b"x" * 40_000)
        with suppress(ssl.SSLWantReadError):
            server.tls.unwrap()
        connection.sendall(last + server._out.read())
        gevent.sleep(60)

    with connected(server, serve) as transport:
        received = b""
        while data := transport.receive():
            received += data
        assert received == b"firstsecond" + b"x" * 40_000
        assert transport.receive() == b""


def test_more_than_the_socket_takes_at_once_arrives(tmp_path: Path) -> None:
    server = Server(tmp_path)
    received = bytearray()
    sent = bytes(range(256)) * 20_000

    def serve(connection: Any) -> None:
        while len(received) < len(sent):
            server._in.write(connection.recv(65_536))
            with suppress(ssl.SSLWantReadError):
                while True:
                    received.extend(server.tls.read(65_536))

    with connected(server, serve) as transport:
        transport.send(sent)
        wait_until(lambda: len(received) == len(sent), "not all arrived")
    assert bytes(received) == sent
