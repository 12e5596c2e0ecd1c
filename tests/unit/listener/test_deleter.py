"""From the buffer to the end of each feedback: deleted, held, dropped, refused for good, or left to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gevent
import pytest
from gevent.event import Event

from pusher.broker.interface import RecordTooLarge, TopicRefused
from pusher.broker.offsets import State, Tracker
from pusher.listener import deleter
from pusher.listener.deleter import MISSING_UNREADY_S, Deleter, FlushPolicy, batches
from pusher.listener.guard import Guard, GuardPolicy, Limit, Seen, Stopped
from pusher.listener.held import Held
from pusher.listener.sorter import Dead
from pusher.listener.store import DeadToken, NotDeleted, TokenStore
from pusher.push.topics import TopicName
from pusher.telemetry import metrics
from pusher.telemetry.stats import Stats
from tests.publisher import Clock, ListPublisher
from tests.records import record, tracker

TOPIC = "push-game-apns-feedbacks"
NAME = TopicName("game", "apns")
TAGS = ("pod-1", "game", "apns")


class Rows(TokenStore):
    """A store of tokens: ``bad`` ones cannot be deleted, ``trouble`` is met by all."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = set(tokens)
        self.bad: set[str] = set()
        self.trouble: BaseException | None = None
        self.statements: list[list[str]] = []

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        gevent.sleep(0)
        assert owner == NAME
        tokens = [one.token for one in dead]
        self.statements.append(tokens)
        if self.trouble:
            raise self.trouble
        if self.bad.intersection(tokens):
            raise NotDeleted("InvalidTextRepresentation, SQLSTATE 22P02", of_token=True)
        gone = self.tokens.intersection(tokens)
        self.tokens -= gone
        return len(gone)


class World:
    """One game's deleter, running, on a clock that stands still."""

    def __init__(
        self, *, size: int = 4, hold: bool = True, guard: GuardPolicy | None = None, other: TokenStore | None = None
    ) -> None:
        self.rows, self.clock, self.stats = Rows(*(f"T{n}" for n in range(100))), Clock(1_000.0), Stats("test")
        self.publisher = ListPublisher()
        self.tracker = tracker(TOPIC)
        held = Held(NAME, "pod-1", self.publisher if hold else None, self.stats, self.clock)
        self.guard = Guard(guard) if guard else None
        self.deleter = Deleter(
            NAME,
            "pod-1",
            FlushPolicy(size, 5.0, inbox=3),
            {"rows": self.rows, "other": other} if other else {"rows": self.rows},
            self.guard,
            held,
            self.stats,
            clock=self.clock,
        )
        self.greenlet = gevent.spawn(self.deleter.run)

    def put(self, *tokens: str, doubtful: bool = False, released: bool = False, owner: Tracker | None = None) -> None:
        owner = owner or self.tracker
        first = owner.next_offset
        records = [record(b"{}", first + n, topic=TOPIC, headers=[("h", b"1")]) for n in range(len(tokens))]
        owner.admit(records)
        reason = "BadDeviceToken" if doubtful else "Unregistered"
        self.deleter.put(
            [
                Dead(token, reason, doubtful, owner, one, released=released)
                for token, one in zip(tokens, records, strict=True)
            ]
        )

    def until_finished(self, offset: int) -> None:
        with gevent.Timeout(10):
            while self.tracker.low < offset:
                gevent.sleep(0.001)

    def until_tried(self, times: int) -> None:
        with gevent.Timeout(20):
            while len(self.rows.statements) < times:
                gevent.sleep(0.001)

    def total(self, metric: metrics.Metric) -> int:
        return self.stats.counter(metric, *TAGS).total


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        died = world.greenlet.exception
        world.greenlet.kill()
        assert died is None


@pytest.fixture
def world(worlds: list[World]) -> World:
    worlds.append(World())
    return worlds[0]


