"""A server that says anything over XMPP: each push ends once, the link goes down once, by a reason on one line.

The window, its link and the XMPP library are the real ones, on a pair of sockets; only TLS is left out.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

import gevent
import orjson

from pusher.providers.google.xmpp.link import Link, LinkError, LinkSettings
from pusher.providers.google.xmpp.message import GcmPush, parse
from pusher.providers.google.xmpp.window import End, Window
from pusher.providers.http2.transport import TlsSocket
from pusher.push.fields import Json
from tests.fuzz.draw import Draw
from tests.records import request

SETTINGS = LinkSettings("localhost", 0, "123", "key", connect_timeout_s=20.0)
IDS = ("m1", "m2", "m3")
#: Nothing takes so long: it hangs.
LIMIT_S = 30.0
#: Asked for, not used.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

HEADER = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='s' version='1.0'>"
MECHANISMS = (
    b"<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
    b"</stream:features>"
)
SUCCESS = b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
FEATURES = b"<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
BOUND = b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>123@gcm.googleapis.com/x</jid></bind></iq>"
#: What the client has to have written before the server says the next part; none of them waits for the client's bytes
#: in an input that the fuzzer has changed.
STEPS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"<stream:stream", lambda _: HEADER + MECHANISMS),
    (b"</auth>", lambda _: SUCCESS),
    (b"<stream:stream", lambda _: HEADER + FEATURES),
    (b"</iq>", lambda said: b"<iq type='result' id=" + _quoted_id(said) + b">" + BOUND),
)


def _quoted_id(said: bytes) -> bytes:
    rest = said[said.index(b"id=") + 3 :]
    return rest[: rest.index(rest[:1], 1) + 1]


class PlainSocket:
    """What a link uses of a TLS socket, without TLS."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.send, self.close = end.sendall, end.close

    def receive(self) -> bytes:
        return self._end.recv(65_536)


class PlainLink(Link):
    """A link over a socket that is there already."""

    end: Any

    def _connect(self, where: str, tls: ssl.SSLContext) -> TlsSocket:
        return PlainSocket(self.end)  # type: ignore[return-value]

    def spawn(self, run: Callable[[], object]) -> None:
        super().spawn(_traced(run))


def _traced(run: Callable[[], object]) -> Callable[[], object]:
    """A greenlet has no trace function from the one that starts it; the lines that an input reaches need it."""
    trace = sys.gettrace()

    def traced() -> object:
        sys.settrace(trace)
        return run()

    return traced


class Owner:
    """Keeps what the window reports."""

    def __init__(self) -> None:
        self.ends: list[tuple[GcmPush, End]] = []
        self.bugs: list[BaseException] = []
        self.upstreams: list[dict[str, Json]] = []

    def ended(self, push: GcmPush, end: End) -> None:
        self.ends.append((push, end))

    def answered_late(self, message_id: str, answer: object) -> None:
        assert isinstance(message_id, str)

    def upstream(self, window: Window, message: dict[str, Json]) -> None:
        self.upstreams.append(message)

    def died(self, error: BaseException) -> None:
        self.bugs.append(error)


class Server:
    """The other end: leads through the login where it is to, then says what it was given and closes."""

    def __init__(self, end: socket.socket, content: bytes, *, polite: bool) -> None:
        self._end, self._content, self._polite = end, content, polite
        self._said = b""

    def run(self) -> None:
        try:
            if self._polite:
                for awaited, answer in STEPS:
                    self._end.sendall(answer(self._await(awaited)))
                self._await(b"m3")
            self._end.sendall(self._content)
            self._end.shutdown(socket.SHUT_WR)
            while self._end.recv(65_536):
                pass
        except OSError:
            pass  # the client has closed its end
        finally:
            self._end.close()

    def _await(self, awaited: bytes) -> bytes:
        while awaited not in self._said:
            received = self._end.recv(65_536)
            if not received:
                raise OSError("the client has gone")
            self._said += received
        said, self._said = self._said, b""
        return said


def session(data: bytes) -> None:
    draw = Draw(data)
    polite = draw.number(4) != 0
    with gevent.Timeout(LIMIT_S, AssertionError("it hangs")):
        _session(draw.rest(), polite=polite)


def _session(content: bytes, *, polite: bool) -> None:
    ours, theirs = socket.socketpair()
    server = gevent.spawn(Server(theirs, content, polite=polite).run)
    owner = Owner()
    window = Window(SETTINGS, 10, LIMIT_S, owner)
    downs: list[LinkError] = []

    def down(reason: LinkError) -> None:
        downs.append(reason)
        window._down(reason)

    link = window._link = PlainLink(
        SETTINGS,
        on_message=window._message,
        on_stanza_error=window._stanza_error,
        on_down=down,
    )
    link.end = ours
    pushes = [parse(*request({"to": "token", "message_id": name})) for name in IDS]
    try:
        window.open(TLS)
    except LinkError as error:
        _check_words(error)  # the library is not made for a server that takes the login's steps in another order
        assert not downs
        assert not polite, "no login"
        pushes = []
    for push in pushes:
        window.send(push)
    server.join()
    window.close(0.0)
    gevent.sleep(0)
    ours.close()
    assert not owner.bugs
    assert len(downs) == bool(pushes)
    for reason in downs:
        _check_reason(reason)
    assert sorted(push.id for push, _ in owner.ends) == sorted(push.id for push in pushes)
    for message in owner.upstreams:
        orjson.dumps(list(message))


def _check_reason(reason: LinkError) -> None:
    assert reason.__cause__ is None, f"not expected: {reason.__cause__!r}"
    _check_words(reason)


def _check_words(reason: LinkError) -> None:
    assert len(str(reason).splitlines()) == 1
    assert len(str(reason)) < 1_000
