from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from pusher.broker.offsets import (
    MAX_METADATA_BYTES,
    Assignment,
    Commit,
    State,
    TopicPartition,
    Tracker,
    decode_ranges,
    encode_ranges,
)

KEY = TopicPartition("push-game_apns-single", 0)


class At(NamedTuple):
    offset: int


def at(*offsets: int) -> list[At]:
    return [At(offset) for offset in offsets]


def admitted(tracker: Tracker, offsets: Iterable[int]) -> list[int]:
    return [record.offset for record in tracker.admit(at(*offsets))]


def damaged(*parts: str) -> str:
    return "pusher1:" + ",".join(parts)


@pytest.mark.parametrize(
    "metadata",
    [
        damaged(*["1.4c91"] * 500),  # 500 times 200,000 offsets
        damaged("1.zzzzzz"),
        damaged("1y2p0ij32e8e7.1"),  # 2 to the power of 63
        damaged("+1.1"),
        damaged(" 1.1"),
        damaged("1_0.1"),
        damaged("1.1.1"),
        damaged("1.0"),
        damaged("\u0661.1"),
    ],
)
def test_ranges_that_we_cannot_have_written_mean_none(metadata: str) -> None:
    assert list(decode_ranges(5, metadata)) == []


def test_as_many_finished_offsets_as_a_partition_can_have_are_read() -> None:
    assert list(decode_ranges(5, damaged("1.lfls"))) == list(range(6, 1_000_006))


def resumed(tracker: Tracker) -> Tracker:
    """The tracker of the next owner, after this one's commit."""
    commit = tracker.due()
    assert commit is not None
    return Tracker(tracker.key, commit.offset, commit.metadata)


# --- one partition


def test_nothing_is_due_beyond_the_lowest_unfinished_message() -> None:
    tracker = Tracker(KEY, 5)
    tracker.admit(at(5, 6, 7))
    tracker.finish(7)
    assert tracker.low == 5
    assert tracker.due() == Commit(5, encode_ranges(5, [7])[0])
    tracker.finish(5)
    assert tracker.low == 6
    tracker.finish(6)
    assert tracker.low == 8
    assert tracker.due() == Commit(8, "")


def test_a_confirmed_commit_is_not_due_again() -> None:
    tracker = Tracker(KEY, 0)
    tracker.admit(at(0, 1))
    tracker.finish(0)
    commit = tracker.due()
    assert commit == Commit(1, "")
    assert tracker.due() == commit
    tracker.confirm(commit)
    assert tracker.due() is None
    tracker.finish(1)
    assert tracker.due() == Commit(2, "")


def test_what_finishes_while_a_commit_is_under_way_is_due_after_it() -> None:
    tracker = Tracker(KEY, 0)
    tracker.admit(at(0, 1))
    tracker.finish(0)
    commit = tracker.due()
    tracker.finish(1)
    assert commit is not None
    tracker.confirm(commit)
    assert tracker.due() == Commit(2, "")


def test_offsets_that_the_log_lacks_are_passed_over() -> None:
    tracker = Tracker(KEY, 0)
    assert admitted(tracker, [3, 4, 9]) == [3, 4, 9]
    assert tracker.low == 3
    for offset in (3, 4, 9):
        tracker.finish(offset)
    assert tracker.low == tracker.next_offset == 10


def test_what_an_earlier_owner_has_finished_is_passed_over_and_counted() -> None:
    first = Tracker(KEY, 5)
    first.admit(at(*range(5, 15)))
    first.finish_many([6, 7, 9])
    commit = first.due()
    assert commit is not None
    second = Tracker(KEY, commit.offset, commit.metadata)
    assert [one.offset for one in second.admit(at(*range(5, 8)))] == [5]
    assert second.take_passed_over() == 2
    second.admit(at(*range(5, 15)))
    assert [second.take_passed_over(), second.take_passed_over()] == [1, 0]


def test_records_that_come_again_are_not_admitted_again() -> None:
    tracker = Tracker(KEY, 0)
    assert admitted(tracker, range(5)) == [0, 1, 2, 3, 4]
    assert admitted(tracker, range(3, 7)) == [5, 6]
    assert admitted(tracker, range(7)) == []
    assert admitted(tracker, []) == []


def test_span_and_unfinished_count_what_they_say() -> None:
    tracker = Tracker(KEY, 100)
    assert (tracker.span, tracker.unfinished) == (0, 0)
    tracker.admit(at(*range(100, 110)))
    assert (tracker.span, tracker.unfinished) == (10, 10)
    tracker.finish(105)
    assert (tracker.span, tracker.unfinished) == (10, 9)
    for offset in range(100, 105):
        tracker.finish(offset)
    assert (tracker.span, tracker.unfinished) == (4, 4)