def settle() -> None:
    """Lets the deleter do all that it can do now."""
    for _ in range(50):
        gevent.sleep(0)


def test_a_full_buffer_is_flushed_at_once(world: World) -> None:
    world.put("T1", "T2", "T3")
    settle()
    assert world.rows.statements == []
    assert world.tracker.low == 0
    world.put("T4")
    world.until_finished(4)
    assert world.rows.statements == [["T1", "T2", "T3", "T4"]]
    assert world.deleter.in_hand == 0


def test_an_old_buffer_is_flushed(world: World) -> None:
    world.put("T1")
    world.clock.now += 4.9
    world.put("T2")
    settle()
    assert world.rows.statements == []
    world.clock.now += 0.2
    world.put("T3")
    world.until_finished(3)
    assert world.rows.statements == [["T1", "T2", "T3"]]


def test_a_hurried_buffer_is_flushed_and_an_empty_one_is_not(world: World) -> None:
    world.deleter.hurry()
    settle()
    assert world.rows.statements == []
    world.put("T1")
    world.until_finished(1)
    world.put("T2")
    settle()
    assert world.tracker.low == 1
    world.deleter.hurry()
    world.until_finished(2)


def test_large_buffers_are_cut(world: World) -> None:
    world.put(*(f"T{n}" for n in range(10)))
    world.until_finished(10)
    assert [len(tokens) for tokens in world.rows.statements] == [4, 4, 2]


def test_counts_of_rows_and_of_tokens_without_a_row(world: World) -> None:
    world.put("T1", "none", "T2", "nothing")
    world.until_finished(4)
    assert world.total(metrics.TOKENS_DELETE_SUCCESS) == 2
    assert world.total(metrics.TOKENS_DELETE_NONEXISTENT) == 2
    assert world.total(metrics.TOKENS_DELETE_ERROR) == 0


def test_a_token_that_comes_twice_is_deleted_once_and_finished_twice(world: World) -> None:
    world.put("T1", "T1", "T1", "T2")
    world.until_finished(4)
    assert world.rows.statements == [["T1", "T2"]]
    assert world.total(metrics.TOKENS_DELETE_NONEXISTENT) == 2


def test_a_bad_token_stands_alone_in_the_end(worlds: list[World]) -> None:
    world = World(size=16)
    worlds.append(world)
    world.rows.bad = {"T5", "T11"}
    world.put(*(f"T{n}" for n in range(16)))
    world.until_finished(16)
    assert world.rows.tokens.isdisjoint({f"T{n}" for n in range(16)} - world.rows.bad)
    assert world.rows.bad <= world.rows.tokens
    assert world.total(metrics.TOKENS_DELETE_ERROR) == 2
    assert world.total(metrics.TOKENS_DELETE_SUCCESS) == 14
    assert not world.deleter.blocked


def test_a_failure_is_tried_again_and_nothing_is_finished_before(world: World) -> None:
    world.rows.trouble = NotDeleted('relation "game_apns" does not exist', missing=True)
    world.put("T1", "T2", "T3", "T4")
    world.until_tried(2)
    assert world.tracker.low == 0
    assert world.deleter.full
    assert "game_apns" in world.deleter.blocked
    assert "does not exist" in world.deleter.blocked
    world.rows.trouble = None
    world.until_finished(4)
    assert not world.deleter.blocked
    assert [world.deleter.full, world.deleter.blocked] == [False, ""]


def test_each_try_that_fails_counts(world: World) -> None:
    world.rows.trouble = NotDeleted("down")
    world.put("T1", "T2", "T3", "T4")
    world.until_tried(2)
    world.rows.trouble = None
    world.until_finished(4)
    tries = len(world.rows.statements) - 1
    assert world.total(metrics.TOKENS_DELETE_ERROR) == 4 * tries
    assert world.total(metrics.TOKENS_DELETE_SUCCESS) == 4


