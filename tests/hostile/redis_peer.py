"""What is no Redis, or has gone mad: `python redis_peer.py DIRECTORY NAME`.

Threads and sockets of the standard library, in a process of its own, so that it is as fast as it can be. It prints its
port.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hostile.peer import serve_for_ever

Serve = Callable[[socket.socket], None]
PONG = b"+PONG\r\n"


def flooding(octets: bytes, first: bytes = b"") -> Serve:
    """Writes this without end, and reads nothing."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(first)
        while True:
            sock.sendall(octets)

    return serve


def dripping(octet: bytes) -> Serve:
    def serve(sock: socket.socket) -> None:
        while True:
            sock.sendall(octet)
            time.sleep(0.01)

    return serve


def answering(answer: bytes) -> Serve:
    """Opens as Redis does, and says this to each script."""

    def serve(sock: socket.socket) -> None:
        while asked := sock.recv(65_536):
            if b"PING" in asked:
                sock.sendall(PONG)
            elif b"EVAL" in asked:
                sock.sendall(answer)
            else:
                sock.sendall(b"+OK\r\n" * asked.count(b"*"))

    return serve


PEERS: dict[str, Serve] = {
    "flood of zeros": flooding(b"\0" * 65_536),
    "flood of pongs": flooding(PONG * 10_000),
    "a line without end": flooding(b"a" * 65_536, b"+"),
    "a text without end": flooding(b"a" * 65_536, b"$2147483647\r\n"),
    "arrays in arrays": flooding(b"*1\r\n" * 16_000),
    "an array without end": flooding(b":1\r\n" * 16_000, b"*2147483647\r\n"),
    "slow zeros": dripping(b"\0"),
    "HTTP": lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "no numbers": flooding(b"$many\r\n"),
    "negative lengths": flooding(b"$-7\r\n*-7\r\n"),
    "closes at once": lambda sock: None,
    "a number for an answer": answering(b":2147483647\r\n"),
    "nothing for an answer": answering(b"$-1\r\n"),
    "an array for an answer": answering(b"*2\r\n$1\r\n0\r\n:1\r\n"),
    "too short an answer": answering(b"$0\r\n\r\n"),
    "too long an answer": answering(b"$900000\r\n" + b"0" * 900_000 + b"\r\n"),
    "letters for an answer": answering(b"$1\r\nx\r\n"),
    "answers that nobody asked for": answering(b"$1\r\n0\r\n" * 1_000),
    "errors": answering(b"-ERR " + b"a" * 100_000 + b"\r\n"),
}


def handle(sock: socket.socket, serve: Serve) -> None:
    try:
        serve(sock)
    except OSError:
        pass
    finally:
        sock.close()


def main() -> None:
    serve_for_ever(partial(handle, serve=PEERS[sys.argv[2]]))


if __name__ == "__main__":
    main()
