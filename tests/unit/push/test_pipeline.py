"""The life of a push: every path ends in one outcome, and only then its offset is finished."""

from __future__ import annotations

import json

import gevent
import pytest

from pusher.broker.interface import PublishError, RecordTooLarge, TopicRefused
from pusher.broker.offsets import State, TopicPartition, Tracker
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.fields import InvalidMessage
from pusher.push.lane import Lane, LaneSettings
from pusher.push.outcome import CONNECTION_ERROR, DELIVERED, TIMEOUT, Kind, Outcome
from pusher.push.pipeline import Pipeline
from pusher.push.retry import RetryPolicy
from pusher.telemetry.stats import Stats
from tests.publisher import Clock, ListPublisher
from tests.records import record, tracker

TOPIC = "push-game_apns-single"


class World:
    """One app's lane in a pipeline, with clocks that stand still."""

    def __init__(
        self, *, successes: bool = True, high_water: int = 3, invalid_topic: str = "push-<game>-<platform>-invalid"
    ):
        self.clock, self.wall = Clock(100.0), Clock(1_700_000_000.0)
        self.feedbacks, self.invalid = ListPublisher(), ListPublisher()
        self.stats = Stats("test")
        settings = LaneSettings(
            "game", "apns", "apns", "pod-1", RetryPolicy(1.0, 3), high_water=high_water, feedback_successes=successes
        )
        self.lane: Lane[ApnsPush] = Lane(
            settings,
            ApnsParser("com.game"),
            apns_feedback,
            [FeedbackTopics(self.feedbacks)],
            self.stats,
            clock=self.clock,
            wall_clock=self.wall,
        )
        self.pipeline = Pipeline("apns", ("game", "sick"), lambda: self.invalid, self.stats, invalid_topic)
        self.pipeline.lanes["game"] = self.lane
        self.tracker = tracker(TOPIC)

    def submit(self, *values: object, start: int = 0, to: Tracker | None = None) -> None:
        to = to or self.tracker
        records = [record(value, start + n, to.key.topic) for n, value in enumerate(values)]
        self.pipeline.submit(to, to.admit(records))

    def take(self, limit: int = 99) -> list[ApnsPush]:
        pushes = self.lane.take(limit, 0.0)
        self.lane.handed_over(pushes)
        return pushes


def message(n: int = 0, **fields: object) -> dict[str, object]:
    return {"DeviceToken": f"{n:064x}", "Payload": {"aps": {"alert": "x"}}, **fields}


def test_a_delivered_push_is_finished_when_its_feedback_is_stored() -> None:
    world = World()
    world.submit(message())
    (push,) = world.take()
    world.lane.finish(push, DELIVERED)
    assert world.tracker.low == 0
    ((topic, value, _, _),) = world.feedbacks.records
    assert topic == "push-game-apns-feedbacks"
    assert json.loads(value)["Sent"] is True
    world.feedbacks.settle(None)
    assert world.tracker.low == 1
    assert world.lane.in_hand == 0


def test_a_second_end_changes_nothing() -> None:
    world = World()
    world.submit(message())
    (push,) = world.take()
    world.lane.finish(push, DELIVERED)
    world.lane.finish(push, CONNECTION_ERROR)
    world.lane.retry(push, TIMEOUT)
    world.lane.resend(push)
    assert len(world.feedbacks.records) == 1
    assert world.take() == []
    assert world.lane.totals.outcomes[Kind.DELIVERED] == 1


def test_without_success_feedbacks_a_delivered_push_is_finished_at_once() -> None:
    world = World(successes=False)
    world.submit(message(1), message(2))
    delivered, failed = world.take()
    world.lane.finish(delivered, DELIVERED)
    world.lane.finish(failed, CONNECTION_ERROR)
    assert world.tracker.low == 1
    assert len(world.feedbacks.records) == 1


def test_expired_pushes_are_finished_without_a_feedback_wherever_they_wait() -> None:
    world = World()
    soon = message(push_expiry=1_700_000_000_500)
    world.submit(message(push_expiry=1_699_999_999_999), soon, soon, soon)
    assert [push.offset for push in world.lane.take(1, 0.0)] == [1]
    retried = world.lane.take(1, 0.0)
    world.lane.handed_over(retried)
    world.lane.retry(retried[0], CONNECTION_ERROR)
    world.wall.now += 1
    world.lane.tick()
    assert world.lane.totals.outcomes[Kind.EXPIRED] == 3
    assert world.tracker.low == 1
    assert world.feedbacks.records == []


