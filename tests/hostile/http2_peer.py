"""A server of HTTP/2 that misbehaves: `python http2_peer.py DIRECTORY NAME PORT`; the directory has its certificates.

It misbehaves to clients that show a certificate, and passes on what others say to the server at PORT. Threads and
sockets of the standard library, in a process of its own, so that it is as fast as it can be. It prints its port.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.endless_http2 import COSTLY, FLOODS
from lab.http2_wire import PREFACE, answer, block
from tests.hostile.peer import serve_for_ever, server_context

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 9
END_STREAM = ACK = 1
END_HEADERS = 4
CHUNK = 200_000


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *value) for value in values))


def goaway(last_stream: int, code: int = 0) -> bytes:
    return frame(GOAWAY, payload=struct.pack(">II", last_stream, code))


USUAL = settings((3, 1_000))
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5


class Peer:
    """The server's end of a connection."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._heard = b""

    def say(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def _read(self, size: int) -> bytes:
        while len(self._heard) < size:
            data = self.sock.recv(65_536)
            if not data:
                raise OSError("the client has gone")
            self._heard += data
        said, self._heard = self._heard[:size], self._heard[size:]
        return said

    def greet(self, greeting: bytes = USUAL) -> None:
        self.say(greeting)
        self._read(len(PREFACE))

    def requests(self, pongs: bool = True) -> Iterator[int]:
        """The streams of the requests; SETTINGS and PING are answered."""
        while True:
            head = self._read(9)
            payload = self._read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == HEADERS:
                yield stream
            elif kind in (SETTINGS, PING) and not flags & ACK and pongs:
                self.say(frame(kind, ACK, 0, payload if kind == PING else b""))

    def listen(self, pongs: bool = True) -> None:
        """Reads to the end."""
        for _ in self.requests(pongs):
            pass


Serve = Callable[[Peer], None]


def flooding(octets: bytes, first: bytes = b"") -> Serve:
    """Says this without end from the first request on, and reads nothing more."""
    chunk = octets * (1 + CHUNK // len(octets))

    def serve(peer: Peer) -> None:
        peer.greet()
        next(peer.requests())
        peer.say(first)
        while True:
            peer.say(chunk)

    return serve


def pestering(octets: bytes, times_a_second: int) -> Serve:
    """Says this at an even pace, and reads nothing more."""

    def serve(peer: Peer) -> None:
        peer.greet()
        next(peer.requests())
        while True:
            peer.say(octets)
            time.sleep(1 / times_a_second)

    return serve


def silent(greeting: bytes, *, reading: bool = True, pongs: bool = True) -> Serve:
    """Says only this, and answers nothing."""

    def serve(peer: Peer) -> None:
        peer.greet(greeting)
        if reading:
            peer.listen(pongs)
        time.sleep(3_600)

    return serve


def answering(*parts: Callable[[int], bytes], close: bool = False) -> Serve:
    """Says all this to each request; closes after it if it has to."""

    def serve(peer: Peer) -> None:
        peer.greet()
        for stream in peer.requests():
            for part in parts:
                peer.say(part(stream))
            if close:
                return

    return serve


def dripping(octets: Callable[[int], bytes]) -> Serve:
    """Says this to the first request, an octet each 10 ms."""

    def serve(peer: Peer) -> None:
        peer.greet()
        for octet in octets(next(peer.requests())):
            peer.say(bytes([octet]))
            time.sleep(0.01)

    return serve


def at_once(octets: bytes) -> Serve:
    """Says this before all, and closes."""
    return lambda peer: peer.say(octets)


def status(code: int) -> Callable[[int], bytes]:
    return lambda stream: answer(stream, block((b":status", str(code).encode())))


def of_stream(kind: int, flags: int, payload: bytes) -> Callable[[int], bytes]:
    return lambda stream: frame(kind, flags, stream, payload)


def reset(code: int) -> Callable[[int], bytes]:
    return of_stream(RST_STREAM, 0, struct.pack(">I", code))


REFUSED_STREAM, INTERNAL_ERROR = 7, 2
OPEN_ANSWER = of_stream(HEADERS, END_HEADERS, b"\x88")
#: A kilobyte that refers a thousand times to a field of 4 KB.
BOMB = block((b":status", b"200")) + b"\x40\x01x\x7f\xbd\x1d" + b"y" * 3_900 + b"\xbe" * 1_000

PEERS: dict[str, Serve] = {
    **{f"flood of {name}": flooding(octets) for name, octets in (FLOODS | COSTLY).items()},
    **{f"100 a second: {name}": pestering(octets, 100) for name, octets in COSTLY.items()},
    "flood of a body": flooding(frame(DATA, 0, 1, b"a" * 16_384), OPEN_ANSWER(1)),
    "flood of CONTINUATION": flooding(frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 100), frame(HEADERS, 0, 1, b"\x88")),
    "flood of empty CONTINUATION": flooding(frame(CONTINUATION, 0, 1), frame(HEADERS, 0, 1, b"\x88")),
    "flood of pushed streams": flooding(frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x82")),
    "nothing at all": silent(b""),
    "nothing at all, and does not read": silent(b"", reading=False),
    "no streams": silent(settings((MAX_CONCURRENT_STREAMS, 0))),
    "no windows": silent(settings((INITIAL_WINDOW_SIZE, 0))),
    "no answers": silent(USUAL),
    "no answers, not even to PING": silent(USUAL, pongs=False),
    "not reading": silent(USUAL, reading=False),
    "GOAWAY at once": at_once(USUAL + goaway(0)),
    "GOAWAY at once, with an error": at_once(USUAL + goaway(0, INTERNAL_ERROR)),
    "GOAWAY to each request": answering(lambda _: goaway(0)),
    "GOAWAY to each request, and closes": answering(lambda _: goaway(0), close=True),
    "GOAWAY for none, and no answers": answering(lambda _: goaway(2**31 - 1)),
    "refuses each stream": answering(reset(REFUSED_STREAM)),
    "resets each stream": answering(reset(INTERNAL_ERROR)),
    "503 to each": answering(status(503)),
    "429 to each": answering(status(429)),
    "403 to each": answering(status(403)),
    "700 to each": answering(status(700)),
    "no status": answering(of_stream(HEADERS, END_STREAM | END_HEADERS, b"")),
    "two answers to each": answering(status(200), status(200)),
    "an answer without end": answering(OPEN_ANSWER),
    "an answer octet by octet": dripping(lambda stream: OPEN_ANSWER(stream) + frame(DATA, 0, stream, b" " * 9_000)),
    "a header bomb": answering(of_stream(HEADERS, END_STREAM | END_HEADERS, BOMB)),
    "a broken header block": answering(of_stream(HEADERS, END_STREAM | END_HEADERS, b"\xff" * 20)),
    "the answer of another stream": answering(lambda stream: status(200)(stream + 1_000)),
    "tables that change": answering(
        lambda stream: settings((HEADER_TABLE_SIZE, 4_096 * (stream % 4 // 2))), status(200)
    ),
    "a frame size that is none": at_once(settings((MAX_FRAME_SIZE, 1))),
    "a huge frame": answering(lambda stream: b"\xff\xff\xff\0\0" + struct.pack(">I", stream)),
    "HTTP/1.1": at_once(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "zeros": at_once(b"\0" * 1_000),
    "closes at once": at_once(b""),
    "closes at each request": answering(close=True),
}


def pass_on(sock: ssl.SSLSocket, directory: Path, port: int) -> None:
    """What two sides say to one another, by one thread: an SSL object is not for two."""
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(socket.create_connection(("localhost", port)), server_hostname="localhost") as server:
        others: dict[ssl.SSLSocket, ssl.SSLSocket] = {sock: server, server: sock}
        while True:
            ready = [end for end in others if end.pending()] or select.select(list(others), (), ())[0]
            for end in ready:
                data = end.recv(65_536)
                if not data:
                    return
                others[end].sendall(data)


def handle(sock: socket.socket, context: ssl.SSLContext, directory: Path, name: str, port: int) -> None:
    try:
        with context.wrap_socket(sock, server_side=True) as tls:
            if tls.getpeercert():
                PEERS[name](Peer(tls))
            else:
                pass_on(tls, directory, port)
    except OSError:
        sock.close()


def main() -> None:
    directory, name, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    context = server_context(directory)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(directory / "bad" / "ca.pem")
    context.set_alpn_protocols(["h2"])
    serve_for_ever(partial(handle, context=context, directory=directory, name=name, port=port))


if __name__ == "__main__":
    main()
