"""A token endpoint that misbehaves: `python oauth_peer.py DIRECTORY NAME`, with the certificates in the directory.

Threads and sockets of the standard library, in a process of its own, so that it is as fast as it can be. It prints its
port.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.endless_http import DRIPPED, ENDLESS

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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        sys.stdout.write(f"port {listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            arguments = (listener.accept()[0], context, PEERS[name])
            threading.Thread(target=handle, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