def test_what_comes_right_after_others_have_expired_is_not_lost() -> None:
    world = World()
    taking = gevent.spawn(world.lane.take, 99, 20.0)
    gevent.sleep(0)  # it waits
    world.submit(message(push_expiry=1_699_999_999_999))
    world.lane.expire()
    world.submit(message(), start=1)
    assert [push.offset for push in taking.get(timeout=30)] == [1]
    assert (world.lane.in_hand, world.lane.waiting) == (1, 0)


def test_an_expiry_equal_to_now_is_still_sent() -> None:
    world = World()
    world.submit(message(push_expiry=1_700_000_000_000))
    assert len(world.take()) == 1


def test_retries_wait_and_end_in_a_failure() -> None:
    world = World()
    world.submit(message())
    failure = Outcome(Kind.FAILED, 503, "ServiceUnavailable", "service-unavailable")
    for _ in range(2):
        (push,) = world.take()
        world.lane.retry(push, failure, retry_after_s=7)
        assert world.take() == []
        world.clock.now += 7
    (push,) = world.take()
    assert push.attempts == 3
    world.lane.retry(push, failure, retry_after_s=7)
    assert json.loads(world.feedbacks.records[0][1])["StatusCode"] == 503
    assert world.lane.totals.sent == 1
    assert world.lane.totals.outcomes[Kind.FAILED] == 1


def test_a_free_resend_does_not_count_and_slows_down_when_it_repeats() -> None:
    world = World()
    world.submit(message())
    for _ in range(3):
        (push,) = world.take()
        world.lane.resend(push)
    (push,) = world.take()
    assert push.attempts == 1
    world.lane.resend(push)
    assert world.take() == []
    world.clock.now += 5
    assert len(world.take()) == 1


def test_due_retries_go_before_new_pushes() -> None:
    world = World()
    world.submit(message(), message())
    (first,) = world.take(1)
    world.lane.retry(first, CONNECTION_ERROR)
    world.clock.now += 2
    assert [push.offset for push in world.take()] == [0, 1]


def test_pushes_of_a_lost_partition_are_dropped_and_late_answers_touch_no_offset() -> None:
    world = World()
    world.submit(message(), message())
    (sent,) = world.take(1)
    world.tracker.state = State.GONE
    assert world.take() == []
    world.lane.finish(sent, DELIVERED)
    assert len(world.feedbacks.records) == 1
    assert world.lane.in_hand == 0
    assert world.lane.totals.dropped == 1


def test_what_is_not_to_be_sent_does_not_hold_up_what_is() -> None:
    world = World(high_water=1000)
    other = tracker("push-game_apns-massive")
    world.submit(*[message(n) for n in range(200)])
    world.submit(*[message(n, push_expiry=1) for n in range(200)], to=other)
    world.submit(message(), start=200, to=other)
    world.tracker.state = State.GONE
    assert [push.offset for push in world.take(10)] == [200]
    assert world.lane.totals.dropped == 200
    assert world.lane.totals.outcomes[Kind.EXPIRED] == 200


def test_pushes_of_a_suspended_partition_wait_for_the_rebalance() -> None:
    world = World()
    other = tracker("push-game_apns-massive")
    world.submit(message(1), message(2))
    world.submit(message(3), to=other)
    world.tracker.state = State.SUSPENDED
    assert [push.tracker for push in world.take()] == [other]
    assert world.lane.full is False
    world.tracker.state = State.ACTIVE
    assert [push.offset for push in world.take()] == [0, 1]


def test_an_inbox_is_full_at_its_high_water_mark_retries_included() -> None:
    world = World(high_water=3)
    world.submit(message(), message(), message())
    assert world.pipeline.is_full(TOPIC)
    assert not world.pipeline.is_full("push-other_apns-single")
    pushes = world.take()
    assert not world.pipeline.is_full(TOPIC)
    for push in pushes:
        world.lane.retry(push, CONNECTION_ERROR)
    assert world.pipeline.is_full(TOPIC)


def test_a_missing_feedback_topic_blocks_the_app_until_it_can_be_written() -> None:
    world = World()
    world.submit(message())
    (push,) = world.take()
    world.lane.finish(push, DELIVERED)
    world.feedbacks.settle(TopicRefused("push-game-apns-feedbacks: not authorized"))
    assert world.lane.full
    assert "push-game-apns-feedbacks" in world.lane.blocked
    world.lane.tick()
    assert world.feedbacks.records == []
    world.clock.now += 6
    world.lane.tick()
    world.feedbacks.settle(None)
    assert (world.lane.blocked, world.tracker.low) == ("", 1)


def test_a_feedback_that_is_too_large_goes_without_the_producers_metadata() -> None:
    world = World()
    world.submit(message(metadata={"big": "x" * 999}))
    (push,) = world.take()
    world.lane.finish(push, DELIVERED)
    world.feedbacks.settle(RecordTooLarge("too large"))
    assert b"big" not in world.feedbacks.records[0][1]
    world.feedbacks.settle(None)
    assert world.tracker.low == 1