def test_a_missing_table_is_a_reason_not_to_be_ready_for_a_minute(world: World) -> None:
    world.rows.trouble = NotDeleted('relation "game_apns" does not exist', missing=True)
    world.put("T1", "T2", "T3", "T4")
    world.until_tried(1)
    settle()
    assert world.deleter.unready == world.deleter.blocked != ""
    world.clock.now += MISSING_UNREADY_S + 1
    assert world.deleter.unready == ""
    assert "game_apns" in world.deleter.blocked
    assert world.deleter.full
    world.rows.trouble = NotDeleted("down")
    world.until_tried(len(world.rows.statements) + 1)
    settle()
    assert "down" in world.deleter.unready
    world.rows.trouble = None
    world.until_finished(4)
    assert world.deleter.unready == ""


@pytest.mark.parametrize("trouble", [KeyError("T1 is a secret"), gevent.Timeout(5), SystemError("a secret")])
def test_a_store_that_raises_anything_is_named_and_tried_again(world: World, trouble: BaseException) -> None:
    world.rows.trouble = trouble
    world.put("T1", "T2", "T3", "T4")
    world.until_tried(1)
    settle()
    assert f"rows: raised {type(trouble).__name__} at test_deleter.py:" in world.deleter.blocked
    assert world.tracker.low == 0
    assert "secret" not in world.deleter.blocked
    world.rows.trouble = None
    world.until_finished(4)


def test_a_token_is_finished_when_every_store_has_dealt_with_it(worlds: list[World]) -> None:
    other = Rows("T1", "T2", "T9")
    world = World(other=other)
    worlds.append(world)
    other.trouble = NotDeleted("asleep")
    world.put("T1", "T2", "T3", "T4")
    world.until_tried(1)
    settle()
    assert world.tracker.low == 0
    assert "other: asleep" in world.deleter.blocked
    assert "T1" not in world.rows.tokens
    other.trouble = None
    world.until_finished(4)
    assert other.tokens == {"T9"}
    assert world.rows.statements == [["T1", "T2", "T3", "T4"]], "the first store was not asked again"
    assert world.total(metrics.TOKENS_DELETE_SUCCESS) == 4


def test_a_store_that_does_not_answer_is_named(worlds: list[World], monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Rows):
        answer = Event()

        def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
            self.answer.wait()
            return super().delete(owner, dead)

    monkeypatch.setattr(deleter, "_SLOW_S", 0.02)
    other = Silent("T1")
    world = World(other=other)
    worlds.append(world)
    world.put("T1", "T2", "T3", "T4")
    with gevent.Timeout(10):
        while not world.deleter.blocked:
            gevent.sleep(0.005)
    assert "other: has not answered for 0.02 s" in world.deleter.unready
    assert world.rows.tokens.isdisjoint({"T1", "T2", "T3", "T4"})
    assert world.tracker.low == 0
    other.answer.set()
    world.until_finished(4)
    assert (world.deleter.blocked, other.tokens) == ("", set())


def test_a_token_that_one_store_refuses_leaves_the_other(worlds: list[World]) -> None:
    other = Rows(*(f"T{n}" for n in range(4)))
    other.bad = {"T2"}
    world = World(other=other)
    worlds.append(world)
    world.put("T0", "T1", "T2", "T3")
    world.until_finished(4)
    assert other.tokens == {"T2"}
    assert world.rows.tokens.isdisjoint({"T0", "T1", "T2", "T3"})
    assert world.total(metrics.TOKENS_DELETE_ERROR) == 1
    assert world.total(metrics.TOKENS_DELETE_SUCCESS) == 4


def test_what_waits_is_limited(world: World) -> None:
    world.rows.trouble = NotDeleted("down")
    world.put("T1", "T2", "T3", "T4")
    world.until_tried(1)
    world.rows.trouble = None
    world.until_finished(4)
    world.put(*(f"T{n}" for n in range(10, 17)))
    assert world.deleter.in_hand == 7
    assert world.deleter.full
    world.until_finished(11)
    assert not world.deleter.full