def test_the_next_owner_skips_what_was_finished() -> None:
    tracker = Tracker(KEY, 0)
    tracker.admit(at(*range(10)))
    for offset in (1, 2, 5, 9):
        tracker.finish(offset)
    successor = resumed(tracker)
    assert admitted(successor, range(10)) == [0, 3, 4, 6, 7, 8]
    assert successor.unfinished == 6
    for offset in (0, 3, 4, 6, 7, 8):
        successor.finish(offset)
    assert successor.low == 10


def test_finished_ranges_survive_a_second_change_of_owner() -> None:
    tracker = Tracker(KEY, 0)
    tracker.admit(at(*range(10)))
    tracker.finish(8)
    second = resumed(tracker)
    second.admit(at(*range(3)))
    second.finish(1)
    assert admitted(resumed(second), range(10)) == [0, 2, 3, 4, 5, 6, 7, 9]


def test_a_skipped_head_is_committed_past() -> None:
    successor = Tracker(KEY, 0, encode_ranges(0, [1, 2, 3])[0])
    assert admitted(successor, range(4)) == [0]
    successor.finish(0)
    assert successor.low == 4


def test_a_commit_right_below_what_was_finished_before_does_not_forget_it() -> None:
    second = Tracker(KEY, 0, encode_ranges(0, [1, 2])[0])
    second.admit(at(0))
    second.finish(0)
    assert second.due() == Commit(3, "")
    assert admitted(second, [1, 2, 3]) == [3]


def test_a_tracker_that_admits_only_what_is_finished_moves_on() -> None:
    successor = Tracker(KEY, 0, encode_ranges(0, [1, 2, 3])[0])
    successor.admit(at(0))
    successor.finish(0)
    assert admitted(successor, [1, 2, 3]) == []
    assert successor.low == 4


def test_too_many_ranges_are_cut_and_say_so_until_they_fit() -> None:
    tracker = Tracker(KEY, 0)
    tracker.admit(at(*range(6000)))
    for offset in range(1, 6000, 2):
        tracker.finish(offset)
    commit = tracker.due()
    assert commit is not None
    assert not tracker.fits
    assert len(commit.metadata) <= MAX_METADATA_BYTES
    assert len(commit.metadata) > MAX_METADATA_BYTES - 20

    kept = set(decode_ranges(commit.offset, commit.metadata))
    assert kept == set(range(1, 2 * len(kept), 2))

    for offset in range(0, 6000, 2):
        tracker.finish(offset)
    assert tracker.due() == Commit(6000, "")
    assert tracker.fits


@pytest.mark.parametrize("seed", range(150))
def test_any_order_of_events_agrees_with_a_naive_model(seed: int) -> None:
    """Batches with gaps and repeats, finishes in any order, commits that are stored or not, new owners at any time."""
    chance = random.Random(seed)
    start = chance.choice([0, 7, 10**12])
    log = [offset for offset in range(start, start + 300) if chance.random() > 0.1]
    tracker = Tracker(KEY, start)
    stored, done_when_stored = Commit(start, ""), frozenset[int]()
    done: set[int] = set()
    open_now: list[int] = []
    read = 0
    for _ in range(400):
        event = chance.random()
        if event < 0.3 and read < len(log):
            begin, end = max(0, read - chance.choice([0, 0, 2])), min(len(log), read + chance.randrange(1, 20))
            fresh = admitted(tracker, log[begin:end])
            assert fresh == [offset for offset in log[read:end] if offset not in done]
            open_now += fresh
            read = end
        elif event < 0.9 and open_now:
            offset = open_now.pop(chance.randrange(len(open_now)))
            done.add(offset)
            tracker.finish(offset)
        elif event < 0.97:
            commit = tracker.due()
            if commit is not None and chance.random() < 0.7:
                tracker.confirm(commit)
                stored, done_when_stored = commit, frozenset(done)
        elif event > 0.99:
            tracker = Tracker(KEY, stored.offset, stored.metadata)
            read = next((index for index, offset in enumerate(log) if offset >= stored.offset), len(log))
            done, open_now = set(done_when_stored), []
        assert tracker.unfinished == len(open_now)
        assert all(offset in done for offset in log if offset < tracker.low)
        assert tracker.low == min(open_now, default=tracker.next_offset)
    for offset in open_now + admitted(tracker, log[read:]):
        tracker.finish(offset)
    assert tracker.low == log[-1] + 1
    assert tracker.due() in (None, Commit(log[-1] + 1, ""))


