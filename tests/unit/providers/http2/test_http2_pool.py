"""The pool against a real server on a loopback port."""

from __future__ import annotations

import gc
import ssl
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.queue import SimpleQueue
from h2.settings import SettingCodes

from lab.http2_server import Peer, Request, Server, answer_200, make_files, silent
from lab.http2_wire import an_exchange
from lab.processes import wait_until
from pusher.backoff import BackOff
from pusher.errors import CredentialError
from pusher.providers.http2 import End, Exchange, Origin, Patience, Policy, Pool, PoolFailed

QUICK = Policy(
    connect_timeout_s=5,
    young_s=0.05,
    back_off=BackOff(0.01, 0.05),
    patience=Patience(ping_after_s=5, ping_timeout_s=5),
)


class Service:
    """What a service is to a pool."""

    def __init__(self, server: Server, policy: Policy = QUICK, **options: Any) -> None:
        self.answers: SimpleQueue[list[Exchange]] = SimpleQueue()
        tls = options.pop("tls", server.files.client_context)
        self.pool = Pool(Origin("localhost", server.port), tls, self.answers, policy=policy, **options)
        self.pool.start()

    def send(self, count: int) -> list[Exchange]:
        """Send so many new exchanges as there is room for them."""
        exchanges: list[Exchange] = []
        while len(exchanges) < count:
            room = self.pool.wait_for_room(10)
            assert room, self.pool.state()
            batch = [an_exchange(subject=n) for n in range(min(room, count - len(exchanges)))]
            self.pool.send(batch)
            exchanges += batch
        return exchanges

    def ended(self, count: int) -> list[Exchange]:
        """The next exchanges that ended."""
        exchanges: list[Exchange] = []
        while len(exchanges) < count:
            exchanges += self.answers.get(timeout=10)
        return exchanges

    def ready(self) -> bool:
        return self.pool.state().ready


@pytest.fixture
def service(server: Server) -> Iterator[Service]:
    service = Service(server)
    yield service
    service.pool.close(0)


def test_many_requests(server: Server, service: Service) -> None:
    sent = service.send(2000)
    ended = service.ended(2000)
    assert len(set(map(id, ended))) == 2000
    assert {id(exchange) for exchange in ended} == {id(exchange) for exchange in sent}
    assert {exchange.end for exchange in ended} == {End.RESPONSE}
    assert service.pool.in_flight == 0
    assert len(server.peers) == 1


def test_in_flight_is_limited_over_all_links(server: Server) -> None:
    server.script = silent
    service = Service(server, size=2, max_in_flight=5)
    wait_until(lambda: service.pool.state().links == 2)
    assert service.pool.wait_for_room(5) == 5
    exchanges = [an_exchange() for _ in range(8)]
    service.pool.send(exchanges)
    assert service.ended(3) == exchanges[5:]
    assert {exchange.end for exchange in exchanges[5:]} == {End.UNPROCESSED}
    assert service.pool.in_flight == 5
    assert service.pool.wait_for_room(0.01) == 0
    wait_until(lambda: len(server.received) == 5)
    assert {len(peer.requests) for peer in server.peers} == {2, 3}
    assert service.pool.close(0) == 5
    assert {exchange.end for exchange in service.ended(5)} == {End.LOST}


def test_a_dead_link_keeps_no_tls_context_until_garbage_is_collected(server: Server) -> None:
    """It is most of what a link weighs."""
    contexts: list[weakref.ref[ssl.SSLContext]] = []

    def tls() -> ssl.SSLContext:
        context = server.files.client_context()
        contexts.append(weakref.ref(context))
        return context

    gc.collect()
    gc.disable()
    serving = Service(server, tls=tls)

    def connected(times: int) -> None:
        wait_until(lambda: serving.ready() and len(server.peers) == times)

    try:
        for number in range(1, 4):
            connected(number)
            server.peers[-1].cut()
        connected(4)
        wait_until(lambda: sum(context() is not None for context in contexts) == 1)
    finally:
        gc.enable()
        serving.pool.close(0)


