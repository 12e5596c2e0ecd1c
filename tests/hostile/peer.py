"""What all peers that misbehave have in common: a port, TLS, a thread a connection."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def server_context(directory: Path) -> ssl.SSLContext:
    """With the certificate that the simulator has left in the directory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    return context


def serve_for_ever(handle: Callable[[socket.socket], None]) -> None:
    """Prints its port, and has each connection handled by a thread of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        sys.stdout.write(f"port {listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()
