"""One exchange over HTTP/1.1: what is legal is read, what never ends does end, and others go on meanwhile."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from lab.endless_http import CHUNKED, DRIPPED, ENDLESS, OK
from pusher.providers.http1 import MAX_OCTETS, Client, ExchangeFailed, Request, Response, exchange
from pusher.providers.tls import TlsTrust
from pusher.sim.certificate import TlsFiles, server_context, tls_files

Serve = Callable[[Any], None]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return tls_files(tmp_path_factory.mktemp("tls"))


class Peer:
    """Reads a request and does what it is told to; counts what it could write."""

    def __init__(self, serve: Serve, context: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self._serve = serve
        address = ("127.0.0.1", 0)
        self._server = (
            StreamServer(address, self._handle)
            if context is None
            else StreamServer(address, self._handle, ssl_context=context)
        )

    @property
    def port(self) -> int:
        return int(self._server.socket.getsockname()[1])

    @contextmanager
    def listening(self) -> Iterator[Peer]:
        self._server.start()
        try:
            yield self
        finally:
            self._server.stop(timeout=0)

    def _handle(self, sock: Any, _address: object) -> None:
        try:
            self.requests.append(sock.recv(65_536))
            self._serve(sock)
            sock.close()
        except OSError:
            sock.close()


@contextmanager
def peer(serve: Serve, files: TlsFiles | None = None) -> Iterator[Peer]:
    context = None
    if files is not None:
        context = server_context(files)
        context.set_alpn_protocols(["http/1.1"])
    with Peer(serve, context).listening() as listening:
        yield listening


def get(found: Peer, files: TlsFiles | None = None, timeout_s: float = 20.0, **request: Any) -> Response:
    scheme, ca_file = ("http", "") if files is None else ("https", files.ca)
    asked = Request("GET", f"{scheme}://127.0.0.1:{found.port}/token?a=b", **request)
    return exchange(asked, Client(TlsTrust(ca_file).context), timeout_s)


def forever(octets: bytes) -> Serve:
    def serve(sock: Any) -> None:
        while True:
            sock.sendall(octets)

    return serve


def dripping(first: bytes, octet: bytes) -> Serve:
    def serve(sock: Any) -> None:
        sock.sendall(first)
        while True:
            sock.sendall(octet)
            gevent.sleep(0.01)

    return serve


# ---- what is legal


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"\r\nhello",
        OK + b"content-length:5\r\n\r\nhello and more",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"1;a=b\r\nh\r\n4\r\nello\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer(answer: bytes, at_once: bool) -> None:
    def serve(sock: Any) -> None:
        for octet in [answer] if at_once else [answer[n : n + 1] for n in range(len(answer))]:
            sock.sendall(octet)

    with peer(serve) as found:
        assert get(found)[::2] == (200, b"hello")
    assert found.requests[0].startswith(b"GET /token?a=b HTTP/1.1\r\nHost: 127.0.0.1:")


def test_header_fields_and_a_body_of_ours(files: TlsFiles) -> None:
    with peer(lambda sock: sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nDATE: x\r\n\r\n"), files) as found:
        answer = get(found, files, headers={"Metadata-Flavor": "Google"}, body=b"a=b")
    assert (answer.status, answer.headers) == (302, {"location": "/a", "date": "x"})
    assert len(found.requests) == 1, "a redirect is not followed"
    head, _, body = found.requests[0].partition(b"\r\n\r\n")
    assert body == b"a=b"
    assert {b"Metadata-Flavor: Google", b"Content-Length: 3", b"Connection: close"} <= set(head.split(b"\r\n"))


# ---- what never ends


def ticking(ticks: list[float]) -> None:
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.001)


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize("octets", ENDLESS.values(), ids=ENDLESS)
def test_octets_without_end_or_pause(files: TlsFiles, octets: bytes, over_tls: bool) -> None:
    tls = files if over_tls else None
    with peer(forever(octets), tls) as found, pytest.raises(ExchangeFailed) as caught:
        get(found, tls)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_others_go_on_while_octets_are_read() -> None:
    """All of it is there before it is read, so that no read of it waits: some 40 ms of work."""
    ticks: list[float] = []
    others = gevent.spawn(ticking, ticks)
    octets = ENDLESS["100 Continue"] * 20
    with peer(lambda sock: sock.sendall(octets[: MAX_OCTETS + 1])) as found, pytest.raises(ExchangeFailed):
        get(found)
    others.kill()
    assert len(ticks) > 2


@pytest.mark.parametrize(("first", "octet"), DRIPPED.values(), ids=DRIPPED)
def test_octets_that_come_one_by_one(files: TlsFiles, first: bytes, octet: bytes) -> None:
    with peer(dripping(first, octet), files) as found, pytest.raises(ExchangeFailed, match=r"no answer within 0\.3 s"):
        get(found, files, timeout_s=0.3)


def test_a_handshake_that_never_comes(files: TlsFiles) -> None:
    with peer(dripping(b"", b"")) as found, pytest.raises(ExchangeFailed, match=r"no (answer|connection) within"):
        get(found, files, timeout_s=0.3)


def test_records_of_tls_without_content(files: TlsFiles) -> None:
    """Below the octets of HTTP: after the handshake nothing but empty records."""

    def serve(sock: Any) -> None:
        while True:
            sock.sendall(b"\x16\x03\x01\x00\x00" * 1_000)

    with peer(serve) as found, pytest.raises(ExchangeFailed):
        get(found, files)


def test_it_can_be_interrupted(files: TlsFiles) -> None:
    with peer(dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), files) as found:
        asking = gevent.spawn(get, found, files)
        while not found.requests:
            gevent.sleep(0.005)
        asking.kill()
        assert isinstance(asking.value, gevent.GreenletExit)


# ---- what is no answer


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        OK,
        OK + b"Content-Length: 10\r\n\r\n{",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"a b: c\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"5\r\nhello",
        CHUNKED + b"fffffffffffffffffffffff\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"\xff\xfe" * 100,
    ],
)
def test_no_answer(answer: bytes) -> None:
    with peer(lambda sock: sock.sendall(answer)) as found, pytest.raises(ExchangeFailed) as caught:
        get(found)
    assert str(caught.value).isprintable()
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("headers", [{"A": "secret\r\nB: c"}, {"A b": "secret"}])
def test_a_header_of_ours_that_cannot_be_written_is_not_shown(headers: dict[str, str]) -> None:
    with peer(lambda sock: None) as found, pytest.raises(ExchangeFailed, match="is not valid in HTTP") as caught:
        get(found, headers=headers)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_speak_tls(files: TlsFiles) -> None:
    with peer(lambda sock: sock.sendall(OK)) as found, pytest.raises(ExchangeFailed, match="TLS"):
        get(found, files)


def test_a_certificate_that_is_not_trusted(files: TlsFiles, tmp_path: Path) -> None:
    other = tls_files(tmp_path)
    with peer(lambda sock: sock.sendall(OK), files) as found, pytest.raises(ExchangeFailed, match="is refused"):
        get(found, other)
    assert not any(found.requests)
