"""An XMPP server that says what a test tells it to."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent.server import StreamServer

from pusher.sim.certificate import make_ca, make_server_certificate


class Scripted:
    """A TLS server that says what it is told, in the pieces it is told, whatever the client says."""

    FEATURES = "<stream:features>{}</stream:features>"
    HEADER = (
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='1'>"
    )
    LOGIN = (
        HEADER,
        FEATURES.format(
            "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
        ),
        "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        HEADER,
        FEATURES.format("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"),
    )

    def __init__(self, directory: Path) -> None:
        ca = make_ca()
        self.ca_file, _ = ca.write(directory, "ca")
        certificate = make_server_certificate(ca).write(directory, "server")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        self.received = ""
        self.serve: Callable[[Any], object] = lambda _socket: None
        self.server = StreamServer(("127.0.0.1", 0), lambda socket, _: self.serve(socket), ssl_context=context)
        self.server.start()
        self.port = int(self.server.address[1])

    def until(self, socket: Any, text: str) -> str:
        """Reads until the text has come; returns what came."""
        came = ""
        while text not in came:
            data = socket.recv(4096).decode()
            assert data
            came += data
        self.received += came
        return came

    def rest(self, socket: Any) -> None:
        """Reads to the end."""
        with contextlib.suppress(OSError):
            while data := socket.recv(4096):
                self.received += data.decode()

    def login(self, socket: Any, say: Callable[[Any, str], None]) -> None:
        self.until(socket, "version='1.0'>")
        say(socket, self.LOGIN[0] + self.LOGIN[1])
        self.until(socket, "</auth>")
        say(socket, self.LOGIN[2])
        self.until(socket, "version='1.0'>")
        say(socket, self.LOGIN[3] + self.LOGIN[4])
        bind = self.until(socket, "</iq>")
        name = bind.split('id="')[1].split('"')[0]
        jid = "<jid>123@gcm.googleapis.com/A</jid>"
        say(socket, f"<iq type='result' id='{name}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{jid}</bind></iq>")
        self.until(socket, "</presence>")


def say(socket: Any, text: str) -> None:
    socket.sendall(text.encode())
