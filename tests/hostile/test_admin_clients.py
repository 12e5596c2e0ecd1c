"""Clients of the admin port that misbehave, many and coming back, cost neither health nor pushes anything."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import gevent
from gevent.pool import Group

from lab.kafka.server import free_port
from tests.hostile.stage import Stage, scenarios

CLIENTS = 80
#: How long a client holds on before it comes back, and the pause between: a flood of new ones is not the point.
HOLD_S, PAUSE_S = 1.5, 0.1
#: What every run of the tests plays.
SHORT = ("slow heads",)

Misbehave = Callable[[socket.socket], None]


def sending(octets: bytes) -> Misbehave:
    """Sends this, and holds on without reading."""

    def misbehave(client: socket.socket) -> None:
        client.sendall(octets)
        gevent.sleep(HOLD_S)

    return misbehave


def dripping(octets: bytes) -> Misbehave:
    """Sends an octet now and then."""

    def misbehave(client: socket.socket) -> None:
        for octet in octets:
            client.sendall(bytes([octet]))
            gevent.sleep(HOLD_S / len(octets))

    return misbehave


def resetting(octets: bytes) -> Misbehave:
    """Resets the connection after this."""

    def misbehave(client: socket.socket) -> None:
        client.sendall(octets)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return misbehave


def half_closed(client: socket.socket) -> None:
    client.sendall(b"GET /metrics HT")
    client.shutdown(socket.SHUT_WR)
    gevent.sleep(HOLD_S)


GET = b"GET /metrics HTTP/1.1\r\nHost: pusher\r\n"
CLIENTS_THAT_MISBEHAVE: dict[str, Misbehave] = {
    "silence": sending(b""),
    "slow heads": dripping(GET),
    "a head without end": sending(GET + b"X-A: " + b"a" * 60_000),
    "a request line without end": sending(b"GET /" + b"a" * 60_000),
    "many header fields": sending(GET + b"a: b\r\n" * 5_000),
    "answers that nobody reads": sending((GET + b"\r\n") * 200),
    "resets in the head": resetting(GET),
    "resets before the answer": resetting(GET + b"\r\n"),
    "half-closed in the head": half_closed,
    "a body that does not come": sending(b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"),
    "chunks that do not end": dripping(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1"),
    "octets that are no HTTP": sending(bytes(range(256)) * 40 + b"\r\n\r\n"),
    "a TLS hello": sending(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "lines to forge the log": sending(b'GET /x"%0a%0dlevel=error\x1b[31m\r\rmsg="forged" HTTP/1.1\r\nHost: a\r\n\r\n'),
    "numbers that are none": sending(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1e9\r\n\r\n"),
}


def come_again(port: int, misbehave: Misbehave) -> None:
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                misbehave(client)
        except OSError:
            # it was shown the door, or the port is not open yet
            gevent.sleep(PAUSE_S)
        gevent.sleep(PAUSE_S)


@scenarios(CLIENTS_THAT_MISBEHAVE, SHORT)
def test_admin_clients(stage: Stage, name: str) -> None:
    clients = Group()
    for _ in range(CLIENTS):
        clients.spawn(come_again, stage.admin_port, CLIENTS_THAT_MISBEHAVE[name])
    try:
        assert stage.play(account=stage.account_at(free_port())) == []
    finally:
        clients.kill()
