"""An app served through FCM, against the simulated service and its token endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

import gevent
import pytest
from gevent.pool import Group

from lab.processes import wait_until
from lab.simulators import simulators
from pusher.backoff import BackOff
from pusher.providers.google.fcm.access_token import AccessToken, TokenEndpoint
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.google.fcm.message import FcmParser, FcmPush
from pusher.providers.google.fcm.pace import Pace
from pusher.providers.google.fcm.service import FcmService, FcmSettings, Project
from pusher.providers.google.feedback import google_feedback
from pusher.providers.http1 import Client
from pusher.providers.http2.pool import Policy
from pusher.providers.http2.transport import Origin
from pusher.providers.tls import TlsTrust
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane, LaneSettings
from pusher.push.outcome import Kind
from pusher.push.pipeline import Pipeline
from pusher.push.retry import RetryPolicy
from pusher.sim.fcm import FcmSimulator
from pusher.telemetry import metrics
from pusher.telemetry.stats import Stats
from tests.publisher import Clock, StoringPublisher
from tests.records import record, tracker

PROJECT = "my-project"
HTML = "<html><title>502 Bad Gateway</title></html>"


class Bed:
    """An app's service in a pipeline. Its clock is the token's alone."""

    def __init__(
        self,
        simulator: FcmSimulator,
        retry: RetryPolicy | None = None,
        *,
        app: str = "game",
        account: dict[str, str] | None = None,
        pace: Pace | None = None,
        **how: Any,
    ) -> None:
        self.app = app
        self.publisher = StoringPublisher()
        self.stats = Stats("test")
        self.lane: Lane[FcmPush] = Lane(
            LaneSettings(app, "gcm", "fcm", "pod-1", retry or RetryPolicy(0.01, 5)),
            FcmParser(app),
            google_feedback,
            [FeedbackTopics(self.publisher)],
            self.stats,
        )
        self.pipeline = Pipeline("gcm", (app,), lambda: self.publisher, Stats("test"), "")
        self.pipeline.lanes[app] = self.lane
        self.topic = f"push-{app}_gcm-single"
        self.tracker = tracker(self.topic)
        trust = TlsTrust(simulator.ca_file)
        found = ServiceAccount.read(account or simulator.oauth.new_account(PROJECT), "the account")
        self.clock = Clock(1_000.0)
        endpoint = TokenEndpoint(found, Client(trust.context), timeout_s=0.5)
        self.token = AccessToken(app, endpoint.fetch, back_off=BackOff(0.01, 0.05), clock=self.clock)
        settings: dict[str, Any] = {"policy": Policy(back_off=BackOff(0.01, 0.05))} | how
        origin = Origin("localhost", simulator.port)
        self.pace = pace or Pace(0, time.monotonic(), probe_every_s=0.05)
        self.service = FcmService(
            self.lane,
            FcmSettings(origin, trust, **settings),
            Project(found.project_id, self.token, self.pace),
            self.stats,
        )
        self._loops = Group()
        self._submitted = 0

    def __enter__(self) -> Self:
        self.token.prime(20)
        for loop in self.service.loops().values():
            self._loops.spawn(loop)
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close(0.0)
        self._loops.kill()

    @property
    def outcomes(self) -> dict[Kind, int]:
        return {kind: count for kind, count in self.lane.totals.outcomes.items() if count}

    @property
    def feedback(self) -> dict[str, Any]:
        (feedback,) = self.publisher.feedbacks
        return feedback

    def submit(self, count: int = 1, **fields: object) -> None:
        records = []
        for number in range(self._submitted, self._submitted + count):
            message = {"to": f"token{number}", "message_id": f"m{number}", "data": {"id": f"m{number}"}} | fields
            records.append(record(message, number, self.topic))
        self._submitted += count
        self.pipeline.submit(self.tracker, self.tracker.admit(records))

    def wait_until_done(self) -> None:
        wait_until(lambda: self.lane.in_hand == 0, lambda: str(self.lane.totals))
        assert self.tracker.low == self._submitted

    def next_retry_s(self) -> float:
        """When the one push that waits for its retry is due, from now."""
        wait_until(lambda: len(self.lane.retries) == 1, lambda: f"no retry: {self.publisher.feedbacks}")
        return (self.lane.retries.next_due or 0.0) - time.monotonic()


Simulate = Callable[..., FcmSimulator]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    with simulators(lambda *faults, **options: FcmSimulator(faults, **options)) as start:
        yield start


# --- answers


def test_an_accepted_push_is_delivered(simulate: Simulate) -> None:
    simulator = simulate()
    with Bed(simulator) as bed:
        bed.submit(metadata={"jobId": "7"})
        bed.wait_until_done()
    name = "projects/my-project/messages/0:m0"
    metadata = {"fcmName": name, "game": "game", "hostname": "pod-1", "jobId": "7", "platform": "gcm"}
    feedback = bed.feedback
    assert feedback.pop("timestamp") == pytest.approx(time.time(), abs=60)
    assert feedback == {
        "from": "token0",
        "message_id": "m0",
        "message_type": "ack",
        "category": "",
        "metadata": metadata,
    }
    assert simulator.received == [("m0", "token0", 200, "")]


@pytest.mark.parametrize(
    ("answer", "error", "kind", "deletes"),
    [
        ("400 INVALID_ARGUMENT", "INVALID_JSON", Kind.REJECTED, False),
        ("404 UNREGISTERED", "DEVICE_UNREGISTERED", Kind.REJECTED, True),
        ("404 NOT_FOUND", "UNKNOWN", Kind.REJECTED, False),
        ("403 SENDER_ID_MISMATCH", "SENDER_ID_MISMATCH", Kind.REJECTED, False),
        ("403 PERMISSION_DENIED", "UNKNOWN", Kind.REJECTED, False),
        ("401 THIRD_PARTY_AUTH_ERROR", "THIRD_PARTY_AUTH_ERROR", Kind.REJECTED, False),
        ("429 QUOTA_EXCEEDED,retry-after=0", "DEVICE_MESSAGE_RATE_EXCEEDED", Kind.FAILED, False),
        ("500", "INTERNAL_SERVER_ERROR", Kind.FAILED, False),
        ("503", "SERVICE_UNAVAILABLE", Kind.FAILED, False),
        (f"502,body={HTML}", "UNKNOWN", Kind.FAILED, False),
        (f"404,body={HTML}", "UNKNOWN", Kind.REJECTED, False),
    ],
)
def test_a_refused_push_is_fed_back(simulate: Simulate, answer: str, error: str, kind: Kind, deletes: bool) -> None:
    simulator = simulate(answer)
    with Bed(simulator) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.outcomes == {kind: 1}
    assert bed.feedback["message_type"] == "nack"
    assert bed.feedback["error"] == error
    assert bed.feedback["error_description"]
    assert bed.feedback["metadata"].get("deleteToken", False) is deletes
    assert len(simulator.received) == (5 if kind is Kind.FAILED else 1)
    assert bed.stats.counter(metrics.FAILED, "gcm", "game", error.lower()).total == 1


def test_a_token_that_google_never_gave_out_is_fed_back_as_such(simulate: Simulate) -> None:
    with Bed(simulate()) as bed:
        bed.submit(to="a/b")
        bed.wait_until_done()
    assert (bed.outcomes, bed.feedback["error"]) == ({Kind.REJECTED: 1}, "INVALID_REGISTRATION")
    assert bed.feedback["metadata"]["deleteToken"] is True


@pytest.mark.parametrize("answer", ["429,retry-after=0", "500", "503,retry-after=0", f"502,body={HTML}", "504"])
def test_what_passes_is_tried_again(simulate: Simulate, answer: str) -> None:
    simulator = simulate(answer.replace(",body", ",times=1,body") if "body" in answer else f"{answer},times=1")
    with Bed(simulator) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 1}
    assert [status for _, _, status, _ in simulator.received] == [int(answer[:3]), 200]


def test_no_answer_is_tried_again(simulate: Simulate) -> None:
    with Bed(simulate("silence,times=1"), request_timeout_s=0.2) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 1}


def test_no_answer_at_all_is_a_failure(simulate: Simulate) -> None:
    with Bed(simulate("silence"), RetryPolicy(0.01, 2), request_timeout_s=0.1) as bed:
        bed.submit()
        bed.wait_until_done()
    assert (bed.outcomes, bed.feedback["error"]) == ({Kind.FAILED: 1}, "Timeout")


def test_a_link_that_is_sent_away_costs_no_attempt(simulate: Simulate) -> None:
    simulator = simulate("goaway:1/5,unprocessed,times=10")
    with Bed(simulator, RetryPolicy(0.01, 1)) as bed:
        bed.submit(200)
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 200}
    assert simulator.ledger.counts()["duplicates"] == 0


def test_latency_is_measured_from_request_to_answer(simulate: Simulate) -> None:
    with Bed(simulate("ok,delay=50")) as bed:
        bed.submit(3)
        bed.wait_until_done()
    bed.stats.flush()
    samples = [sample for sample in bed.stats.snapshot() if sample.metric is metrics.FIREBASE_LATENCY]
    assert [sample.observations for sample in samples] == [3]
    assert samples[0].value >= 3 * 50


# --- when it is tried again


def test_a_quota_waits_a_minute_and_longer_each_time(simulate: Simulate) -> None:
    with Bed(simulate("429"), RetryPolicy(0.01, 5, max_wait_s=3_600, max_elapsed_s=3_600)) as bed:
        bed.submit()
        assert 59 < bed.next_retry_s() <= 90
        (push,) = bed.lane.retries.drain(lambda *_: False)
        push.attempts = 2
        bed.lane.retries.push(0.0, push)
        wait_until(lambda: push.attempts == 3, "no third attempt")
        assert 239 < bed.next_retry_s() <= 360


def test_the_wait_for_a_quota_ends_with_the_longest_time(simulate: Simulate) -> None:
    with Bed(simulate("429"), RetryPolicy(0.01, 5, max_wait_s=30, max_elapsed_s=20)) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.feedback["error"] == "DEVICE_MESSAGE_RATE_EXCEEDED"


@pytest.mark.parametrize("status", ["429", "503"])
def test_retry_after_wins(simulate: Simulate, status: str) -> None:
    with Bed(simulate(f"{status},retry-after=700"), RetryPolicy(0.01, 5, max_elapsed_s=3_600)) as bed:
        bed.submit()
        assert 699 < bed.next_retry_s() <= 700


def test_a_retry_after_beyond_all_limits_is_a_failure(simulate: Simulate) -> None:
    with Bed(simulate("503,retry-after=99999999999"), RetryPolicy(0.01, 5, max_elapsed_s=3_600)) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.feedback["error"] == "SERVICE_UNAVAILABLE"


@pytest.mark.parametrize("fields", [{"time_to_live": 30}, {"android": {"ttl": "30s"}}, {"time_to_live": 0}])
def test_nothing_is_tried_again_after_the_time_to_live(simulate: Simulate, fields: dict[str, Any]) -> None:
    simulator = simulate("503,retry-after=31")
    with Bed(simulator) as bed:
        bed.submit(**fields)
        bed.wait_until_done()
    assert bed.feedback["error"] == "SERVICE_UNAVAILABLE"
    assert len(simulator.received) == 1


def test_what_expires_while_it_waits_for_a_retry_is_not_sent_again(simulate: Simulate) -> None:
    simulator = simulate("503,retry-after=700")
    with Bed(simulator) as bed:
        bed.submit(push_expiry=int(time.time() * 1000) + 300)
        bed.next_retry_s()
        upkeep = gevent.spawn(_upkeep, bed.lane)
        bed.wait_until_done()
        upkeep.kill()
    assert bed.outcomes == {Kind.EXPIRED: 1}
    assert len(simulator.received) == 1


def _upkeep(lane: Lane[FcmPush]) -> None:
    while True:
        lane.tick()
        gevent.sleep(0.01)


def test_a_throttled_app_does_not_hold_another(simulate: Simulate) -> None:
    simulator = simulate("prefix=slow:429")
    with Bed(simulator, app="slow") as slow, Bed(simulator, app="fast") as fast:
        slow.submit(300, to="slow")
        fast.submit(300, to="fast")
        fast.wait_until_done()
        wait_until(lambda: slow.pace.stopped and slow.service.in_flight == 0, "the throttled ones do not wait")
        assert slow.lane.in_hand == 300
    assert fast.outcomes == {Kind.DELIVERED: 300}


# --- the quota of a project


def test_a_project_whose_quota_is_used_up_stops_and_goes_on_when_it_is_filled(simulate: Simulate) -> None:
    simulator = simulate(quota="200/1,retry-after", latency_ms=5)
    retry = RetryPolicy(0.01, 5, max_wait_s=3_600)
    with Bed(simulator, retry, max_in_flight=20) as bed:
        bed.submit(500)
        wait_until(lambda: bed.pace.stopped, "the quota is not used up")
        assert bed.service.condition().pace_per_s == 0
        bed.wait_until_done()
        assert bed.service.condition().quota_per_s
    assert bed.outcomes == {Kind.DELIVERED: 500}
    quota = simulator.counts()["quotas"][PROJECT]
    assert quota["windows"][0] == 200
    assert quota["refused"] <= 2 * 20 + 2


def test_refused_pushes_go_first_when_their_partition_waits_for_them(simulate: Simulate) -> None:
    """Without Retry-After they would wait for a minute: here their partition may not be read further."""
    simulator = simulate(quota="50/1", latency_ms=5)
    with Bed(simulator, RetryPolicy(0.01, 5, max_wait_s=3_600), max_in_flight=10) as bed:
        bed.lane.settings = replace(bed.lane.settings, patience=60)
        bed.submit(55)
        wait_until(lambda: bed.lane.retries.aside, "none was refused")
        bed.submit(100)
        wait_until(lambda: bed.tracker.low >= 55, lambda: f"they wait: {bed.lane.totals}")


def test_refused_pushes_wait_for_a_minute_while_nothing_waits_for_them(simulate: Simulate) -> None:
    simulator = simulate("429 QUOTA_EXCEEDED,times=1")
    with Bed(simulator, RetryPolicy(0.01, 5, max_wait_s=3_600)) as bed:
        bed.submit()
        assert bed.next_retry_s() > 50
        bed.submit(20)
        wait_until(lambda: len(simulator.received) == 21, "the others do not go")
        wait_until(lambda: bed.lane.in_hand == 1, "the others are not answered")
        assert bed.next_retry_s() > 50


def test_apps_of_a_project_stop_together(simulate: Simulate) -> None:
    simulator = simulate(quota="0/3600")
    pace = Pace(0, time.monotonic())
    account = simulator.oauth.new_account(PROJECT)
    with (
        Bed(simulator, app="one", pace=pace, account=account) as one,
        Bed(simulator, app="two", pace=pace, account=account) as two,
    ):
        one.submit()
        wait_until(lambda: pace.stopped, "it goes on")
        two.submit(100)
        gevent.sleep(0.05)
        assert (one.lane.in_hand, two.lane.in_hand) == (1, 100)
        assert len(simulator.received) == 1


def test_what_is_refused_for_the_quota_does_not_fill_the_inbox(simulate: Simulate) -> None:
    simulator = simulate(quota="0/3600")
    with Bed(simulator, max_in_flight=64) as bed:
        bed.lane.settings = replace(bed.lane.settings, high_water=10)
        bed.submit(9)
        wait_until(lambda: bed.lane.retries.aside == 9, "they do not wait")
        assert not bed.lane.full
        bed.submit(9)
        assert not bed.lane.full
        bed.submit(1)
        assert bed.lane.full


# --- what is sent


def test_a_dry_run_delivers_nothing(simulate: Simulate) -> None:
    simulator = simulate()
    with Bed(simulator) as bed:
        bed.submit(dry_run=True)
        bed.wait_until_done()
    assert bed.feedback["message_type"] == "ack"
    assert simulator.received == [("m0", "token0", 200, "validate_only")]
    assert simulator.ledger.delivered == {}


@pytest.mark.parametrize(
    ("fields", "target"),
    [({"to": "/topics/news"}, "news"), ({"to": None, "condition": "'a' in topics"}, "'a' in topics")],
)
def test_topics_and_conditions(simulate: Simulate, fields: dict[str, Any], target: str) -> None:
    simulator = simulate()
    with Bed(simulator) as bed:
        bed.submit(**fields)
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 1}
    assert simulator.received == [("m0", target, 200, "")]


# --- the access token


def test_a_revoked_token_is_renewed_once_and_nothing_is_lost(simulate: Simulate) -> None:
    simulator = simulate()
    with Bed(simulator, RetryPolicy(0.01, 1)) as bed:
        simulator.oauth.revoke_tokens()
        bed.clock.now += 120
        bed.submit(100)
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 100}
    assert simulator.oauth.counts["200 OK"] == 2


def test_pushes_wait_while_the_token_endpoint_is_down(simulate: Simulate) -> None:
    simulator = simulate()
    with Bed(simulator) as bed:
        simulator.oauth.set_faults(["503"])
        simulator.oauth.revoke_tokens()
        bed.clock.now += 120
        bed.submit(50)
        wait_until(lambda: "HTTP 503" in bed.service.health().reason, lambda: bed.service.health().reason)
        wait_until(lambda: bed.service.in_flight == 0, "requests without an answer")
        assert bed.lane.in_hand == 50
        simulator.oauth.set_faults([])
        moving = gevent.spawn(_move, bed.clock)
        bed.wait_until_done()
        moving.kill()
        assert bed.service.health().ready
    assert bed.outcomes == {Kind.DELIVERED: 50}


def _move(clock: Clock, step_s: float = 0.05) -> None:
    """Time goes on for the access token."""
    while True:
        clock.now += step_s
        gevent.sleep(0.01)


def test_a_project_that_is_not_ours_holds_the_app(simulate: Simulate) -> None:
    simulator = simulate()
    account = simulator.oauth.new_account(PROJECT) | {"project_id": "another"}
    with Bed(simulator, account=account, max_in_flight=5) as bed:
        bed.submit(100)
        wait_until(lambda: "credentials" in bed.service.health().reason, lambda: bed.service.health().reason)
        wait_until(lambda: bed.service.in_flight == 0, "requests without an answer")
        assert 20 <= len(simulator.received) < 30
        assert bed.lane.in_hand == 100 - len(simulator.received)
    assert {feedback["error"] for feedback in bed.publisher.feedbacks} == {"UNKNOWN"}
    assert not any("deleteToken" in feedback["metadata"] for feedback in bed.publisher.feedbacks)


def test_a_push_is_sent_once_more_with_a_new_token_and_then_it_has_failed(simulate: Simulate) -> None:
    simulator = simulate("401 UNAUTHENTICATED")
    with Bed(simulator) as bed:
        bed.submit()
        bed.wait_until_done()
        assert (bed.outcomes, bed.feedback["error"]) == ({Kind.REJECTED: 1}, "UNKNOWN")
        assert [status for _, _, status, _ in simulator.received] == [401, 401]
        bed.submit()
        bed.wait_until_done()
        assert len(simulator.received) == 3
    assert simulator.oauth.counts["200 OK"] == 2


def test_a_push_that_is_refused_with_each_new_token_fails_in_the_end(simulate: Simulate) -> None:
    simulator = simulate("401 UNAUTHENTICATED")
    with Bed(simulator) as bed:
        moving = gevent.spawn(_move, bed.clock, 120.0)
        bed.submit()
        bed.wait_until_done()
        moving.kill()
    assert len(simulator.received) == 2


def test_a_token_that_is_revoked_in_its_first_minute_is_renewed(simulate: Simulate) -> None:
    simulator = simulate()
    with Bed(simulator, RetryPolicy(0.01, 1)) as bed:
        simulator.oauth.revoke_tokens()
        bed.submit(100)
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 100}
    assert simulator.oauth.counts["200 OK"] == 2
