"""How kafka-python's transports read and write, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
import pytest
from kafka.errors import KafkaConnectionError, KafkaProtocolError
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport

import pusher.broker.kafka.client  # noqa: F401 - lets transports work so
from lab.processes import wait_until
from pusher.broker.kafka import transport as ours_of_transport
from pusher.broker.kafka.loop import HubSelector


class Reading:
    """What a transport hands its data to."""

    _sensors = None

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: list[object] = []
        self.refuses = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.refuses:
            raise KafkaProtocolError("not an answer")

    def connection_lost(self, error: object) -> None:
        self.lost.append(error)


class Line:
    """A transport of a running loop, and the socket at the other end."""

    def __init__(self) -> None:
        self.net = NetworkSelector(selector=HubSelector)
        self.net.wakeup = self.net._selector.wake
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.transport = KafkaTCPTransport(self.net, ours)
        self.reading = Reading()
        self.transport.set_protocol(self.reading)
        self.transport.resume_reading()

    def turn_until_lost(self) -> object:
        wait_until(self._is_lost, "the connection was not told to be lost", 10)
        (error,) = self.reading.lost
        return error

    def _is_lost(self) -> bool:
        self.net.poll(timeout_ms=10)
        return bool(self.reading.lost)

    def turn_until(self, octets: int) -> None:
        def arrived() -> bool:
            self.net.poll(timeout_ms=10)
            return len(self.reading.received) >= octets

        wait_until(arrived, "the octets did not arrive", 10)

    @property
    def registered(self) -> int:
        """Sockets that the loop waits for, but its own."""
        return len(self.net._selector.get_map()) - 1


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.theirs.close()
    made.transport.abort()


def test_the_library_uses_what_is_here() -> None:
    for name in ("write", "_read_from_sock", "_sock_recv"):
        assert getattr(KafkaTCPTransport, name).__module__ == ours_of_transport.__name__


def test_all_that_comes_is_handed_on(line: Line) -> None:
    for size in (1, 65_536, 1, 200_000, 65_535):
        before = len(line.reading.received)
        sending = gevent.spawn(line.theirs.sendall, b"x" * size)
        line.turn_until(before + size)
        sending.get()
    assert line.registered == 1


def test_what_came_before_the_end_is_handed_on_first(line: Line) -> None:
    line.theirs.sendall(b"why")
    line.theirs.close()
    assert isinstance(line.turn_until_lost(), KafkaConnectionError)
    assert line.reading.received == b"why"
    assert line.registered == 0


def test_what_is_not_an_answer_ends_the_connection(line: Line) -> None:
    line.reading.refuses = True
    line.theirs.sendall(b"HTTP/1.1")
    assert isinstance(line.turn_until_lost(), KafkaProtocolError)
    assert line.registered == 0


def test_a_closed_transport_is_waited_for_no_longer(line: Line) -> None:
    line.theirs.sendall(b"x")
    line.turn_until(1)
    line.transport.close()
    assert line.turn_until_lost() is None
    assert line.registered == 0
    line.net.poll(timeout_ms=0)
    assert line.reading.received == b"x"


def test_what_a_socket_does_not_take_at_once_follows() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    net = NetworkSelector(selector=HubSelector)
    net.wakeup = net._selector.wake
    transport = KafkaTCPTransport(net, ours)
    parts = [bytes([number]) * 300_000 for number in range(5)]
    for part in parts:
        transport.write(part)
    assert transport._writing
    received = bytearray()

    def read() -> None:
        while len(received) < sum(map(len, parts)):
            received.extend(theirs.recv(65_536))

    reading = gevent.spawn(read)
    while not reading.ready():
        net.poll(timeout_ms=10)
    assert bytes(received) == b"".join(parts)
    theirs.close()
    transport.abort()