# --- ranges as text


@pytest.mark.parametrize(
    ("low", "done", "text"),
    [
        (0, [], ""),
        (10, [10], ""),
        (10, [11], "pusher1:1.1"),
        (10, [11, 12, 13], "pusher1:1.3"),
        (10, [13, 11], "pusher1:1.1,1.1"),
        (0, [36, 37], "pusher1:10.2"),
        (10**12, [10**12 + 1295], "pusher1:zz.1"),
    ],
)
def test_the_form_of_ranges(low: int, done: list[int], text: str) -> None:
    assert encode_ranges(low, done) == (text, True)
    assert list(decode_ranges(low, text)) == sorted(offset for offset in done if offset > low)


@pytest.mark.parametrize("seed", range(50))
def test_ranges_come_back_as_they_went(seed: int) -> None:
    chance = random.Random(seed)
    low = chance.randrange(10**9)
    done = {low + chance.randrange(1, 2000) for _ in range(chance.randrange(200))}
    text, fits = encode_ranges(low, done)
    assert fits
    assert set(decode_ranges(low, text)) == done


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "consumer-1",
        "pusher1",
        "pusher1:",
        "pusher1:x",
        "pusher1:1",
        "pusher1:1.2.3",
        "pusher1:1.!",
        "pusher1:1.1,",
        "pusher2:1.1",
        '{"a": 1}',
        "\x00",
    ],
)
def test_text_that_is_not_ours_means_that_nothing_is_finished(metadata: str) -> None:
    assert list(decode_ranges(5, metadata)) == []
    assert admitted(Tracker(KEY, 5, metadata), [5, 6, 7]) == [5, 6, 7]


@pytest.mark.parametrize(
    "metadata", ["pusher1:1.-1", "pusher1:-9.2", "pusher1:1.zzzzzzzzzz", "pusher1:0.1", "pusher1:1.0"]
)
def test_ranges_that_cannot_be_are_no_ranges(metadata: str) -> None:
    assert list(decode_ranges(5, metadata)) == []


# --- all partitions of a process


def test_an_assignment_follows_its_partitions_through_rebalances() -> None:
    assignment = Assignment()
    stays, goes = TopicPartition("a", 0), TopicPartition("a", 1)
    staying, going = assignment.assign(stays, 3), assignment.assign(goes, 4)
    assert {staying.state, going.state} == {State.ACTIVE}

    assignment.suspend([stays, goes, TopicPartition("unknown", 0)])
    assert {staying.state, going.state} == {State.SUSPENDED}

    assignment.keep([stays])
    assignment.drop([goes, TopicPartition("unknown", 0)])
    assert (staying.state, going.state) == (State.ACTIVE, State.GONE)
    assert assignment.trackers == {stays: staying}


def test_an_assignment_anew_is_another_generation() -> None:
    assignment = Assignment()
    old = assignment.assign(KEY, 0)
    old.admit(at(0, 1))
    new = assignment.assign(KEY, 0)
    assert (old.state, new.state) == (State.GONE, State.ACTIVE)
    old.finish(0)
    assert new.low == 0
    assert assignment.due() == {KEY: Commit(0, "")}


def test_an_assignment_collects_what_is_due() -> None:
    assignment = Assignment()
    first, second = assignment.assign(TopicPartition("a", 0), 0), assignment.assign(TopicPartition("a", 1), 0)
    for tracker in (first, second):
        tracker.confirm(Commit(0, ""))
        tracker.admit(at(0))
    assert assignment.due() == {}
    first.finish(0)
    due = assignment.due()
    assert due == {first.key: Commit(1, "")}
    assignment.drop([second.key])
    assignment.confirm({**due, second.key: Commit(1, "")})
    assert assignment.due() == {}


def test_a_partition_waits_while_its_topic_is_full_or_it_is_too_far_ahead() -> None:
    other = TopicPartition("push-other_apns-single", 0)
    assignment = Assignment()
    near, far = assignment.assign(KEY, 0), assignment.assign(KEY._replace(partition=1), 0)
    assignment.assign(other, 0)
    near.admit(at(0, 1))
    far.admit(at(*range(10)))
    asked: list[str] = []

    def is_full(topic: str) -> bool:
        asked.append(topic)
        return topic == other.topic

    assert assignment.rooms(is_full, 10) == {KEY: 8}
    assert asked == [KEY.topic, other.topic]
    assert assignment.rooms(lambda _: False, 11) == {KEY: 9, far.key: 1, other: 11}
