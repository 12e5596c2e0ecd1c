"""A token endpoint that misbehaves: `python oauth_peer.py DIRECTORY NAME`, with the certificates in the directory.

Threads and sockets of the standard library, in a process of its own, so that it is as fast as it can be. It prints its
port.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.endless_http import DRIPPED, ENDLESS
from tests.hostile.peer import serve_for_ever, server_context

Serve = Callable[[ssl.SSLSocket], None]


def flooding(octets: bytes) -> Serve:
    def serve(sock: ssl.SSLSocket) -> None:
        while True:
            sock.sendall(octets)

    return serve


def dripping(first: bytes, octet: bytes) -> Serve:
    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(first)
        while True:
            sock.sendall(octet)
            time.sleep(0.01)

    return serve


def refusing(answer: bytes) -> Serve:
    """Answers at once, each time."""
    return lambda sock: sock.sendall(answer)


PEERS: dict[str, Serve] = {
    **{f"flood of {name}": flooding(octets) for name, octets in ENDLESS.items()},
    **{f"slow {name}": dripping(first, octet) for name, (first, octet) in DRIPPED.items()},
    "503 at once": refusing(b"HTTP/1.1 503 Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"),
    "closes at once": lambda sock: None,
    "no HTTP": refusing(b"\0" * 1_000),
}


def handle(sock: socket.socket, context: ssl.SSLContext, serve: Serve) -> None:
    try:
        with context.wrap_socket(sock, server_side=True) as tls:
            while b"grant_type" not in tls.recv(65_536):
                pass
            serve(tls)
    except OSError:
        sock.close()


def main() -> None:
    directory, name = Path(sys.argv[1]), sys.argv[2]
    serve_for_ever(partial(handle, context=server_context(directory), serve=PEERS[name]))


if __name__ == "__main__":
    main()