@pytest.mark.parametrize("refusal", [TopicRefused("not authorized"), RecordTooLarge("too large")])
def test_a_refused_feedback_that_cannot_be_made_again_blocks_its_app_alone(refusal: PublishError) -> None:
    """The publisher, which all apps share, and the upkeep of the others hear nothing of it."""
    world = World()
    world.submit(message(0), message(1))
    first, second = world.take()
    for push in (first, second):
        world.lane.finish(push, DELIVERED)
    token, first.token = first.token, object()  # type: ignore[assignment]
    world.feedbacks.settle(refusal)
    for _ in range(2):
        world.clock.now += 21
        world.lane.tick()
        assert "cannot be built" in world.lane.blocked
        assert len(world.feedbacks.records) == 1, "the other one goes"
    first.token = token
    world.clock.now += 21
    world.lane.tick()
    world.feedbacks.settle(None)
    assert (world.lane.blocked, world.tracker.low) == ("", 2)


class Faulty(Tracker):
    """Fails as often as it is told to."""

    faults = 0

    def finish(self, offset: int) -> None:
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError
        super().finish(offset)


def test_expired_pushes_are_not_lost_when_finishing_one_fails() -> None:
    world, source = World(high_water=9), Faulty(TopicPartition(TOPIC, 0), 0)
    world.submit(*(message(n, push_expiry=1_600_000_000_000) for n in range(4)), to=source)
    source.faults = 1
    with pytest.raises(ZeroDivisionError):
        world.lane.tick()
    assert (source.low, world.lane.in_hand) == (0, 4)
    world.lane.tick()
    assert (source.low, world.lane.in_hand) == (4, 0)


def test_what_was_taken_is_not_lost_when_finishing_one_that_expired_fails() -> None:
    world, source = World(), Faulty(TopicPartition(TOPIC, 0), 0)
    world.submit(message(0), message(1, push_expiry=1_600_000_000_000), message(2), to=source)
    source.faults = 1
    with pytest.raises(ZeroDivisionError):
        world.take()
    world.lane.take_back()
    world.clock.now += 60
    assert [push.offset for push in world.take()] == [0, 2]
    assert world.lane.totals.outcomes[Kind.EXPIRED] == 1


@pytest.mark.parametrize(
    ("topic", "value", "reason", "invalid_topic"),
    [
        (TOPIC, b"rubbish", "not-json", "push-game-apns-invalid"),
        (TOPIC, message(metadata=3), "bad-metadata", "push-game-apns-invalid"),
        ("push-stranger_apns-single", message(), "unknown-game", "push-stranger-apns-invalid"),
        ("push-game_gcm-single", message(), "wrong-platform", "push-game-gcm-invalid"),
        ("com.games.test", message(), "bad-topic", "push-unknown-unknown-invalid"),
    ],
)
def test_what_can_never_be_sent_goes_to_the_invalid_topic(
    topic: str, value: object, reason: str, invalid_topic: str
) -> None:
    world = World()
    own = tracker(topic)
    world.submit(value, to=own)
    ((published_to, raw, _, headers),) = world.invalid.records
    fields = dict(headers)
    assert published_to == invalid_topic
    assert raw == (value if isinstance(value, bytes) else record(value).value)
    assert fields["error"].decode().startswith(reason)
    assert (fields["source-topic"], fields["source-partition"], fields["source-offset"]) == (topic.encode(), b"0", b"0")
    assert fields["source-timestamp"] == b"1700000000000"
    assert fields["pusher-origin"].decode() == f"{topic}/0/0/1700000000000"
    assert own.low == 0
    world.invalid.settle(None)
    assert own.low == 1
    assert world.pipeline.invalid == 1


def test_an_invalid_message_that_was_replayed_is_not_published_again() -> None:
    world = World()
    records = [record(b"rubbish", headers=[("source-topic", b"x")])]
    world.pipeline.submit(world.tracker, world.tracker.admit(records))
    assert world.invalid.records == []
    assert world.tracker.low == 1


def test_an_invalid_topic_that_refuses_ends_the_message_all_the_same() -> None:
    world = World()
    world.submit(b"rubbish")
    world.invalid.settle(RecordTooLarge("10 MB"))
    assert world.tracker.low == 1


def test_without_an_invalid_topic_an_invalid_message_is_finished_at_once() -> None:
    world = World(invalid_topic="")
    world.submit(b"rubbish")
    assert world.tracker.low == 1


