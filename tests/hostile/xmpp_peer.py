"""An XMPP server that misbehaves: `python xmpp_peer.py DIRECTORY NAME`, with the certificates in the directory.

Threads and sockets of the standard library, in a process of its own, so that it is as fast as it can be. It prints its
port.
"""

from __future__ import annotations

import html
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.endless_xmpp import FLOODS, stanza
from tests.hostile.peer import serve_for_ever, server_context

HEADER = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='1'>"
SASL, BIND = "urn:ietf:params:xml:ns:xmpp-sasl", "urn:ietf:params:xml:ns:xmpp-bind"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
STREAM_ERROR = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
MECHANISMS = f"<stream:features><mechanisms xmlns='{SASL}'><mechanism>PLAIN</mechanism></mechanisms></stream:features>"
FEATURES = f"<stream:features><bind xmlns='{BIND}'/></stream:features>"
#: What the client has to have said, and the answer.
LOGIN = (
    (b"version='1.0'>", HEADER + MECHANISMS),
    (b"</auth>", f"<success xmlns='{SASL}'/>"),
    (b"version='1.0'>", HEADER + FEATURES),
)
STEPS = ("the stream", "the password", "the second stream", "the resource")


class Peer:
    """The server's end of a connection."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._heard = b""

    def say(self, text: str) -> None:
        self.sock.sendall(text.encode())

    def until(self, mark: bytes) -> bytes:
        """What the client said up to this."""
        while mark not in self._heard:
            data = self.sock.recv(65_536)
            if not data:
                raise OSError("the client has gone")
            self._heard += data
        said, _, self._heard = self._heard.partition(mark)
        return said + mark

    def login(self, steps: int = len(STEPS)) -> None:
        """Leads through the login, or so many of its steps."""
        for awaited, answer in LOGIN[:steps]:
            self.until(awaited)
            self.say(answer)
        if steps == len(STEPS):
            found = re.search(rb"id=[\"']([^\"']+)", self.until(b"</iq>"))
            name = found[1].decode() if found else ""
            jid = "<jid>1@gcm.googleapis.com/x</jid>"
            self.say(f"<iq type='result' id='{name}'><bind xmlns='{BIND}'>{jid}</bind></iq>")

    def pushes(self) -> Iterator[str]:
        """The ids of the messages that come; pings are answered."""
        while True:
            said = self.until(b">")
            ping = re.search(rb"<iq[^>]* id='(ping\d+)'", said)
            if ping is not None:
                self.say(f"<iq type='result' id='{ping[1].decode()}'/>")
            found = re.search(rb'<message id="([^"]*)">', said)
            if found is not None:
                yield html.unescape(found[1].decode())

    def listen(self) -> None:
        """Reads to the end."""
        for _ in self.pushes():
            pass


Serve = Callable[[Peer], None]


def answer(kind: str, name: str, **more: str) -> str:
    return stanza(json.dumps({"message_type": kind, "from": "t", "message_id": name} | more))


def nack(error: str) -> Callable[[str], str]:
    return lambda name: answer("nack", name, error=error)


def ack(name: str) -> str:
    return answer("ack", name)


def said_to_each(*parts: Callable[[str], str], apart: bool = False) -> Serve:
    """Says all this to each push, in one segment or several."""

    def serve(peer: Peer) -> None:
        peer.login()
        for name in peer.pushes():
            texts = [part(name) for part in parts]
            for text in texts if apart else ["".join(texts)]:
                peer.say(text)

    return serve


def flooding(text: str) -> Serve:
    """Says this without end from the first push on, and reads meanwhile."""
    chunk = (text * (1 + 200_000 // len(text))).encode()

    def serve(peer: Peer) -> None:
        peer.login()
        next(peer.pushes())
        threading.Thread(target=without_end, args=(peer.sock, chunk), daemon=True).start()
        peer.listen()

    return serve


def without_end(sock: ssl.SSLSocket, chunk: bytes) -> None:
    try:
        while True:
            sock.sendall(chunk)
    except OSError:
        sock.close()


def flooding_before_the_login(text: str) -> Serve:
    def serve(peer: Peer) -> None:
        peer.until(b"version='1.0'>")
        peer.say(HEADER)
        without_end(peer.sock, (text * 1_000).encode())

    return serve


def standing_still(steps: int) -> Serve:
    def serve(peer: Peer) -> None:
        peer.login(steps)
        peer.listen()

    return serve


def dripping(text: str) -> Serve:
    """One octet after the other, each in a TLS record of its own."""

    def serve(peer: Peer) -> None:
        peer.login()
        next(peer.pushes())
        for octet in text:
            peer.say(octet)
        peer.listen()

    return serve


def saying(text: str) -> Serve:
    """Says this to the first push, and closes."""

    def serve(peer: Peer) -> None:
        peer.login()
        next(peer.pushes())
        peer.say(text)

    return serve


def refusing(peer: Peer) -> None:
    peer.until(b"version='1.0'>")
    peer.say(HEADER + MECHANISMS)
    peer.until(b"</auth>")
    peer.say(f"<failure xmlns='{SASL}'><not-authorized/></failure></stream:stream>")


def resetting(peer: Peer) -> None:
    """Answers and resets the connection with the same breath."""
    peer.login()
    for name in peer.pushes():
        peer.say(ack(name))
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return


def draining(peer: Peer) -> None:
    """Sends every connection away as soon as it is there."""
    peer.login()
    peer.say(stanza('{"message_type":"control","control_type":"CONNECTION_DRAINING"}'))
    peer.listen()


def draining_after_each(peer: Peer) -> None:
    """Answers one message on each connection, and sends it away."""
    peer.login()
    for name in peer.pushes():
        peer.say(ack(name) + stanza('{"message_type":"control","control_type":"CONNECTION_DRAINING"}'))


def odd_address(peer: Peer) -> None:
    """Binds an address that is none."""
    peer.login(steps=3)
    found = re.search(rb"id=[\"']([^\"']+)", peer.until(b"</iq>"))
    name = found[1].decode() if found else ""
    peer.say(f"<iq type='result' id='{name}'><bind xmlns='{BIND}'><jid>@@ a/b@c d</jid></bind></iq>")
    peer.listen()


def many_logins(peer: Peer) -> None:
    """Takes the login and ends the stream, again and again."""
    peer.login()
    peer.say("</stream:stream>")


def not_reading(peer: Peer) -> None:
    peer.login()
    time.sleep(600)


def refused_stanza(name: str) -> str:
    words = f"<text xmlns='{STANZAS}'>{'w' * 50_000}</text>"
    error = f"<error type='modify'><bad-request xmlns='{STANZAS}'/>{words}</error>"
    return f"<message type='error' id={html.escape(name)!r}>{error}</message>"


PEERS: dict[str, Serve] = {
    **{f"flood of {name}": flooding(text) for name, text in FLOODS.items()},
    "flood of presences before the login": flooding_before_the_login("<presence/>"),
    "flood of white space before the login": flooding_before_the_login(" " * 100),
    "ack, then a dead token": said_to_each(ack, nack("DEVICE_UNREGISTERED"), nack("BAD_REGISTRATION")),
    "ack, then a dead token, apart": said_to_each(ack, nack("DEVICE_UNREGISTERED"), apart=True),
    "acks without end": said_to_each(lambda name: ack(name) * 500),
    "500 messages that are no JSON before each ack": said_to_each(lambda _: stanza("[1]") * 500, ack),
    "acks with a long tail": said_to_each(lambda name: ack(name) + f"<message>{'<a/>' * 900}</message>"),
    "errors with many words": said_to_each(refused_stanza),
    "everything put off": said_to_each(nack("SERVICE_UNAVAILABLE")),
    "other errors for each": said_to_each(lambda name: answer("nack", name, error=f"ERROR_{name}" * 100)),
    "no answers": said_to_each(lambda _: ""),
    "not reading": not_reading,
    **{f"stands still before {step}": standing_still(number) for number, step in enumerate(STEPS)},
    **{
        f"single bytes of {kind}": dripping(begin + "x" * 200_000)
        for kind, begin in {"an attribute": "<message a='", "a comment": "<!--"}.items()
    },
    "broken XML": saying("<message></gcm>"),
    "a document type": saying("<!DOCTYPE a [<!ENTITY b 'c'>]><message>&b;</message>"),
    "nested elements": saying("<a>" * 100_000),
    "a stream error": saying(
        "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    ),
    "refused logins": refusing,
    "resets after each answer": resetting,
    "drains at once": draining,
    "drains after each answer": draining_after_each,
    "an address that is none": odd_address,
    "ends after the login": many_logins,
    "closes at once": lambda peer: peer.sock.close(),
    "no XML": lambda peer: peer.say("HTTP/1.1 400 Bad Request\r\n\r\n"),
}


def silent(sock: socket.socket) -> None:
    """Takes the connection, and never answers the TLS handshake."""
    sock.recv(65_536)
    time.sleep(600)


def flooding_in_clear_text(sock: socket.socket) -> None:
    while True:
        sock.sendall(HEADER.encode() * 1_000)


#: Those that do not get as far as TLS.
WITHOUT_TLS: dict[str, Callable[[socket.socket], None]] = {
    "silence before TLS": silent,
    "a flood in clear text": flooding_in_clear_text,
}


def handle(sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
    try:
        if name in WITHOUT_TLS:
            WITHOUT_TLS[name](sock)
        with context.wrap_socket(sock, server_side=True) as tls:
            PEERS[name](Peer(tls))
    except (OSError, ValueError):
        sock.close()


def main() -> None:
    directory, name = Path(sys.argv[1]), sys.argv[2]
    serve_for_ever(partial(handle, context=server_context(directory), name=name))


if __name__ == "__main__":
    main()
