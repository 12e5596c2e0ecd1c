"""How much a dispatcher sends to a provider that takes nothing, against a real server on a loopback port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent.pool import Group

from lab.http2_server import Peer, Request, Script, Server, answer_200, make_files
from lab.processes import wait_until
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.providers.dispatch import Dispatcher
from pusher.providers.http2 import Exchange, Origin, Pool
from pusher.providers.http2.header_block import Fields
from pusher.providers.judgement import ACCEPTED, Finish, Judgement, Proof, Retry
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane, LaneSettings
from pusher.push.outcome import Kind, Outcome
from pusher.push.retry import RetryPolicy
from pusher.telemetry.stats import Stats
from tests.publisher import Clock, ListPublisher
from tests.records import placed, request, tracker

PUSHES = 1_000
SLOW_AFTER, SLOW_BATCH = 128, 16
FAILED = Outcome(Kind.FAILED, status=429, reason="TooManyRequests", key="too-many-requests")
REJECTED = Outcome(Kind.REJECTED, status=410, reason="Unregistered", key="unregistered")


class Bed:
    """A server and, with a clock of its own, a dispatcher that has a thousand pushes to send."""

    def __init__(self, server: Server) -> None:
        self.server, self.clock = server, Clock(1_000.0)
        #: Whether an answer that is not 200 is final.
        self.final = False
        #: The status that means success.
        self.success = 200
        self.judge: Callable[[Exchange], Judgement] = self._by_status
        self.lane: Lane[ApnsPush] = Lane(
            LaneSettings("game", "apns", "apns", "pod-1", RetryPolicy(interval_s=0.0, max_attempts=1_000)),
            ApnsParser("com.game"),
            apns_feedback,
            [FeedbackTopics(ListPublisher())],
            Stats("test"),
        )
        self._fields = Fields((b"apns-topic", b"com.game"))
        #: Offsets of pushes that cannot be made into requests.
        self.broken: set[int] = set()
        #: How often a loop has raised.
        self.restarts = 0
        self.dispatcher = Dispatcher(
            self.lane,
            lambda answers: Pool(Origin("localhost", server.port), server.files.client_context, answers),
            self._exchange,
            self._judge,
            clock=self.clock,
        )
        message, source = {"DeviceToken": "ab" * 32, "Payload": {"aps": {"alert": "x"}}}, tracker()
        self.lane.put([placed(self.lane.parse(*request(message, number)), source, number) for number in range(PUSHES)])

    def _exchange(self, push: ApnsPush) -> Exchange:
        if push.offset in self.broken:
            raise RuntimeError("a fault of ours")
        return Exchange(push, self._fields, push.path, push.literals, push.body)

    def run(self, loop: Callable[[], None]) -> None:
        """As the owner of an app's greenlets does it: begins again."""
        while True:
            try:
                loop()
            except RuntimeError:
                self.restarts += 1

    def _judge(self, exchange: Exchange) -> Judgement:
        return self.judge(exchange)

    def _by_status(self, exchange: Exchange) -> Judgement:
        if exchange.status == self.success:
            return ACCEPTED
        return Judgement(Finish(REJECTED) if self.final else Retry(FAILED))

    def outcomes(self) -> dict[Kind, int]:
        return {kind: n for kind, n in self.lane.totals.outcomes.items() if n}

    def slowed_down(self, script: Script) -> int:
        """Begins with a server that puts everything off; requests so far, once no more come."""
        self.server.script = script
        self.dispatcher.pool.start()
        self.await_requests(SLOW_AFTER)
        return self.at_rest()

    def await_requests(self, number: int) -> None:
        wait_until(lambda: len(self.server.received) >= number, lambda: f"{len(self.server.received)} requests")

    def at_rest(self) -> int:
        """Requests so far, once no more come."""
        seen = -1
        while seen != len(self.server.received) or self.dispatcher.pool.in_flight:
            seen = len(self.server.received)
            gevent.sleep(0.5)
        return seen


def answer_429(peer: Peer, request: Request) -> None:
    peer.respond(request.stream_id, 429)


def reset(peer: Peer, request: Request) -> None:
    peer.reset(request.stream_id, 2)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    loops = Group()
    with Server(make_files(tmp_path)) as server:
        bed = Bed(server)
        for loop in bed.dispatcher.loops().values():
            loops.spawn(bed.run, loop)
        yield bed
        bed.dispatcher.pool.close(0.0)
        loops.kill()
    assert server.protocol_errors == []


@pytest.mark.parametrize("script", [answer_429, reset])
def test_a_provider_that_puts_everything_off_gets_few_now_and_then(bed: Bed, script: Script) -> None:
    seen = bed.slowed_down(script)
    assert seen < PUSHES
    for batches in (1, 2, 3):
        bed.clock.now += 1.0
        bed.await_requests(seen + batches * SLOW_BATCH)
        assert bed.at_rest() == seen + batches * SLOW_BATCH
    assert bed.outcomes() == {}


def test_the_first_good_answer_ends_the_slowness(bed: Bed) -> None:
    bed.slowed_down(answer_429)
    bed.server.script = answer_200
    bed.clock.now += 1.0
    wait_until(lambda: bed.outcomes() == {Kind.DELIVERED: PUSHES}, lambda: f"{bed.outcomes()}")


def test_final_answers_do_not_slow_an_app_down(bed: Bed) -> None:
    bed.final = True
    bed.server.script = answer_429
    bed.dispatcher.pool.start()
    wait_until(lambda: bed.outcomes() == {Kind.REJECTED: PUSHES}, lambda: f"{bed.outcomes()}")


def answer_201(peer: Peer, request: Request) -> None:
    peer.respond(request.stream_id, 201)


def test_which_statuses_mean_success_is_the_providers_word(bed: Bed) -> None:
    bed.success = 201
    bed.server.script = answer_201
    bed.dispatcher.pool.start()
    wait_until(lambda: bed.outcomes() == {Kind.DELIVERED: PUSHES}, lambda: f"{bed.outcomes()}")


def test_refusals_in_a_row_hold_the_app_and_one_good_answer_begins_the_count_anew(bed: Bed) -> None:
    held_before: list[bool] = []

    def judge(_: Exchange) -> Judgement:
        held_before.append(bed.dispatcher.held)
        return ACCEPTED if len(held_before) == 20 else Judgement(Finish(REJECTED), Proof.REFUSED)

    bed.judge = judge
    bed.dispatcher.pool.start()
    wait_until(lambda: bed.dispatcher.held, lambda: f"{bed.outcomes()}")
    assert not any(held_before[:40])
    assert not bed.dispatcher.health().ready


def test_a_push_that_is_at_fault_costs_itself_in_the_end_and_the_others_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pusher.push.lane._AFTER_FAULT_S", 0.001)
    bed.broken = {7, 500}
    bed.dispatcher.pool.start()
    expected = {Kind.DELIVERED: PUSHES - 2, Kind.FAILED: 2}
    wait_until(lambda: bed.outcomes() == expected, lambda: f"{bed.outcomes()}")
    assert bed.restarts


def test_an_answer_that_cannot_be_judged_costs_its_own_push_a_retry(bed: Bed) -> None:
    faults = iter(range(5))

    def judge(exchange: Exchange) -> Judgement:
        if next(faults, None) is not None:
            raise RuntimeError("a fault of ours")
        return ACCEPTED

    bed.judge = judge
    bed.dispatcher.pool.start()
    wait_until(lambda: bed.outcomes() == {Kind.DELIVERED: PUSHES}, lambda: f"{bed.outcomes()}")
    assert bed.restarts == 5