def test_which_topics_are_wanted() -> None:
    world = World()
    wanted = {
        "push-game_apns-single": True,
        "push-stranger_apns-single": True,
        "push-sick_apns-single": False,
        "push-game_gcm-single": False,
        "push-game-apns-feedbacks": False,
        "push-game-apns-invalid": False,
        "push-game-apns-held": False,
        "com.games.test": False,
    }
    assert {topic: world.pipeline.wanted(topic) for topic in wanted} == wanted


def test_a_fixed_invalid_topic_is_not_consumed() -> None:
    world = World(invalid_topic="push-game_apns-rubbish")
    assert not world.pipeline.wanted("push-game_apns-rubbish")


def test_at_a_stop_late_retries_are_left_to_the_next_start() -> None:
    world = World()
    world.submit(message(), message())
    soon, late = world.take()
    world.lane.retry(soon, CONNECTION_ERROR, retry_after_s=1)
    world.lane.retry(late, CONNECTION_ERROR, retry_after_s=100)
    world.lane.leave_late_retries(world.clock.now + 10)
    assert world.lane.in_hand == 1
    world.lane.leave_all()
    assert world.lane.in_hand == 0
    assert world.tracker.low == 0
    assert world.take() == []


def test_consumed_is_the_sum_of_all_outcomes() -> None:
    world = World()
    world.submit(b"rubbish", message(push_expiry=1), message(1), message(2), message(3))
    delivered, rejected, failed = world.take()
    world.lane.finish(delivered, DELIVERED)
    world.lane.finish(rejected, Outcome(Kind.REJECTED, 410, "Unregistered", "unregistered"))
    world.lane.finish(failed, CONNECTION_ERROR)
    assert world.lane.totals.consumed == 5 == sum(world.lane.totals.outcomes.values())
    assert {kind for kind, number in world.lane.totals.outcomes.items() if number == 1} == set(Kind) - {Kind.LIMITED}


def test_what_a_failed_sender_had_taken_goes_back() -> None:
    world = World()
    world.submit(message(0), message(1))
    assert len(world.lane.take(99, 0.0)) == 2
    world.lane.take_back()
    assert (world.lane.in_hand, len(world.lane.retries)) == (2, 2)
    world.clock.now += 60
    assert [push.offset for push in world.take()] == [0, 1]


def test_what_was_handed_over_or_put_back_does_not_go_back_twice() -> None:
    world = World()
    world.submit(message(0), message(1))
    first, second = world.lane.take(99, 0.0)
    world.lane.defer(second, 0.0)
    world.lane.handed_over([first])
    world.lane.take_back()
    assert len(world.lane.retries) == 1
    (again,) = world.lane.take(99, 0.0)
    assert again is second
    world.lane.defer(again, 5.0)
    world.lane.take_back()
    assert len(world.lane.retries) == 1


def test_another_greenlet_that_fails_takes_nothing_from_the_sender() -> None:
    world = World()
    world.submit(message())
    (push,) = world.lane.take(99, 0.0)
    gevent.spawn(world.lane.take_back).join()
    assert len(world.lane.retries) == 0
    world.lane.handed_over([push])
    world.lane.finish(push, DELIVERED)
    world.feedbacks.settle(None)
    assert world.tracker.low == 1


def test_a_push_whose_sender_fails_each_time_ends_as_failed() -> None:
    world = World()
    world.submit(message())
    for _ in range(10):
        world.lane.take(99, 0.0)
        world.lane.take_back()
        world.clock.now += 60
    assert world.lane.totals.outcomes[Kind.FAILED] == 1
    world.feedbacks.settle(None)
    assert world.tracker.low == 1


def test_a_feedback_that_cannot_be_made_does_not_end_its_push() -> None:
    world = World()
    world.submit(message())
    (push,) = world.take()
    broken = Outcome(Kind.FAILED, status="none", reason=object(), key="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidMessage):
        world.lane.finish(push, broken)
    assert world.lane.in_hand == 1
    world.lane.finish(push, DELIVERED)
    world.feedbacks.settle(None)
    assert world.tracker.low == 1


def test_a_record_that_breaks_the_parser_is_kept_and_the_next_are_sent() -> None:
    world = World()
    parse = world.lane.parse

    def broken(value: bytes | None, origin: str) -> ApnsPush:
        if value and b"poison" in value:
            raise ZeroDivisionError
        return parse(value, origin)

    world.lane.parse = broken
    world.submit({"poison": 1}, message())
    ((topic, value, _, headers),) = world.invalid.records
    assert topic == "push-game-apns-invalid"
    assert value == b'{"poison":1}'
    assert dict(headers)["error"].startswith(b"parser-failed: ZeroDivisionError")
    assert [push.offset for push in world.take()] == [1]