def test_a_link_with_little_room_gets_little(server: Server) -> None:
    server.script = silent
    server.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    service = Service(server, size=2)
    wait_until(lambda: service.pool.room() == 4)
    server.peers[0].announce({SettingCodes.MAX_CONCURRENT_STREAMS: 9})
    wait_until(lambda: service.pool.room() == 11)
    service.pool.send([an_exchange() for _ in range(11)])
    wait_until(lambda: len(server.received) == 11)
    assert service.pool.room() == 0
    service.pool.close(0)


def test_whoever_waits_for_room_is_woken(server: Server, service: Service) -> None:
    server.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    server.script = silent
    service.send(1)
    waiters = [gevent.spawn(service.pool.wait_for_room, 30) for _ in range(3)]
    gevent.sleep(0.02)
    assert not any(waiter.ready() for waiter in waiters)
    wait_until(lambda: server.received)
    server.peers[0].respond(1, 200)
    gevent.joinall(waiters, timeout=5)
    assert [waiter.value for waiter in waiters] == [1, 1, 1]


def test_no_stream_at_all_for_a_while(server: Server, service: Service) -> None:
    service.send(1)
    service.ended(1)
    server.peers[0].announce({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    wait_until(lambda: service.pool.room() == 0)
    assert service.pool.wait_for_room(0.01) == 0
    server.peers[0].announce({SettingCodes.MAX_CONCURRENT_STREAMS: 3})
    assert service.pool.wait_for_room(5) == 3


def test_goaway_opens_the_next_link_while_the_old_one_finishes(server: Server, service: Service) -> None:
    server.script = silent
    (old,) = service.send(1)
    wait_until(lambda: server.received)
    server.peers[0].raw(b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0")
    wait_until(lambda: len(server.peers) == 2)
    server.script = answer_200
    (new,) = service.send(1)
    assert service.ended(1) == [new]
    assert service.pool.in_flight == 1
    server.peers[0].respond(1, 200)
    assert service.ended(1) == [old]
    assert old.end is End.RESPONSE
    wait_until(lambda: server.peers[0].goaway_code == 0)
    wait_until(lambda: not service.pool._leaving or service.pool._leaving[0].ended.is_set())


def test_goaway_returns_what_was_not_processed(server: Server, service: Service) -> None:
    server.script = silent
    exchanges = service.send(3)
    wait_until(lambda: len(server.received) == 3)
    server.peers[0].raw(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\1\0\0\0\0")
    assert {exchange.stream_id for exchange in service.ended(2)} == {3, 5}
    assert [exchange.end for exchange in exchanges] == [End.OPEN, End.UNPROCESSED, End.UNPROCESSED]


def test_a_lost_link_is_opened_again(server: Server, service: Service) -> None:
    server.script = silent
    service.send(2)
    wait_until(lambda: len(server.received) == 2)
    server.peers[0].cut()
    assert {exchange.end for exchange in service.ended(2)} == {End.LOST}
    server.script = answer_200
    service.send(1)
    assert service.ended(1)[0].status == 200
    assert len(server.peers) == 2


def test_the_server_is_away_for_a_while(server: Server, service: Service) -> None:
    service.send(1)
    service.ended(1)
    port = server.port
    server.stop()
    wait_until(lambda: not service.ready() and "refused" in service.pool.state().reason)
    assert service.pool.wait_for_room(0.01) == 0
    server.start(port)
    service.send(1)
    assert service.ended(1)[0].status == 200
    assert service.pool.state().reason == ""


def test_a_time_out_is_the_exchanges_own(server: Server) -> None:
    server.script = silent
    service = Service(server, timeout_s=0.05)
    service.send(3)
    assert {exchange.end for exchange in service.ended(3)} == {End.TIMEOUT}
    wait_until(lambda: len(server.peers[0].resets) == 3)
    server.script = answer_200
    service.send(1)
    assert service.ended(1)[0].end is End.RESPONSE
    assert len(server.peers) == 1
    service.pool.close(0)


def test_replace_opens_new_links_and_lets_the_old_finish(server: Server, service: Service) -> None:
    server.script = silent
    (old,) = service.send(1)
    wait_until(lambda: server.received)
    service.pool.replace("new credentials")
    assert service.pool.room() == 0
    server.script = answer_200
    (new,) = service.send(1)
    assert service.ended(1) == [new]
    service.pool.replace("a late answer", opened_before=old.sent_at)
    assert service.pool.room() > 0
    server.peers[0].respond(1, 403)
    assert service.ended(1) == [old]
    assert len(server.peers) == 2


def test_each_connection_asks_for_its_context(server: Server) -> None:
    contexts: list[ssl.SSLContext] = []

    def tls() -> ssl.SSLContext:
        if not contexts:
            contexts.append(ssl.create_default_context())
            raise CredentialError("cannot read the key")
        contexts.append(server.files.client_context())
        return contexts[-1]

    service = Service(server, Policy(back_off=BackOff(0.2, 0.2)), tls=tls)
    wait_until(lambda: service.pool.state().reason == "cannot read the key")
    wait_until(service.ready)
    service.pool.close(0)
    assert len(contexts) == 2


@pytest.mark.parametrize(
    ("name", "days", "reason"), [("example.org", 1, "Hostname mismatch"), ("localhost", -1, "expired")]
)
def test_a_bad_certificate_is_named_and_tried_again(tmp_path: Path, name: str, days: int, reason: str) -> None:
    with Server(make_files(tmp_path, name, days)) as server:
        service = Service(server)
        wait_until(lambda: reason in service.pool.state().reason and server.handshake_errors >= 2)
        assert not service.ready()
        service.pool.close(0)


def test_a_peer_that_indexes_gets_what_it_wants_next_time(server: Server, service: Service) -> None:
    def indexing(peer: Peer, request: Request) -> None:
        if peer is server.peers[0]:
            peer.raw(b"\0\0\1\1\5" + request.stream_id.to_bytes(4, "big") + b"\xbe")
        else:
            peer.respond(request.stream_id, 410, b"", (b"apns-id", b"x"))

    server.script = indexing
    service.send(1)
    assert service.ended(1)[0].end is End.LOST
    service.send(2)
    assert {exchange.header(b"apns-id") for exchange in service.ended(2)} == {b"x"}
    assert server.peers[1].h2.remote_settings.header_table_size == 4096


def test_close_waits_for_open_streams(server: Server, service: Service) -> None:
    server.script = silent
    service.send(2)
    wait_until(lambda: len(server.received) == 2)
    closing = gevent.spawn(service.pool.close, 10)
    gevent.sleep(0.01)
    assert service.pool.wait_for_room(0.01) == 0
    server.peers[0].respond(1, 200)
    server.peers[0].respond(3, 200)
    assert closing.get(timeout=5) == 0
    assert {exchange.end for exchange in service.ended(2)} == {End.RESPONSE}
    assert len(server.peers) == 1


def test_close_without_links(server: Server) -> None:
    server.stop()
    service = Service(server)
    gevent.sleep(0.01)
    assert service.pool.close(1) == 0


def test_a_bug_is_raised_to_the_sender(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def tls() -> ssl.SSLContext:
        raise ZeroDivisionError("a bug")

    service = Service(server, tls=tls)
    with pytest.raises(PoolFailed, match="a bug"):
        service.pool.wait_for_room(10)
    service.pool.close(0)
    assert "a bug" in capsys.readouterr().err


def test_links_that_die_young_are_not_opened_in_a_row(server: Server) -> None:
    server.script = lambda peer, request: peer.cut()
    service = Service(server, Policy(young_s=60, back_off=BackOff(3600, 3600)))
    service.send(1)
    service.ended(1)
    service.send(1)  # the first may be followed at once
    service.ended(1)
    assert service.pool.wait_for_room(0.3) == 0
    assert len(server.peers) == 2
    service.pool.close(0)


def test_links_that_served_and_were_sent_away_are_followed_at_once(server: Server) -> None:
    def serve_and_send_away(peer: Peer, request: Request) -> None:
        answer_200(peer, request)
        peer.raw(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\1\0\0\0\0")

    server.script = serve_and_send_away
    service = Service(server, Policy(young_s=60, back_off=BackOff(3600, 3600)))
    for links in range(2, 7):
        service.send(1)
        assert service.ended(1)[0].status == 200
        wait_until(lambda: len(server.peers) == links)  # noqa: B023  # polled here and now
    service.pool.close(0)


def test_links_sent_away_with_an_error_are_not_opened_in_a_row(server: Server) -> None:
    def answer_and_accuse(peer: Peer, request: Request) -> None:
        answer_200(peer, request)
        peer.raw(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\1\0\0\0\x0b")

    server.script = answer_and_accuse
    service = Service(server, Policy(young_s=60, back_off=BackOff(3600, 3600)))
    service.send(1)
    wait_until(lambda: len(server.peers) == 2)  # the first may be followed at once
    service.send(1)
    wait_until(lambda: not service.pool.state().ready)
    assert service.pool.wait_for_room(0.3) == 0
    service.pool.close(0)


def test_back_off_doubles_up_to_its_maximum() -> None:
    back_off = BackOff(1.0, 60.0)
    assert [back_off.delay_s(n, 1.0) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert back_off.delay_s(10_000, 1.0) == 60
    assert back_off.delay_s(3, 0.25) == 1


def test_dns_is_asked_at_each_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real: Any = socket.getaddrinfo

    def counting(host: str, *rest: int) -> Any:
        asked.append(host)
        return real("127.0.0.1", *rest)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    service = Service(server)
    wait_until(service.ready)
    service.pool.replace("once more")
    wait_until(lambda: len(server.peers) == 2)
    assert asked == ["localhost", "localhost"]
    service.pool.close(0)


def test_the_hub_goes_on_while_much_is_sent(server: Server, service: Service) -> None:
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.001)

    ticker = gevent.spawn(tick)
    service.send(3000)
    service.ended(3000)
    ticker.kill()
    assert len(ticks) > 10


@pytest.mark.parametrize(
    "settings",
    [{SettingCodes.MAX_CONCURRENT_STREAMS: 0}, {SettingCodes.INITIAL_WINDOW_SIZE: 0}],
    ids=["no stream", "no window"],
)
def test_a_live_link_that_lets_nothing_go_is_told_and_replaced(
    tmp_path: Path,
    settings: dict[SettingCodes, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pusher.providers.http2.pool._STALLED_AFTER_S", 0.5)
    with Server(make_files(tmp_path), settings=settings) as server:
        service = Service(server, max_in_flight=2, timeout_s=1.0)
        service.pool.demand = lambda: True
        wait_until(lambda: service.pool.state().links)
        service.pool.send([an_exchange(), an_exchange()][: service.pool.room()])
        wait_until(lambda: not service.ready())
        assert "blocks all requests" in service.pool.state().reason
        wait_until(lambda: len(server.peers) >= 2)
        assert not service.ready()
        assert [line.message for line in caplog.records].count(service.pool.state().reason) == 1
        server.settings = {}
        wait_until(service.ready)
        service.send(5)
        service.pool.close(0)


def test_room_that_time_outs_made_is_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pusher.providers.http2.pool._STALLED_AFTER_S", 0.5)
    with Server(make_files(tmp_path), settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}) as server:
        service = Service(server, max_in_flight=2, timeout_s=1.0)
        wait_until(service.ready)
        service.pool.demand = lambda: True
        service.pool.send([an_exchange()])
        gevent.sleep(0.4)  # so that the first makes room while the second still waits
        service.pool.send([an_exchange()])
        wait_until(lambda: len(server.peers) >= 2, "no other link")
        server.settings = {}
        wait_until(service.ready)
        service.send(5)
        service.pool.close(0)


def test_a_link_without_demand_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pusher.providers.http2.pool._STALLED_AFTER_S", 0.1)
    with Server(make_files(tmp_path), settings={SettingCodes.MAX_CONCURRENT_STREAMS: 0}) as server:
        service = Service(server, timeout_s=0.1)
        wait_until(service.ready)
        gevent.sleep(0.5)
        assert service.ready()
        assert len(server.peers) == 1
        service.pool.close(0)
