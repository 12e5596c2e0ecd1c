"""What a broker promises to the rest, over every broker.

Tests read and finish through the Protocols alone. A topic has three partitions where the broker knows partitions, so
order and offsets are looked at within a partition.
"""

from __future__ import annotations

import time
from collections import defaultdict

import pytest

from pusher.broker.interface import LEFT_OUT, Delivery, Place, PublishError, Reader, Record, RecordTooLarge
from pusher.broker.offsets import Commit, State, decode_ranges
from tests.contract.brokers import (
    Desk,
    broker_at,
    finish,
    key,
    never,
    own,
    poll_until,
    receive,
    receive_nothing,
    records,
    until,
    values,
)


@pytest.fixture
def desk(broker_desk: Desk) -> Desk:
    return broker_desk


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def by_partition(deliveries: list[Delivery]) -> dict[object, list[Record]]:
    found: dict[object, list[Record]] = defaultdict(list)
    for record in records(deliveries):
        found[key(record)].append(record)
    return found


# --- reading


def test_records_come_once_and_in_the_order_of_their_partition(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, *numbered(1000))

    deliveries = receive(desk.source(desk.name(), [topic]), 1000)

    assert sorted(values(deliveries), key=lambda value: int(value or b"")) == numbered(1000)
    for found in by_partition(deliveries).values():
        assert [record.offset for record in found] == list(range(len(found)))
        assert [int(record.value or b"") for record in found] == sorted(int(record.value or b"") for record in found)


def test_a_delivery_belongs_to_the_tracker_of_its_partition(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, *numbered(50))
    source = desk.source(desk.name(), [topic])

    for tracker, delivered in receive(source, 50):
        assert {key(record) for record in delivered} == {tracker.key}
        assert source.assignment.trackers[tracker.key] is tracker


def test_a_record_keeps_its_value_headers_and_time(desk: Desk) -> None:
    topic = desk.topic()
    before_ms = int(time.time() * 1000)
    publisher = desk.publisher()
    publisher.publish(topic, b"\x00\xff", lambda _error: None, [("error", b"bad"), ("source-topic", b"\x80")])
    assert publisher.flush(20) == 0

    (record,) = records(receive(desk.source(desk.name(), [topic]), 1))

    assert record.topic == topic
    assert record.value == b"\x00\xff"
    assert list(record.headers) == [("error", b"bad"), ("source-topic", b"\x80")]
    assert before_ms <= record.timestamp <= time.time() * 1000


def test_records_written_later_come_too(desk: Desk) -> None:
    topic = desk.topic()
    source = desk.source(desk.name(), [topic])
    own(source)
    desk.write(topic, b"one")
    assert values(receive(source, 1)) == [b"one"]
    desk.write(topic, b"two")
    assert values(receive(source, 1)) == [b"two"]


# --- commits


def test_a_group_goes_on_where_it_committed(desk: Desk) -> None:
    topic, group = desk.topic(), desk.name()
    desk.write(topic, *numbered(20))
    source = desk.source(group, [topic])
    finish(receive(source, 20))
    source.commit()
    source.close(commit=False)
    desk.write(topic, *numbered(10, first=20))

    assert set(values(receive(desk.source(group, [topic]), 10))) == set(numbered(10, first=20))


def test_closing_commits_what_is_finished(desk: Desk) -> None:
    topic, group = desk.topic(), desk.name()
    desk.write(topic, *numbered(20))
    source = desk.source(group, [topic])
    finish(receive(source, 20))
    source.close()

    receive_nothing(desk.source(group, [topic]))


def test_closing_without_a_commit_repeats_what_is_not_committed(desk: Desk) -> None:
    topic, group = desk.topic(), desk.name()
    desk.write(topic, *numbered(20))
    source = desk.source(group, [topic])
    finish(receive(source, 20))
    source.close(commit=False)

    assert len(records(receive(desk.source(group, [topic]), 20))) == 20


def test_what_is_not_finished_comes_again_and_what_is_finished_above_it_does_not(desk: Desk) -> None:
    topic, group = desk.topic(partitions=1), desk.name()
    desk.write(topic, *numbered(20))
    source = desk.source(group, [topic])
    for tracker, delivered in receive(source, 20):
        for record in delivered:
            if record.offset not in (3, 7, 8):
                tracker.finish(record.offset)
    source.close()

    successor = desk.source(group, [topic])
    again = receive(successor, 3)
    assert [record.offset for record in records(again)] == [3, 7, 8]
    finish(again)
    successor.close()
    receive_nothing(desk.source(group, [topic]))


