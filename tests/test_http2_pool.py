"""The pool against a real server on a loopback port."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest
from gevent.queue import SimpleQueue

from pusher.http2 import BackOff, End, Exchange, Fields, Origin, Patience, Policy, Pool
from tests.http2_server import Files, Server, make_files

FIELDS = Fields((b"authorization", b"bearer abc"), (b"apns-topic", b"com.example"))
QUICK = Policy(
    connect_timeout_s=5,
    young_s=0.05,
    back_off=BackOff(0.01, 0.05),
    patience=Patience(ping_after_s=5, ping_timeout_s=5),
)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("tls"))


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        gevent.sleep(0.005)


def test_smoke(files: Files) -> None:
    answers: SimpleQueue[list[Exchange]] = SimpleQueue()
    with Server(files) as server:
        pool = Pool(Origin("localhost", server.port), files.client_context, answers, policy=QUICK)
        pool.start()
        sent = 0
        while sent < 1000:
            room = pool.wait_for_room(5)
            assert room, pool.state()
            batch = [Exchange(n, FIELDS, b"/3/device/ab", b"", b"{}") for n in range(sent, min(1000, sent + room))]
            pool.send(batch)
            sent += len(batch)
        got: list[Exchange] = []
        while len(got) < 1000:
            got += answers.get(timeout=5)
        assert {e.end for e in got} == {End.RESPONSE}
        assert pool.close(1) == 0
        assert server.protocol_errors == []
