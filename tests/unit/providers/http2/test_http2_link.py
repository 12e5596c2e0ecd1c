"""One link: TLS, silence, stalls, and what becomes of its exchanges when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.queue import SimpleQueue
from h2.settings import SettingCodes

from lab.http2_server import Files, Peer, Request, Server, make_files, silent
from lab.http2_wire import an_exchange, settings
from lab.processes import wait_until
from pusher.providers.http2 import Connection, End, Exchange, Origin, Patience
from pusher.providers.http2.link import Link
from pusher.providers.http2.transport import ConnectFailed, connect

WIDE = {SettingCodes.INITIAL_WINDOW_SIZE: 2**30}


def pinged(owner: Owner) -> bool:
    return owner.link.connection.ping_pending


def ticked(owner: Owner) -> bool:
    owner.link.tick(time.monotonic())
    return pinged(owner)


class Owner:
    """What a pool is to a link."""

    def __init__(self, server: Server, patience: Patience | None = None, timeout_s: float = 60.0) -> None:
        self.answers: SimpleQueue[list[Exchange]] = SimpleQueue()
        self.lists: list[list[Exchange]] = []
        self.deaths: list[BaseException | None] = []
        transport = connect(Origin("localhost", server.port), server.files.client_context(), 5)
        self.link = Link(
            transport,
            Connection(b"localhost"),
            timeout_s,
            patience or Patience(),
            self.answers,
            self.spawn,
            lambda: None,
        )
        assert self.link.up.wait(5)
        self.peer = server.peers[-1]

    def spawn(self, run: Callable[[], None]) -> gevent.Greenlet[..., object]:
        greenlet: gevent.Greenlet[..., object] = gevent.Greenlet(run)
        greenlet.link_exception(lambda dead: self.deaths.append(dead.exception))
        greenlet.start()
        return greenlet

    def ended(self, count: int) -> list[Exchange]:
        """The next exchanges that ended."""
        exchanges: list[Exchange] = []
        while len(exchanges) < count:
            self.lists.append(self.answers.get(timeout=10))
            exchanges += self.lists[-1]
        return exchanges


def test_requests_and_answers(server: Server) -> None:
    owner = Owner(server)
    exchanges = [an_exchange(b"%d" % n) for n in range(50)]
    owner.link.send(exchanges)
    assert owner.ended(50) == exchanges
    assert {exchange.end for exchange in exchanges} == {End.RESPONSE}
    assert [request.body for request in server.received] == [b"%d" % n for n in range(50)]
    owner.link.retire("enough")
    assert owner.link.ended.wait(5)
    wait_until(lambda: owner.peer.goaway_code == 0)


def test_answers_of_one_read_come_in_one_list(server: Server) -> None:
    requests: list[Request] = []

    def all_at_once(peer: Peer, request: Request) -> None:
        requests.append(request)
        if len(requests) == 20:
            for waiting in requests:
                peer.h2.send_headers(waiting.stream_id, [(b":status", b"200")], end_stream=True)

    server.script = all_at_once
    owner = Owner(server)
    owner.link.send([an_exchange() for _ in range(20)])
    owner.ended(20)
    assert len(owner.lists) == 1
    owner.link.end("enough")


def test_large_bodies_pass_through_small_windows(server: Server) -> None:
    server.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1000}
    owner = Owner(server)
    bodies = [bytes([65 + n]) * 50_000 for n in range(10)]
    owner.link.send([an_exchange(body) for body in bodies])
    assert {exchange.status for exchange in owner.ended(10)} == {200}
    assert sorted(request.body for request in server.received) == bodies
    owner.link.end("enough")


def test_the_peer_closes(server: Server) -> None:
    server.script = silent
    owner = Owner(server)
    owner.link.send([an_exchange(), an_exchange()])
    wait_until(lambda: len(server.received) == 2)
    owner.peer.cut()
    assert [exchange.end for exchange in owner.ended(2)] == [End.LOST, End.LOST]
    assert owner.link.ended.is_set()
    assert owner.link.reason
    assert owner.deaths == []


def test_the_peer_breaks_the_protocol(server: Server) -> None:
    server.script = lambda peer, request: peer.raw(b"\0\0\1\0\0\0\0\0\0x")
    owner = Owner(server)
    owner.link.send([an_exchange()])
    assert owner.ended(1)[0].end is End.LOST
    assert owner.link.ended.wait(5)
    assert "the peer broke the protocol" in owner.link.reason
    wait_until(lambda: owner.peer.goaway_code == 1)
    assert owner.deaths == []


def test_an_answer_that_does_not_come_times_out(server: Server) -> None:
    server.script = silent
    owner = Owner(server, timeout_s=30)
    owner.link.send([an_exchange()])
    wait_until(lambda: len(server.received) == 1)
    now = time.monotonic()
    owner.link.tick(now + 29)
    assert owner.link.in_flight == 1
    owner.link.tick(now + 31)
    assert owner.ended(1)[0].end is End.TIMEOUT
    wait_until(lambda: owner.peer.resets == [1])
    assert owner.link.room() > 0
    owner.link.end("enough")


def test_a_frozen_peer_is_found_out_by_its_silence(server: Server) -> None:
    server.script = silent
    owner = Owner(server)
    server.reading = False
    exchange = an_exchange()
    owner.link.send([exchange])
    wait_until(lambda: exchange.stream_id)
    owner.link.tick(time.monotonic() + 9)
    assert not pinged(owner)
    owner.link.tick(time.monotonic() + 11)
    assert pinged(owner)
    owner.link.tick(time.monotonic() + 20)
    assert not owner.link.ended.is_set()
    owner.link.tick(time.monotonic() + 22)
    assert owner.ended(1)[0].end is End.LOST
    assert "silent" in owner.link.reason


def test_a_peer_that_answers_pings_is_left_alone(server: Server) -> None:
    server.script = silent
    owner = Owner(server, Patience(ping_after_s=0.01, ping_timeout_s=5.0))
    owner.link.send([an_exchange()])
    wait_until(lambda: len(server.received) == 1)
    for _ in range(3):
        wait_until(lambda: ticked(owner))
        wait_until(lambda: not pinged(owner))
    assert not owner.link.ended.is_set()
    owner.link.end("enough")


def test_an_idle_link_is_asked_after_an_hour(server: Server) -> None:
    owner = Owner(server)
    owner.link.tick(time.monotonic() + 3500)
    assert not pinged(owner)
    owner.link.tick(time.monotonic() + 3700)
    assert pinged(owner)
    owner.link.end("enough")


def test_after_a_long_pause_a_request_gets_its_time(server: Server) -> None:
    owner = Owner(server)
    server.reading = False
    owner.link._received_at -= 1000
    owner.link.send([an_exchange()])
    owner.link.tick(time.monotonic())
    assert not pinged(owner)
    owner.link.end("enough")


def test_a_stalled_write_hangs_nothing(server: Server) -> None:
    server.settings = WIDE
    owner = Owner(server)
    owner.peer.h2.increment_flow_control_window(2**30)
    owner.peer.flush()
    wait_until(lambda: owner.link.connection._outbound.window > 2**29)
    server.reading = False
    written = [an_exchange(b"x" * 16_000) for _ in range(2000)]  # 32 MB, more than any socket buffer
    never = [an_exchange() for _ in range(3)]
    owner.link.send(written)
    gevent.sleep(0)
    owner.link.send(never)
    owner.link.tick(time.monotonic() + 11)
    owner.link.tick(time.monotonic() + 22)
    ended = owner.ended(2003)
    ends = [exchange.end for exchange in ended]
    assert ends[0] is End.LOST
    assert {exchange.end for exchange in never} == {End.UNPROCESSED}
    assert ends == sorted(ends, reverse=True)  # what was written first, then what never was
    assert owner.deaths == []


def test_the_last_words_do_not_wait_for_ever(server: Server) -> None:
    server.settings = WIDE
    owner = Owner(server)
    owner.peer.h2.increment_flow_control_window(2**30)
    owner.peer.flush()
    wait_until(lambda: owner.link.connection._outbound.window > 2**29)
    server.reading = False
    owner.link.send([an_exchange(b"x" * 16_000) for _ in range(2000)])
    gevent.sleep(0.05)
    owner.link.finish("we close")
    assert len(owner.ended(2000)) == 2000
    assert not owner.link.ended.is_set()
    owner.link.tick(time.monotonic() + 2)
    assert owner.link.ended.is_set()


@pytest.mark.parametrize("greenlet", ["_read", "_write"])
def test_a_bug_in_a_greenlet_ends_the_exchanges_and_is_seen(
    server: Server, greenlet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = lambda peer, request: peer.announce({SettingCodes.MAX_CONCURRENT_STREAMS: 7})
    owner = Owner(server)

    def fails(*_: object) -> bytes:
        raise RuntimeError("a bug")

    exchange = an_exchange()
    connection: Any = owner.link.connection
    setattr(connection, {"_read": "receive", "_write": "take_output"}[greenlet], fails)
    owner.link.send([exchange])
    assert owner.ended(1) == [exchange]
    assert exchange.end in (End.LOST, End.UNPROCESSED)
    assert owner.link.ended.is_set()
    wait_until(lambda: owner.deaths)
    assert isinstance(owner.deaths[0], RuntimeError)
    assert "a bug" in capsys.readouterr().err


# Connecting


def connect_reason(server: Server, host: str = "localhost", context: Any = None) -> str:
    with pytest.raises(ConnectFailed) as failure:
        connect(Origin(host, server.port), context or server.files.client_context(), 5)
    return str(failure.value)


def test_a_certificate_for_another_name(tmp_path: Any) -> None:
    with Server(make_files(tmp_path, "example.org")) as server:
        assert "Hostname mismatch" in connect_reason(server)


def test_an_expired_certificate(tmp_path: Any) -> None:
    with Server(make_files(tmp_path, days=-1)) as server:
        assert "the server's certificate is refused: certificate has expired" in connect_reason(server)


def test_a_certificate_of_an_unknown_authority(tmp_path: Any, files: Files) -> None:
    with Server(make_files(tmp_path)) as server:
        assert "the server's certificate is refused" in connect_reason(server, context=files.client_context())


def test_a_server_without_http_2(files: Files) -> None:
    with Server(files, alpn="http/1.1") as server:
        assert "does not speak HTTP/2" in connect_reason(server)


def test_a_context_that_does_not_verify_is_refused(server: Server) -> None:
    context = server.files.client_context()
    context.check_hostname = False
    with pytest.raises(ValueError, match="does not verify"):
        connect(Origin("localhost", server.port), context, 5)


def test_a_port_where_nobody_listens(server: Server) -> None:
    server.stop()
    assert "refused" in connect_reason(server)


def test_a_name_that_does_not_exist(server: Server) -> None:
    assert "name lookup failed" in connect_reason(server, "nowhere.invalid")


def test_a_server_that_says_nothing(files: Files) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with pytest.raises(ConnectFailed, match=r"timed out|within"):
        connect(Origin("localhost", listener.getsockname()[1]), files.client_context(), 0.2)
    listener.close()


def test_the_next_address_is_tried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = socket.getaddrinfo

    def with_a_dead_one_first(host: str, port: int, *rest: int) -> list[Any]:
        (found, *_) = real("127.0.0.1", port, *rest)
        return [(*found[:4], ("127.0.0.1", 1)), found]

    monkeypatch.setattr(socket, "getaddrinfo", with_a_dead_one_first)
    transport = connect(Origin("localhost", server.port), server.files.client_context(), 5)
    transport.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings())
    assert transport.receive()
    transport.close()