def test_trackers_of_a_closed_source_are_gone(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, b"one")
    source = desk.source(desk.name(), [topic])
    ((tracker, _),) = receive(source, 1)
    states = [tracker.state]
    source.close()
    states.append(tracker.state)
    assert states == [State.ACTIVE, State.GONE]
    assert not source.assignment.trackers


def test_closing_twice_does_nothing(desk: Desk) -> None:
    source = desk.source(desk.name(), [desk.topic()])
    own(source)
    source.close()
    source.close()


def test_groups_read_apart_from_each_other(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, *numbered(10))
    for _ in range(2):
        source = desk.source(desk.name(), [topic])
        finish(receive(source, 10))
        source.close()


# --- where a group begins


def test_latest_leaves_out_what_was_there_before(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, b"old")
    source = desk.source(desk.name(), [topic], offset_reset="latest")
    own(source)
    desk.write(topic, b"new")

    assert values(receive(source, 1)) == [b"new"]


def test_the_start_is_committed_before_anything_is_handed_on(desk: Desk) -> None:
    topic, group = desk.topic(), desk.name()
    desk.write(topic, b"old")
    source = desk.source(group, [topic], offset_reset="latest")
    own(source)
    source.close(commit=False)
    desk.write(topic, b"new")

    assert values(receive(desk.source(group, [topic], offset_reset="latest"), 1)) == [b"new"]


def test_topics_found_later_begin_at_their_first_record(desk: Desk) -> None:
    group = desk.name()
    source = desk.source(group, [f"^{desk.prefix}_apns"], offset_reset="latest")
    first = desk.topic()
    source.refresh()
    own(source)
    later = desk.topic()
    desk.write(later, b"early")
    source.refresh()

    deliveries = receive(source, 1)
    assert [(record.topic, record.value) for record in records(deliveries)] == [(later, b"early")]
    assert {tracker.topic for tracker in source.assignment.trackers} == {first, later}


def test_topics_found_after_a_pause_of_the_group_begin_at_their_first_record(desk: Desk) -> None:
    group, first = desk.name(), desk.topic()
    source = desk.source(group, [f"^{desk.prefix}_apns"], offset_reset="latest")
    own(source)
    source.close()
    later = desk.topic()
    desk.write(later, b"early")
    desk.write(first, b"on")

    deliveries = receive(desk.source(group, [f"^{desk.prefix}_apns"], offset_reset="latest"), 2)
    assert sorted(values(deliveries), key=str) == [b"early", b"on"]


def test_a_group_is_not_new_for_want_of_the_topics_that_it_began_with(desk: Desk) -> None:
    """An app that is set up before the others, after a restart of the group."""
    group, first = desk.name(), desk.topic()
    source = desk.source(group, [f"^{desk.prefix}_apns"], offset_reset="latest")
    own(source)
    source.close()
    later = desk.topic()
    desk.write(later, b"early")

    again = desk.source(group, [f"^{desk.prefix}_apns"], offset_reset="latest", wanted=lambda topic: topic != first)
    assert values(receive(again, 1)) == [b"early"]


def test_a_group_that_began_without_topics_reads_later_ones_from_their_first_record(desk: Desk) -> None:
    source = desk.source(desk.name(), [f"^{desk.prefix}_apns"], offset_reset="latest")
    assert poll_until(source, lambda: source.health().reason == "no topic matches") == []
    later = desk.topic()
    desk.write(later, b"early")
    source.refresh()

    assert values(receive(source, 1)) == [b"early"]


# --- which topics


def test_only_wanted_topics_are_read(desk: Desk) -> None:
    read, unread = desk.topic(), desk.topic()
    desk.write(unread, b"unread")
    desk.write(read, b"read")
    source = desk.source(desk.name(), [f"^{desk.prefix}_apns"], wanted=lambda topic: topic != unread)

    assert values(receive(source, 1)) == [b"read"]
    receive_nothing(source)
    assert {tracker.topic for tracker in source.assignment.trackers} == {read}


def test_what_is_wanted_may_change(desk: Desk) -> None:
    first, second = desk.topic(), desk.topic()
    wanted = {first}
    source = desk.source(desk.name(), [first, second], wanted=wanted.__contains__)
    desk.write(first, b"first")
    desk.write(second, b"second")
    finish(receive(source, 1))

    wanted.add(second)
    source.refresh()
    finish(receive(source, 1))

    wanted.remove(first)
    source.refresh()
    poll_until(source, lambda: {tracker.topic for tracker in source.assignment.trackers} == {second})