def test_tokens_of_a_lost_partition_are_left_to_its_new_owner(world: World) -> None:
    lost = tracker("push-game-apns-feedbacks")
    world.put("T1", "T2", owner=lost)
    lost.state = State.GONE
    world.put("T3", "T4")
    world.until_finished(2)
    assert world.rows.statements == [["T3", "T4"]]
    assert lost.low == 0
    assert world.deleter.in_hand == 0


def test_a_batch_that_was_lost_as_a_whole_is_no_statement(world: World) -> None:
    lost = tracker("push-game-apns-feedbacks")
    lost.state = State.GONE
    world.put("T1", "T2", "T3", "T4", owner=lost)
    settle()
    assert (world.rows.statements, world.deleter.in_hand) == ([], 0)


def test_a_deleter_that_failed_by_a_fault_of_ours_goes_on_with_what_it_had(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(world.deleter, "_note", broken)
        world.put("T1", "T2", "T3", "T4")
        with pytest.raises(ZeroDivisionError):
            world.greenlet.get(timeout=10)
    assert (world.tracker.low, world.deleter.in_hand) == (0, 4)
    world.greenlet = gevent.spawn(world.deleter.run)
    worlds.append(world)
    world.put("T5", "T6", "T7", "T8")
    world.until_finished(8)
    assert world.rows.statements == [["T1", "T2", "T3", "T4"]] * 2 + [["T5", "T6", "T7", "T8"]]


# --- the guard

POLICY = GuardPolicy(600, Limit(0.5, 4), Limit(0.8, 6), successes_expected=True, maximum=100)


@pytest.fixture
def guarded(worlds: list[World]) -> World:
    worlds.append(World(guard=POLICY))
    return worlds[0]


def count(world: World, successes: int, doubtful: int, proven: int = 0) -> None:
    assert world.guard is not None
    world.guard.count(world.clock(), Seen(successes + doubtful + proven, successes, doubtful, proven))


def test_doubtful_tokens_go_while_they_are_few(guarded: World) -> None:
    count(guarded, 10, 4)
    guarded.put("T1", "T2", "T3", "T4", doubtful=True)
    guarded.until_finished(4)
    assert guarded.rows.statements == [["T1", "T2", "T3", "T4"]]
    assert guarded.publisher.records == []


def test_too_many_are_held_and_others_go_on(guarded: World) -> None:
    count(guarded, 1, 4)
    guarded.put("T1", "T2", doubtful=True)
    guarded.put("T3", "T4")
    settle()
    assert guarded.rows.statements == [["T3", "T4"]]
    assert [(topic, value, headers) for topic, value, _, headers in guarded.publisher.records] == [
        ("push-game-apns-held", b"{}", [("h", b"1")])
    ] * 2
    assert guarded.tracker.low == 0, "not finished before the held topic has it"
    guarded.publisher.settle(None)
    assert guarded.tracker.low == 4
    assert guarded.total(metrics.GUARD_HELD) == 2
    assert guarded.total(metrics.GUARD_STOPPED) == 1
    assert guarded.deleter.stopped.doubtful


def test_nearly_all_gone_are_held_and_doubtful_ones_go_on(guarded: World) -> None:
    count(guarded, 1, 0, 20)
    guarded.put("T1", "T2")
    guarded.put("T3", "T4", doubtful=True)
    settle()
    assert guarded.rows.statements == [["T3", "T4"]]
    assert len(guarded.publisher.records) == 2
    assert guarded.deleter.stopped == Stopped(proven=True)


def test_what_was_replayed_from_the_held_topic_is_not_held_again(guarded: World) -> None:
    count(guarded, 0, 60, 40)
    guarded.put("T1", "T2", doubtful=True, released=True)
    guarded.put("T3", released=True)
    guarded.put("T4", doubtful=True)
    settle()
    assert guarded.rows.statements == [["T1", "T2", "T3"]]
    assert len(guarded.publisher.records) == 1


def test_the_guard_may_drop_instead(worlds: list[World]) -> None:
    world = World(hold=False, guard=POLICY)
    worlds.append(world)
    count(world, 0, 4)
    world.put("T1", "T2", "T3", "T4", doubtful=True)
    world.until_finished(4)
    assert world.rows.statements == []
    assert world.total(metrics.GUARD_DROPPED) == 4


def test_the_guard_looks_again_before_each_try(guarded: World) -> None:
    guarded.rows.trouble = NotDeleted("down")
    guarded.put("T1", "T2", "T3", doubtful=True)
    guarded.put("T4")
    guarded.until_tried(1)
    count(guarded, 0, 10)
    guarded.rows.trouble = None
    guarded.until_tried(2)
    settle()
    assert guarded.rows.statements[-1] == ["T4"]
    assert len(guarded.publisher.records) == 3


def test_deletion_goes_on_when_the_window_has_moved(guarded: World) -> None:
    count(guarded, 0, 10)
    guarded.put("T1", "T2", "T3", "T4", doubtful=True)
    settle()
    guarded.publisher.settle(None)
    assert guarded.deleter.stopped.doubtful
    guarded.clock.now += 700
    guarded.put("T5", "T6", "T7", "T8", doubtful=True)
    guarded.until_finished(8)
    assert guarded.rows.statements == [["T5", "T6", "T7", "T8"]]
    assert (guarded.deleter.stopped, guarded.total(metrics.GUARD_STOPPED)) == (Stopped(), 1)


def test_a_held_topic_that_refuses_is_tried_again(guarded: World) -> None:
    count(guarded, 0, 10)
    guarded.put("T1", "T2", "T3", "T4", doubtful=True)
    settle()
    guarded.publisher.settle(TopicRefused("no such topic"))
    assert "push-game-apns-held" in guarded.deleter.blocked
    assert guarded.deleter.full
    guarded.deleter.held.tick()
    assert guarded.publisher.records == []
    guarded.clock.now += 5
    guarded.deleter.held.tick()
    assert len(guarded.publisher.records) == 4
    guarded.publisher.settle(None)
    assert guarded.tracker.low == 4
    assert not guarded.deleter.blocked


def test_refused_feedbacks_are_not_lost_when_publishing_one_fails(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(guarded, 0, 10)
    guarded.put("T1", "T2", "T3", "T4", doubtful=True)
    settle()
    guarded.publisher.settle(TopicRefused("no such topic"))
    guarded.clock.now += 5

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(guarded.publisher, "publish", broken)
        with pytest.raises(ZeroDivisionError):
            guarded.deleter.held.tick()
    guarded.deleter.held.tick()
    guarded.publisher.settle(None)
    assert guarded.tracker.low == 4


def test_a_feedback_too_large_to_be_held_is_counted(guarded: World) -> None:
    count(guarded, 0, 10)
    guarded.put("T1", "T2", "T3", "T4", doubtful=True)
    settle()
    guarded.publisher.settle(RecordTooLarge("too large"))
    assert guarded.tracker.low == 4
    assert guarded.total(metrics.GUARD_DROPPED) == 4
    assert not guarded.deleter.blocked


def dead(token: str) -> Dead:
    return Dead(token, "Unregistered", False, tracker(), record(b""))


def test_batches_have_a_limit_in_number_and_in_characters() -> None:
    small = [dead(f"{number}") for number in range(25)]
    assert [len(part) for part in batches(small, 10)] == [10, 10, 5]
    large = [dead("x" * 400_000) for _ in range(5)]
    assert [len(part) for part in batches(large, 10)] == [2, 2, 1]
    assert [len(part) for part in batches([dead("x" * 3_000_000), *small[:2]], 10)] == [1, 2]
    assert [one for part in batches(small, 7) for one in part] == small
    assert list(batches([], 10)) == []
