"""An app served through XMPP, against the simulated service: the window, lost and drained links, ids, receipts."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import gevent
import pytest
from gevent.pool import Group

from lab.processes import wait_until
from lab.scripted_xmpp import Scripted, say
from pusher.backoff import BackOff
from pusher.broker.interface import Done, Header, PublishError, TopicRefused
from pusher.errors import CredentialError
from pusher.providers.google.answer import Answer
from pusher.providers.google.feedback import google_feedback
from pusher.providers.google.xmpp.link import CertificateError, LinkError, LinkSettings
from pusher.providers.google.xmpp.message import GcmPush, parse
from pusher.providers.google.xmpp.service import GcmService, GcmSettings, log_in_once
from pusher.providers.google.xmpp.window import Unanswered, Window
from pusher.providers.tls import TlsTrust
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane, LaneSettings
from pusher.push.outcome import Kind
from pusher.push.pipeline import Pipeline
from pusher.push.retry import RetryPolicy
from pusher.sim.gcm import GcmSimulator
from pusher.telemetry.stats import Stats
from tests.publisher import StoringPublisher
from tests.records import record, request, tracker

TOPIC = "push-game_gcm-single"
TOKEN = "token"


class Bed:
    """A simulator, and the service of the app "game" in a pipeline."""

    def __init__(
        self,
        simulator: GcmSimulator,
        *,
        retry: RetryPolicy | None = None,
        link: dict[str, Any] | None = None,
        publisher: StoringPublisher | None = None,
        feedbacks: bool = True,
        **how: Any,
    ) -> None:
        self.simulator = simulator
        self.pushes: list[GcmPush] = []
        self.publisher = publisher or StoringPublisher()
        self.lane: Lane[GcmPush] = Lane(
            LaneSettings("game", "gcm", "gcm", "pod-1", retry or RetryPolicy(0.01, 5, max_wait_s=0.05)),
            self._parse,
            google_feedback,
            [FeedbackTopics(self.publisher)] if feedbacks else [],
            Stats("test"),
        )
        self.pipeline = Pipeline("gcm", ("game",), lambda: self.publisher, Stats("test"), "")
        self.pipeline.lanes["game"] = self.lane
        self.tracker = tracker(TOPIC)
        self.settings = GcmSettings(
            LinkSettings("localhost", simulator.port, "123", "key", **link or {}),
            TlsTrust(simulator.ca_file),
            **{"back_off": BackOff(0.01, 0.05), "refused_every_s": 0.05} | how,  # type: ignore[arg-type]
        )
        self.service = GcmService(self.lane, self.settings)
        self._loops = Group()
        self._submitted = 0

    def __enter__(self) -> Self:
        for loop in self.service.loops().values():
            self._loops.spawn(loop)
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close(0.0)
        self._loops.kill()
        assert self.simulator.violations == []

    def _parse(self, value: bytes | None, origin: str) -> GcmPush:
        self.pushes.append(parse(value, origin))
        return self.pushes[-1]

    @property
    def outcomes(self) -> dict[Kind, int]:
        return {kind: count for kind, count in self.lane.totals.outcomes.items() if count}

    def submit(self, count: int = 1, **fields: object) -> None:
        """Numbered pushes, whose message ids are m0, m1, ... unless they are given."""
        records = []
        for number in range(self._submitted, self._submitted + count):
            message = {"to": f"{TOKEN}{number}", "message_id": f"m{number}", **fields}
            records.append(record(message, number, TOPIC))
        self._submitted += count
        self.pipeline.submit(self.tracker, self.tracker.admit(records))

    def wait_until_done(self) -> None:
        wait_until(lambda: self.lane.in_hand == 0)
        assert self.tracker.low == self._submitted

    def wait_until_pending(self, count: int) -> None:
        wait_until(lambda: sum(len(link.pending) for link in self.simulator.links) == count)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.service.health().ready)


def ack(message_id: str) -> str:
    """The stanza in which Google would say it."""
    answer = json.dumps({"message_type": "ack", "message_id": message_id, "from": "x"})
    return f"<message><gcm xmlns='google:mobile:data'>{answer}</gcm></message>"


@pytest.fixture
def simulator() -> Iterator[GcmSimulator]:
    with GcmSimulator({"123": "key"}) as simulator:
        yield simulator


def test_an_acknowledged_push_is_delivered(simulator: GcmSimulator) -> None:
    with Bed(simulator) as bed:
        bed.submit(metadata={"jobId": "7"})
        bed.wait_until_done()
        (feedback,) = bed.publisher.feedbacks
    assert feedback.pop("timestamp") > 1_700_000_000
    assert feedback == {
        "from": "token0",
        "message_id": "m0",
        "message_type": "ack",
        "category": "",
        "metadata": {"game": "game", "hostname": "pod-1", "jobId": "7", "platform": "gcm"},
    }


def test_never_more_are_pending_than_the_window_has_places(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 0.01
    with Bed(simulator, max_pending=10) as bed:
        bed.submit(300)
        bed.wait_until_done()
        assert bed.service.in_flight == 0
    assert simulator.max_pending == 10
    assert bed.outcomes == {Kind.DELIVERED: 300}


@pytest.mark.parametrize(
    "fault",
    [
        "ack NEWTOKEN",
        "nack INVALID_JSON",
        "nack SERVICE_UNAVAILABLE,once",
        "silence,once",
        "twice",
        "wrong-id",
        "garbage",
        "receipt",
        "upstream",
        "stanza-error",
        "stanza-error service-unavailable,once",
        "drain,once,times=3",
        "cut,once,times=3",
        "cut,once,times=3,delivered",
        "end,once,times=3",
        "broken-xml,once,times=3",
        "stream-error,once,times=3",
        "freeze 0.1,once,times=3",
    ],
)
def test_a_place_is_given_back_whatever_happens(simulator: GcmSimulator, fault: str) -> None:
    """Were one lost with each message, the last of these could never be sent."""
    simulator.set_faults([fault])
    with Bed(simulator, max_pending=2, ack_timeout_s=0.3, retry=RetryPolicy(0.01, 9, max_wait_s=0.05)) as bed:
        bed.submit(12)
        bed.wait_until_done()
        wait_until(lambda: bed.service.in_flight == 0)
    assert sum(bed.outcomes.values()) == 12
    ids = Counter(feedback["message_id"] for feedback in bed.publisher.feedbacks)
    assert {f"m{n}": 1 for n in range(12)}.items() <= ids.items()


def test_what_was_pending_on_a_lost_link_goes_out_again_oldest_first_with_the_same_ids(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 60
    with Bed(simulator, max_pending=5) as bed:
        bed.submit(8)
        bed.wait_until_pending(5)
        simulator.ack_delay_s = 0
        simulator.command("cut")
        bed.wait_until_done()
    assert [entry[0] for entry in simulator.ledger.received] == [
        *["m0", "m1", "m2", "m3", "m4"],
        *["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7"],
    ]
    assert len(bed.publisher.feedbacks) == 8


def test_a_push_on_which_the_link_is_cut_each_time_fails_in_the_end(simulator: GcmSimulator) -> None:
    simulator.set_faults(["prefix=token0:cut"])
    with Bed(simulator) as bed:
        bed.submit(1)
        bed.wait_until_done()
        bed.submit(1)
        bed.wait_until_done()
    assert simulator.arrivals["m0"] == 5
    assert [feedback.get("error") for feedback in bed.publisher.feedbacks] == ["ConnectionError", None]


def test_what_was_never_written_has_made_no_attempt(simulator: GcmSimulator) -> None:
    patience = {"ping_interval_s": 0.5, "ping_timeout_s": 1.0}
    with Bed(simulator, max_pending=2_500, link=patience, retry=RetryPolicy(0.01, 50, max_wait_s=0.05)) as bed:
        bed.wait_until_ready()
        simulator.command("freeze 60")
        bed.submit(2_500, data={"text": "x" * 3_500})
        wait_until(lambda: bed.service.in_flight == 2_500)
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 2_500}
    assert {1, 2} <= {push.attempts for push in bed.pushes}


def test_an_answer_counts_although_the_link_ends_with_the_same_bytes(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 60
    with Bed(simulator) as bed:
        bed.submit()
        bed.wait_until_pending(1)
        simulator.links[0].write(ack("m0") + "</stream:stream>")
        bed.wait_until_done()
    assert simulator.arrivals == {"m0": 1}


class Owner:
    def __init__(self) -> None:
        self.ends: dict[str, object] = {}
        #: None: there is to be none.
        self.late: list[Answer] | None = None

    def ended(self, push: GcmPush, end: object) -> None:
        self.ends[push.id] = end

    def answered_late(self, message_id: str, answer: Answer) -> None:
        assert self.late is not None, "an answer"
        self.late.append(answer)

    def upstream(self, window: Window, message: object) -> None:
        pytest.fail("a message")

    def died(self, error: BaseException) -> None:
        raise error


def test_how_messages_of_a_lost_link_end(simulator: GcmSimulator) -> None:
    """Written, begun to be written or waiting to be: only the first two may have arrived."""

    owner = Owner()
    link = LinkSettings("localhost", simulator.port, "123", "key", ping_interval_s=0.2, ping_timeout_s=0.3)
    window = Window(link, 2_500, 60, owner)
    window.open(TlsTrust(simulator.ca_file).context())
    simulator.command("freeze 60")
    for number in range(2_500):
        message = {"to": "x", "message_id": f"m{number}", "data": {"text": "x" * 3_500}}
        window.send(parse(*request(message, number, TOPIC)))
    wait_until(lambda: window.pending == 0)
    assert window.left.is_set()
    unsent = [message_id for message_id, end in owner.ends.items() if end is Unanswered.UNSENT]
    lost = [message_id for message_id, end in owner.ends.items() if end is Unanswered.LOST]
    assert len(unsent) + len(lost) == 2_500
    assert set(window._link.unwritten) < set(unsent)
    assert sorted(lost, key=lambda message_id: int(message_id[1:])) == [f"m{n}" for n in range(len(lost))]
    assert lost


def test_a_push_that_is_taken_when_the_link_is_left_goes_over_the_next_one(simulator: GcmSimulator) -> None:
    with Bed(simulator) as bed:
        bed.wait_until_ready()
        assert bed.service._window
        bed.submit()
        bed.service._window.leave("in the same turn")
        bed.wait_until_done()
    assert simulator.arrivals == {"m0": 1}


def test_a_drained_link_finishes_its_messages_beside_the_one_that_takes_new_ones(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 60
    with Bed(simulator, max_pending=5) as bed:
        bed.submit(3)
        bed.wait_until_pending(3)
        (old,) = simulator.links
        simulator.ack_delay_s = 0
        simulator.command("drain")
        wait_until(lambda: len(simulator.links) == 2)
        bed.submit(20)
        wait_until(lambda: bed.outcomes.get(Kind.DELIVERED) == 20)
        assert old.pending == {"m0", "m1", "m2"}
        for number in range(3):
            old.write(ack(f"m{number}"))
        bed.wait_until_done()
        wait_until(lambda: old not in simulator.links)
        wait_until(lambda: len(bed.service._windows) == 1)
    assert set(simulator.arrivals.values()) == {1}


def test_messages_refused_by_a_drained_link_go_over_the_next_one(simulator: GcmSimulator) -> None:
    simulator.set_faults(["prefix=token5:drain,times=1"])
    with Bed(simulator, max_pending=100) as bed:
        bed.submit(50)
        bed.wait_until_done()
    assert simulator.ledger.counts()["answers"].keys() == {"200", "400 CONNECTION_DRAINING"}
    assert bed.outcomes == {Kind.DELIVERED: 50}


def test_links_that_served_and_were_drained_are_followed_at_once(simulator: GcmSimulator) -> None:
    simulator.set_faults(["drain"])
    an_hour = BackOff(3_600, 3_600)
    with Bed(simulator, back_off=an_hour) as bed:
        for _ in range(5):
            bed.submit()
            bed.wait_until_done()
    assert simulator.events["logins"] >= 5


def test_links_that_are_drained_again_and_again_are_not_opened_without_a_pause(simulator: GcmSimulator) -> None:
    simulator.set_faults(["drain"])
    with Bed(simulator, max_pending=1) as bed:
        bed.submit(12)
        wait_until(lambda: simulator.events["logins"] == 10)
        wait_until(lambda: bed.service._window is None)
        began = time.monotonic()
        wait_until(lambda: simulator.events["logins"] > 10)
        assert time.monotonic() - began > 0.5
        simulator.set_faults([])
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 12}


def test_an_answer_after_the_time_out_ends_the_retry_that_waits(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 0.3
    with Bed(simulator, ack_timeout_s=0.05, retry=RetryPolicy(3_600, 5, max_wait_s=3_600)) as bed:
        bed.submit(3)
        wait_until(lambda: len(bed.lane.retries) == 3)
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 3}
    assert len(bed.publisher.feedbacks) == 3


def test_an_error_after_the_time_out_leaves_the_retry_waiting(simulator: GcmSimulator) -> None:
    simulator.set_faults(["nack SERVICE_UNAVAILABLE,once,delay=300"])
    with Bed(simulator, ack_timeout_s=0.05, retry=RetryPolicy(0.6, 5)) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.outcomes == {Kind.DELIVERED: 1}


def test_silence_ends_in_a_failure(simulator: GcmSimulator) -> None:
    simulator.set_faults(["silence"])
    with Bed(simulator, ack_timeout_s=0.05) as bed:
        bed.submit()
        bed.wait_until_done()
    assert simulator.arrivals["m0"] == 5
    assert bed.publisher.feedbacks[0]["error"] == "Timeout"


@pytest.mark.parametrize("error", ["SERVICE_UNAVAILABLE", "CONNECTION_DRAINING", "DEVICE_MESSAGE_RATE_EXCEEDED"])
def test_retryable_errors_are_retried_and_fail_in_the_end(simulator: GcmSimulator, error: str) -> None:
    simulator.set_faults([f"prefix=token0:nack {error}", f"prefix=token1:nack {error},once"])
    with Bed(simulator) as bed:
        bed.submit(2)
        bed.wait_until_done()
    assert simulator.arrivals == {"m0": 5, "m1": 2}
    errors = {feedback["message_id"]: feedback.get("error") for feedback in bed.publisher.feedbacks}
    assert errors == {"m0": error, "m1": None}
    assert bed.outcomes == {Kind.FAILED: 1, Kind.DELIVERED: 1}


def test_a_server_that_puts_everything_off_is_sent_little(simulator: GcmSimulator) -> None:
    simulator.set_faults(["nack SERVICE_UNAVAILABLE"])
    with Bed(simulator, retry=RetryPolicy(0.001, 10_000, max_wait_s=0.001)) as bed:
        bed.submit(200)
        wait_until(lambda: bed.service._put_off >= 200)
        before, began = simulator.arrivals.total(), time.monotonic()
        gevent.sleep(0.3)
        assert simulator.arrivals.total() - before <= 100 + 8 * (time.monotonic() - began) / 0.025
        simulator.set_faults([])
        bed.wait_until_done()
        assert bed.service._put_off == 0
    assert bed.outcomes == {Kind.DELIVERED: 200}


def test_a_dead_token_is_reported_as_one(simulator: GcmSimulator) -> None:
    simulator.set_faults(["nack DEVICE_UNREGISTERED"])
    with Bed(simulator) as bed:
        bed.submit()
        bed.wait_until_done()
    (feedback,) = bed.publisher.feedbacks
    assert feedback["message_type"] == "nack"
    assert feedback["error_description"] == "simulated DEVICE_UNREGISTERED"
    assert feedback["metadata"]["deleteToken"] is True
    assert bed.outcomes == {Kind.REJECTED: 1}


def test_a_canonical_id_is_fed_back(simulator: GcmSimulator) -> None:
    simulator.set_faults(["ack NEWTOKEN"])
    with Bed(simulator) as bed:
        bed.submit()
        bed.wait_until_done()
    assert bed.publisher.feedbacks[0]["registration_id"] == "NEWTOKEN"


def test_pushes_with_the_same_id_are_under_way_one_after_the_other(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 60
    with Bed(simulator) as bed:
        bed.submit(3, message_id="same")
        bed.submit(1)
        bed.wait_until_pending(2)
        wait_until(lambda: len(bed.lane.retries) == 2)
        assert simulator.arrivals == {"same": 1, "m3": 1}
        simulator.ack_delay_s = 0
        simulator.command("cut")
        bed.wait_until_done()
    assert simulator.arrivals == {"same": 4, "m3": 2}
    assert [feedback["message_id"] for feedback in bed.publisher.feedbacks].count("same") == 3


@pytest.mark.parametrize("kind", ["receipt", "upstream"])
def test_what_comes_from_google_is_acknowledged_when_its_feedback_is_stored(simulator: GcmSimulator, kind: str) -> None:
    with Bed(simulator, max_pending=1) as bed:
        bed.wait_until_ready()
        bed.publisher.holds = True
        simulator.command(kind)
        wait_until(lambda: bed.publisher.feedbacks)
        feedback = bed.publisher.feedbacks.pop()
        assert simulator.acknowledged == {}
        bed.publisher.holds = False
        bed.submit(3)
        bed.wait_until_done()
        bed.publisher.settle(None)
        wait_until(lambda: simulator.acknowledged)
        assert simulator.acknowledged == {feedback["message_id"]: 1}
    assert list(feedback) == ["from", "message_id", "message_type", "category", "data", "timestamp", "metadata"]
    assert feedback["message_type"] == ("receipt" if kind == "receipt" else "")
    assert feedback["metadata"] == {"game": "game", "hostname": "pod-1", "platform": "gcm"}


@pytest.mark.parametrize("message_id", ["\x01", "a\nb", "\ufffe"])
def test_a_device_cannot_break_the_stream_by_the_id_of_its_message(simulator: GcmSimulator, message_id: str) -> None:
    with Bed(simulator) as bed:
        bed.wait_until_ready()
        window = bed.service._window
        assert window is not None
        bed.service.upstream(window, {"message_id": message_id, "from": "device"})
        wait_until(lambda: simulator.acknowledged == {message_id: 1})
        bed.submit(2)
        bed.wait_until_done()
        assert bed.service._window is window


def test_what_could_not_be_stored_is_not_acknowledged(simulator: GcmSimulator) -> None:
    with Bed(simulator) as bed:
        bed.wait_until_ready()
        bed.publisher.holds = True
        simulator.command("receipt")
        wait_until(lambda: bed.publisher.records)
        bed.publisher.settle(TopicRefused("no such topic"))
        bed.publisher.full = True
        simulator.command("upstream")
        bed.publisher.holds = False
        bed.submit(5)
        bed.wait_until_done()
    assert simulator.acknowledged == {}


@pytest.mark.parametrize("refusal", [None, TopicRefused("no such topic")])
def test_what_comes_from_google_faster_than_it_is_stored_is_left_out_and_may_come_again(
    simulator: GcmSimulator, refusal: PublishError | None
) -> None:
    with Bed(simulator) as bed:
        bed.wait_until_ready()
        window = bed.service._window
        assert window is not None
        bed.publisher.holds = True
        for number in range(3_000):
            bed.service.upstream(window, {"message_id": f"r{number}", "from": "device"})
        assert len(bed.publisher.records) == 1_000
        bed.publisher.settle(refusal)
        stored = 0 if refusal else 1_000
        wait_until(lambda: len(simulator.acknowledged) == stored)
        bed.service.upstream(window, {"message_id": "again", "from": "device"})
        assert len(bed.publisher.records) == 1, "there is room again, whatever became of those before"
        bed.publisher.settle(None)
        wait_until(lambda: len(simulator.acknowledged) == stored + 1)


def test_an_acknowledgement_that_waits_takes_little_memory(simulator: GcmSimulator) -> None:
    """orjson leaves what it writes in 4 KiB: a flood of receipts took 300 MB."""
    with Bed(simulator) as bed:
        bed.wait_until_ready()
        window = bed.service._window
        assert window is not None
        bed.publisher.holds = True
        tracemalloc.start()
        try:
            for number in range(500):
                bed.service.upstream(window, {"message_id": f"r{number}", "from": "device"})
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        bed.publisher.settle(None)
    assert taken / 500 < 3_000


def test_without_feedbacks_what_comes_from_google_is_acknowledged_at_once(simulator: GcmSimulator) -> None:
    with Bed(simulator, feedbacks=False) as bed:
        bed.wait_until_ready()
        simulator.command("upstream")
        wait_until(lambda: simulator.acknowledged)


def test_while_there_is_no_link_pushes_wait_and_expire(simulator: GcmSimulator) -> None:
    simulator.stop()
    with Bed(simulator) as bed:
        bed.submit(push_expiry=1)
        bed.submit(2)
        wait_until(lambda: bed.service.health().reason.startswith("cannot connect to localhost"))
        bed.lane.tick()
        assert bed.outcomes == {Kind.EXPIRED: 1}
        simulator.start()
        bed.wait_until_done()
    assert bed.outcomes == {Kind.EXPIRED: 1, Kind.DELIVERED: 2}


def test_credentials_that_turn_wrong_are_tried_again(simulator: GcmSimulator) -> None:
    with Bed(simulator, back_off=BackOff(3_600, 3_600)) as bed:
        bed.wait_until_ready()
        simulator.accounts = {"123": "another key"}
        simulator.command("cut")
        wait_until(lambda: "not-authorized" in bed.service.health().reason)
        bed.submit(2)
        wait_until(lambda: simulator.events["refused-logins"] > 2)
        wait_until(lambda: bed.lane.full)
        simulator.accounts = {"123": "key"}
        bed.wait_until_done()
        wait_until(lambda: not bed.lane.full)
    assert bed.outcomes == {Kind.DELIVERED: 2}


def test_credentials_that_come_while_a_link_is_opened_are_used(simulator: GcmSimulator) -> None:
    simulator.accounts = {"123": "key", "456": "key"}
    with Bed(simulator) as bed:
        while not simulator.events["connections"]:
            gevent.sleep(0)
        assert not bed.service.health().ready
        bed.service.reload(replace(bed.settings, link=replace(bed.settings.link, sender_id="456")))
        wait_until(lambda: [link._user for link in simulator.links] == ["456"])
        bed.submit(2)
        bed.wait_until_done()


def test_a_server_that_answers_no_message_is_said_so_and_gets_a_new_link(
    simulator: GcmSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    """It is alive: it takes the login and answers pings."""
    simulator.set_faults(["silence"])
    retry = RetryPolicy(0.01, 99)
    with Bed(simulator, max_pending=5, retry=retry, ack_timeout_s=1.5, stalled_after_s=0.2) as bed:
        bed.submit(20)
        wait_until(lambda: not bed.service.health().ready and bed.service._window)
        assert bed.service.health().reason == "Google answers no message, and its window has no room for another"
        wait_until(lambda: simulator.events["logins"] >= 2)
        simulator.set_faults([])
        bed.wait_until_done()
        bed.wait_until_ready()
    assert 0 < caplog.text.count("Google answers no message") <= simulator.events["logins"]


def test_a_certificate_that_is_not_trusted_is_refused_again_and_again(simulator: GcmSimulator) -> None:
    with Bed(simulator) as bed:
        service = GcmService(bed.lane, GcmSettings(bed.settings.link, TlsTrust(), back_off=BackOff(0.01, 0.02)))
        keeper = gevent.spawn(service.loops()["keeper"])
        service.start()
        wait_until(lambda: service.health().reason.startswith(f"the certificate of localhost:{simulator.port} is"))
        wait_until(lambda: simulator.events["failed-handshakes"] > 3)
        keeper.kill()


def test_a_stop_waits_for_answers_and_leaves_the_rest_unfinished(simulator: GcmSimulator) -> None:
    simulator.ack_delay_s = 0.1
    simulator.set_faults(["prefix=token1:silence"])
    with Bed(simulator) as bed:
        bed.submit(2)
        bed.wait_until_pending(2)
        bed.service.close(0.5)
        wait_until(lambda: simulator.links == [])
        assert not bed.service.health().ready
        assert bed.outcomes == {Kind.DELIVERED: 1}
        assert (bed.lane.in_hand, bed.tracker.low, len(bed.lane.retries)) == (1, 1, 0)


def test_a_bug_ends_the_sender(simulator: GcmSimulator) -> None:
    class Bug(Exception):
        pass

    class FailingPublisher(StoringPublisher):
        def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
            raise Bug

    with Bed(simulator, publisher=FailingPublisher()) as bed:
        sender = gevent.spawn(bed.service.loops()["sender"])
        bed.submit()
        with pytest.raises(Bug):
            sender.get(timeout=20)


def test_a_trial_login(simulator: GcmSimulator) -> None:
    good = LinkSettings("localhost", simulator.port, "123", "key")
    trust = TlsTrust(simulator.ca_file)
    log_in_once("game", GcmSettings(good, trust), 20)
    wait_until(lambda: simulator.links == [])
    with pytest.raises(CredentialError, match=r"not-authorized; check gcm\.certs\.game\.senderID and \.apiKey"):
        log_in_once("game", GcmSettings(LinkSettings("localhost", simulator.port, "123", "wrong"), trust), 20)
    with pytest.raises(CertificateError):
        log_in_once("game", GcmSettings(good, TlsTrust()), 20)
    simulator.stop()
    with pytest.raises(LinkError, match="cannot connect"):
        log_in_once("game", GcmSettings(good, trust), 20)


ACK = '{"message_type":"ack","from":"t","message_id":"m0"}'
DEAD = '{"message_type":"nack","error":"DEVICE_UNREGISTERED","from":"t","message_id":"m0"}'
BAD = '{"message_type":"nack","error":"BAD_REGISTRATION","from":"t","message_id":"m0"}'
LATER = '{"message_type":"nack","error":"SERVICE_UNAVAILABLE","from":"t","message_id":"m0"}'


@pytest.mark.parametrize("apart", [False, True], ids=["one read", "several reads"])
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((ACK, DEAD, BAD), Kind.DELIVERED),
        ((DEAD, ACK), Kind.REJECTED),
        ((BAD, DEAD), Kind.REJECTED),
        ((LATER, ACK, DEAD), Kind.DELIVERED),
        ((LATER, DEAD, ACK), Kind.REJECTED),
        ((ACK, LATER), Kind.DELIVERED),
    ],
)
def test_the_first_final_answer_of_a_push_holds(
    tmp_path: Path, answers: tuple[str, ...], expected: Kind, apart: bool
) -> None:
    scripted = Scripted(tmp_path)

    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        scripted.until(socket, "</message>")
        stanzas = [f"<message><gcm xmlns='google:mobile:data'>{answer}</gcm></message>" for answer in answers]
        for part in stanzas if apart else ["".join(stanzas)]:
            say(socket, part)
        scripted.until(socket, "</stream:stream>")

    scripted.serve = serve
    owner = Owner()
    owner.late = []
    window = Window(LinkSettings("localhost", scripted.port, "123", "key"), 100, 60, owner)
    window.open(TlsTrust(scripted.ca_file).context())
    window.send(parse(*request({"to": "t", "message_id": "m0"}, 0, TOPIC)))

    def final() -> list[Kind]:
        answers = [*owner.ends.values(), *(owner.late or ())]
        return [one.outcome.kind for one in answers if isinstance(one, Answer) and not one.meaning.retry]

    wait_until(final)
    assert final()[0] is expected
    window.close(0.0)
    scripted.server.stop()