def test_no_topic_at_all_is_wanted_and_then_one(desk: Desk) -> None:
    topic = desk.topic()
    wanted: set[str] = set()
    source = desk.source(desk.name(), [topic], wanted=wanted.__contains__)
    desk.write(topic, b"one")
    for _ in range(3):
        assert source.poll(0.1, never) == []
    wanted.add(topic)
    source.refresh()
    finish(receive(source, 1))
    wanted.clear()
    source.refresh()
    poll_until(source, lambda: not source.assignment.trackers)
    wanted.add(topic)
    source.refresh()
    receive_nothing(source)


def test_a_regular_expression_matches_from_the_start_of_a_name(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, b"one")
    source = desk.source(desk.name(), [f"^{desk.prefix[3:]}"])
    for _ in range(5):
        assert source.poll(0.1, never) == []
    assert not source.assignment.trackers


def test_a_topic_that_does_not_exist_holds_up_no_other_and_is_read_once_it_does(desk: Desk) -> None:
    missing, topic = desk.name(), desk.topic()
    desk.write(topic, b"one")
    source = desk.source(desk.name(), [missing, topic])
    assert values(receive(source, 1)) == [b"one"]

    desk.broker.create_topic(missing)
    desk.write(missing, b"two")
    source.refresh()
    assert values(receive(source, 1)) == [b"two"]


# --- limits


def test_a_full_inbox_holds_its_own_topic_only(desk: Desk) -> None:
    slow, quick = desk.topic(), desk.topic()
    source = desk.source(desk.name(), [slow, quick])
    own(source)
    desk.write(slow, *numbered(10))
    desk.write(quick, *numbered(10))

    deliveries = receive(source, 10, is_full=lambda topic: topic == slow)
    assert {record.topic for record in records(deliveries)} == {quick}
    receive_nothing(source, is_full=lambda topic: topic == slow)

    assert {record.topic for record in records(receive(source, 10))} == {slow}


def test_nothing_comes_while_all_is_full_and_everything_after(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, *numbered(10))
    source = desk.source(desk.name(), [topic])
    receive_nothing(source, is_full=lambda _topic: True)
    assert len(records(receive(source, 10))) == 10


def test_a_partition_stays_within_reach_of_its_lowest_unfinished_message(desk: Desk) -> None:
    topic = desk.topic(partitions=1)
    desk.write(topic, *numbered(40))
    source = desk.source(desk.name(), [topic], max_uncommitted=10)

    first = receive(source, 10)
    receive_nothing(source)
    ((tracker),) = source.assignment.trackers.values()
    for record in records(first)[1:]:
        tracker.finish(record.offset)
    receive_nothing(source)

    tracker.finish(0)
    second = receive(source, 10)
    assert [record.offset for record in records(second)] == list(range(10, 20))


def test_a_partition_whose_ranges_do_not_fit_into_a_commit_is_held(desk: Desk) -> None:
    topic, group = desk.topic(partitions=1), desk.name()
    desk.write(topic, *numbered(3000))
    source = desk.source(group, [topic], max_uncommitted=1_000_000)
    held: list[Record] = []
    for tracker, delivered in receive(source, 3000):
        held += [record for record in delivered if record.offset % 2 == 0]
        for record in delivered:
            if record.offset % 2:
                tracker.finish(record.offset)
    source.commit()
    desk.write(topic, b"more")
    receive_nothing(source)

    for record in held:
        tracker.finish(record.offset)
    source.commit()
    finish(receive(source, 1))


def test_lag_counts_from_the_lowest_unfinished_message(desk: Desk) -> None:
    topic = desk.topic(partitions=1)
    desk.write(topic, *numbered(10))
    source = desk.source(desk.name(), [topic])
    deliveries = receive(source, 10)
    assert list(source.lag().values()) == [10]
    finish(deliveries)
    assert list(source.lag().values()) == [0]


def test_health_tells_whether_it_consumes(desk: Desk) -> None:
    source = desk.source(desk.name(), [desk.topic()])
    own(source)
    assert source.health() == (True, "")


# --- publishing


def test_done_is_called_once_for_each_record(desk: Desk) -> None:
    topic = desk.topic()
    publisher = desk.publisher()
    calls: list[tuple[int, PublishError | None]] = []
    for number in range(500):
        publisher.publish(topic, b"x", lambda error, number=number: calls.append((number, error)))  # type: ignore[misc]
    assert publisher.pending == 500

    assert publisher.flush(20) == 0
    assert sorted(calls) == [(number, None) for number in range(500)]
    assert publisher.pending == 0


def test_publishing_waits_for_nothing(desk: Desk) -> None:
    publisher = desk.publisher()
    done: list[PublishError | None] = []
    publisher.publish(desk.topic(), b"x", done.append)
    assert not done


def test_a_full_buffer_shows_and_empties(desk: Desk) -> None:
    topic = desk.topic()
    publisher = desk.publisher(buffer_kib=64)
    fullness = [publisher.full]
    while not fullness[-1]:
        publisher.publish(topic, bytes(1000), lambda _error: None)
        fullness.append(publisher.full)
    assert 16 <= publisher.pending <= 66

    assert publisher.flush(20) == 0
    fullness.append(publisher.full)
    assert fullness[0] is fullness[-1] is False


def test_a_record_that_is_too_large_is_refused_and_holds_up_no_other(desk: Desk) -> None:
    topic = desk.topic()
    publisher = desk.publisher()
    ends: dict[str, PublishError | None] = {}
    publisher.publish(topic, b"before", lambda error: ends.update(before=error))
    publisher.publish(topic, bytes(desk.broker.max_value_bytes * 2), lambda error: ends.update(large=error))
    publisher.publish(topic, b"after", lambda error: ends.update(after=error))

    until(lambda: len(ends) == 3)
    assert ends["before"] is None
    assert ends["after"] is None
    assert isinstance(ends["large"], RecordTooLarge)
    assert publisher.flush(20) == 0


def test_what_done_raises_stops_nothing(desk: Desk) -> None:
    topic = desk.topic()
    publisher = desk.publisher()
    done: list[PublishError | None] = []
    publisher.publish(topic, b"one", lambda _error: done[5])  # type: ignore[arg-type]
    publisher.publish(topic, b"two", done.append)
    assert publisher.flush(20) == 0
    assert done == [None]
    assert [type(failure) for failure in desk.failures] == [IndexError]


def test_flush_gives_up_in_time(desk: Desk) -> None:
    publisher = desk.publisher()
    publisher.publish(desk.topic(), b"x", lambda _error: None)
    assert publisher.flush(0) == 1
    assert publisher.flush(20) == 0


def test_a_publisher_may_publish_again_from_done(desk: Desk) -> None:
    topic = desk.topic()
    publisher = desk.publisher()
    done: list[PublishError | None] = []
    publisher.publish(topic, b"first", lambda _error: publisher.publish(topic, b"second", done.append))
    until(lambda: done == [None])
    assert sorted(values(receive(desk.source(desk.name(), [topic]), 2)), key=str) == [b"first", b"second"]


def test_a_publisher_is_ready(desk: Desk) -> None:
    publisher = desk.publisher()
    until(lambda: publisher.health().ready)


# --- reading outside a group


def collect(reader: Reader, count: int) -> list[Record]:
    found: list[Record] = []

    def enough() -> bool:
        found.extend(reader.read(0.2))
        return len(found) >= count

    until(enough)
    assert len(found) == count
    return found


def read(desk: Desk, topic: str, start: Place, count: int) -> list[Record]:
    return collect(desk.reader(topic, start), count)


def test_a_reader_reads_from_the_start_and_belongs_to_no_group(desk: Desk) -> None:
    topic, group = desk.topic(), desk.name()
    desk.write(topic, *numbered(10))
    for _ in range(2):
        assert sorted(record.value or b"" for record in read(desk, topic, "earliest", 10)) == numbered(10)
    finish(receive(desk.source(group, [topic]), 10))


def test_a_reader_at_the_end_sees_what_comes(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, b"old")
    reader = desk.reader(topic, "latest")
    assert list(reader.read(0.2)) == []
    desk.write(topic, b"new")
    assert [record.value for record in collect(reader, 1)] == [b"new"]


def test_a_reader_begins_at_given_offsets(desk: Desk) -> None:
    topic = desk.topic(partitions=1)
    desk.write(topic, *numbered(10))
    assert [record.offset for record in read(desk, topic, {0: 7}, 3)] == [7, 8, 9]


def test_a_reader_begins_at_a_time(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, b"before")
    until(lambda: int(time.time() * 1000) > read(desk, topic, "earliest", 1)[0].timestamp + 1)
    moment = time.time()
    desk.write(topic, b"after")
    assert [record.value for record in read(desk, topic, moment, 1)] == [b"after"]


def test_a_reader_of_a_topic_that_does_not_exist_says_so(desk: Desk) -> None:
    missing = desk.name()
    with pytest.raises(OSError, match=missing):
        list(desk.reader(missing).read(0.2))


def read_all(reader: Reader) -> list[Record]:
    """What a reader has up to its end."""
    found: list[Record] = []

    def ended() -> bool:
        found.extend(reader.read(0.2))
        return reader.ended

    until(ended)
    assert list(reader.read(0)) == []
    return found


def test_a_reader_ends_at_given_offsets(desk: Desk) -> None:
    topic = desk.topic(partitions=1)
    desk.write(topic, *numbered(10))
    assert [record.offset for record in read_all(desk.reader(topic, {0: 2}, {0: 7}))] == [2, 3, 4, 5, 6]
    assert read_all(desk.reader(topic, {0: 7}, {0: 7})) == []


def test_a_reader_ends_where_the_topic_ended_when_it_began(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, *numbered(10))
    reader = desk.reader(topic, "earliest", "latest")
    first = list(reader.read(5))
    desk.write(topic, b"later")
    assert sorted(record.value or b"" for record in first + read_all(reader)) == numbered(10)


def test_a_reader_of_an_empty_topic_ends_at_once(desk: Desk) -> None:
    assert read_all(desk.reader(desk.topic(), "earliest", "latest")) == []


def test_a_reader_without_an_end_never_ends(desk: Desk) -> None:
    reader = desk.reader(desk.topic())
    assert list(reader.read(0.2)) == []
    assert not reader.ended


def test_a_reader_tells_the_offsets_of_places(desk: Desk) -> None:
    topic = desk.topic(partitions=1)
    before = time.time()
    desk.write(topic, *numbered(10))
    reader = desk.reader(topic)
    assert reader.offsets("earliest") == {0: 0}
    assert reader.offsets("latest") == {0: 10}
    assert reader.offsets({0: 4}) == {0: 4}
    assert reader.offsets(before - 5) == {0: 0}
    assert reader.offsets(time.time() + 3600) == {0: 10}
    with pytest.raises(OSError, match="nowhere"):
        desk.reader("nowhere").offsets("earliest")


# --- what a group has committed


def test_commits_of_a_group_can_be_asked_for_without_joining_it(desk: Desk) -> None:
    topic, group = desk.topic(partitions=1), desk.name()
    desk.write(topic, *numbered(10))
    source = desk.source(group, [topic])
    ((tracker, delivered),) = [
        (tracker, delivered) for tracker, delivered in receive(source, 10) if tracker.key.partition == 0
    ]
    for record in delivered:
        if record.offset in (0, 1, 4, 5, 8):
            tracker.finish(record.offset)
    source.commit()

    found = desk.committed(group, topic)
    assert found.keys() == {0}
    assert found[0].offset == 2
    assert list(decode_ranges(*found[0])) == [4, 5, 8]
    # The member is still one, and commits.
    tracker.finish(2)
    source.commit()
    assert desk.committed(group, topic)[0].offset == 3


def test_a_group_without_commits_has_none(desk: Desk) -> None:
    topic, group = desk.topic(), desk.name()
    assert desk.committed(group, topic) == {}
    own(desk.source(group, [topic], offset_reset="latest"))
    assert set(desk.committed(group, topic).values()) == {Commit(0, "")}


def test_the_topics_that_exist(broker_desk: Desk) -> None:
    topic = broker_desk.topic()
    assert topic in broker_at(broker_desk.broker.address, broker_desk.broker.client).topics()


def test_commits_in_a_topic_that_does_not_exist_are_an_error(desk: Desk) -> None:
    with pytest.raises(OSError, match="nowhere"):
        desk.committed(desk.name(), "nowhere")


def test_what_a_new_group_leaves_out_is_told(broker_desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    topic, group = broker_desk.topic(), broker_desk.name()
    broker_desk.write(topic, *(b"%d" % number for number in range(7)))
    source = broker_desk.source(group, [topic], offset_reset="latest")
    poll_until(source, lambda: topic in source.start_skipped)
    assert source.start_skipped == {topic: 7}
    told = [record for record in caplog.records if record.message == LEFT_OUT]
    assert [(record.levelname, vars(record)["fields"]["messages"]) for record in told] == [("WARNING", 7)]


def test_nothing_is_left_out_at_the_earliest_or_after_a_commit(broker_desk: Desk) -> None:
    topic, group = broker_desk.topic(), broker_desk.name()
    broker_desk.write(topic, b"one")
    source = broker_desk.source(group, [topic], offset_reset="earliest")
    finish(receive(source, 1))
    source.close()
    again = broker_desk.source(group, [topic], offset_reset="latest")
    broker_desk.write(topic, b"two")
    assert values(receive(again, 1)) == [b"two"]
    assert not source.start_skipped + again.start_skipped
