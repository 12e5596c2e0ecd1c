"""What is particular to the embedded broker: leases, one file for several processes, outages of the file, retention.

Processes of their own stand where a process is killed or where two of them meet; the rest happens in this one.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import gevent
import pytest

from lab.processes import ROOT
from pusher.broker.interface import PublishError, Record
from pusher.broker.offsets import Commit, State, Tracker
from pusher.broker.sqlite import SqlitePublisher, SqliteReader, SqliteSource
from pusher.broker.sqlite.group import Assigned, Member, commit, join, leave
from pusher.broker.sqlite.store import Store, Unavailable, writing
from pusher.broker.sqlite.topic_log import create_topic, delete_old, topics
from pusher.daemon.consuming import Consuming
from pusher.telemetry.stats import Stats
from tests.contract.brokers import (
    SqliteBroker,
    everything,
    expect_stored,
    finish,
    never,
    own,
    receive,
    receive_nothing,
    records,
    until,
    values,
)

TOPIC, GROUP = "push-game_apns-single", "senders"


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def broker(tmp_path: Path) -> SqliteBroker:
    return SqliteBroker(tmp_path)


@pytest.fixture
def member(broker: SqliteBroker) -> Iterator[Callable[..., SqliteSource]]:
    """Makes members of the group; those of one test share a lease's time."""
    members = []

    def make(lease_s: float = 10.0, **options: object) -> SqliteSource:
        options = {"offset_reset": "earliest"} | options
        source = SqliteSource(broker.url, GROUP, [TOPIC], everything, lease_s=lease_s, **options)  # type: ignore[arg-type]
        members.append(source)
        return source

    yield make
    for source in members:
        source.close(commit=False)


def write(broker: SqliteBroker, *found: bytes, topic: str = TOPIC) -> None:
    with closing(SqlitePublisher(broker.url)) as publisher:
        for value in found:
            publisher.publish(topic, value, expect_stored)
        assert publisher.flush(20) == 0


def state(tracker: Tracker) -> State:
    return tracker.state


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def read(broker: SqliteBroker, topic: str = TOPIC) -> list[Record]:
    """All that a topic has."""
    found: list[Record] = []
    with closing(SqliteReader(broker.url, topic)) as reader:
        while more := reader.read(0):
            found += more
    return found


def offsets(broker: SqliteBroker, topic: str = TOPIC) -> list[int]:
    return [record.offset for record in read(broker, topic)]


def receive_some(source: SqliteSource) -> list[Record]:
    """What the next look that finds anything brings."""
    found: list[Record] = []

    def look() -> bool:
        found.extend(records(source.poll(0.1, never)))
        return bool(found)

    until(look)
    return found


@contextmanager
def opened(broker: SqliteBroker) -> Iterator[sqlite3.Connection]:
    """The file, as an operator would open it."""
    with closing(sqlite3.connect(broker.path, isolation_level=None)) as connection:
        yield connection


@contextmanager
def program(source: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Python code in a process of its own, killed in the end."""
    command = [sys.executable, "-c", f"from gevent import monkey; monkey.patch_all()\n{source}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    with gevent.Timeout(20):
        return process.stdout.readline().strip()


@contextmanager
def broken_file(broker: SqliteBroker) -> Iterator[None]:
    """While it lasts, the file is away and rubbish is in its place."""
    away = broker.path.with_name("away.db")
    suffixes = ("", "-wal", "-shm")
    for suffix in suffixes:
        Path(f"{broker.path}{suffix}").rename(f"{away}{suffix}")
    broker.path.write_bytes(b"rubbish" * 1000)
    yield
    for suffix in suffixes:
        Path(f"{away}{suffix}").rename(f"{broker.path}{suffix}")


# --- leases


def test_a_second_member_stands_by_and_says_so(
    broker: SqliteBroker, member: Callable[..., SqliteSource], caplog: pytest.LogCaptureFixture
) -> None:
    write(broker, *numbered(10))
    clock = Clock()
    owner, standby = member(), member(clock=clock)
    assert len(records(receive(owner, 10))) == 10

    with caplog.at_level(logging.INFO):
        for _ in range(5):
            clock.now_s += 2
            assert standby.poll(0, never) == []
    assert not standby.assignment.trackers
    assert standby.health().ready
    assert f"/{os.getpid()}/" in standby.health().reason
    assert [record.message for record in caplog.records if record.name.endswith("source")] == ["standby"]


def test_a_standby_takes_over_when_the_owner_leaves(broker: SqliteBroker, member: Callable[..., SqliteSource]) -> None:
    clock = Clock()
    write(broker, *numbered(10))
    owner, standby = member(), member(clock=clock)
    ((tracker, _),) = receive(owner, 10)
    assert standby.poll(0, never) == []
    tracker.finish_many(range(4))
    owner.close()

    clock.now_s += 2  # its next look at the leases, long before they would end
    assert values(standby.poll(0, never)) == numbered(6, first=4)
    assert standby.health() == (True, "")


def let_leases_end(broker: SqliteBroker, clock: Clock) -> None:
    """As if nobody had polled for more than a lease's time."""
    clock.now_s += 11
    with opened(broker) as connection:
        connection.execute("UPDATE lease SET until = until - 11")


def test_a_member_that_sleeps_through_its_lease_cannot_commit_over_its_successor(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    clock = Clock()
    write(broker, *numbered(10))
    sleeper, successor = member(clock=clock), member()
    ((tracker, _),) = sleeper.poll(0, never)
    let_leases_end(broker, clock)
    finish(receive(successor, 10))
    successor.commit()

    tracker.finish(0)
    sleeper.commit()
    assert state(tracker) is State.GONE
    assert not sleeper.assignment.trackers
    successor.close()
    receive_nothing(member())


def test_a_member_that_lost_its_lease_finds_out_before_it_reads_on(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    clock = Clock()
    write(broker, b"0")
    sleeper, successor = member(clock=clock), member()
    ((tracker, _),) = sleeper.poll(0, never)
    let_leases_end(broker, clock)
    receive(successor, 1)
    write(broker, b"1")

    assert sleeper.poll(0, never) == []
    assert state(tracker) is State.GONE
    assert values(receive(successor, 1)) == [b"1"]


def test_a_member_whose_lease_nobody_took_goes_on_as_it_was(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    clock = Clock()
    write(broker, *numbered(10))
    source = member(clock=clock)
    ((tracker, _),) = source.poll(0, never)
    let_leases_end(broker, clock)
    write(broker, b"more")

    ((same, found),) = source.poll(0, never)
    assert same is tracker
    assert [record.value for record in found] == [b"more"]


def test_leases_are_prolonged_in_time(broker: SqliteBroker, member: Callable[..., SqliteSource]) -> None:
    clock = Clock()
    broker.create_topic(TOPIC)
    source = member(clock=clock)
    source.poll(0, never)
    let_leases_end(broker, clock)
    clock.now_s -= 8
    source.poll(0, never)
    standby = member()
    standby.poll(0, never)
    assert not standby.assignment.trackers


def test_what_is_read_while_the_lease_ends_is_not_handed_on(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    clock = Clock()
    write(broker, b"0")
    source = member(clock=clock)

    def take_long(_topic: str) -> bool:
        clock.now_s += 11
        return False

    assert source.poll(0, take_long) == []
    assert values(source.poll(0, never)) == [b"0"]


def test_a_commit_needs_the_fence_that_it_was_granted(broker: SqliteBroker) -> None:
    broker.create_topic(TOPIC)
    one, other = Member(GROUP, "one"), Member(GROUP, "other")
    with closing(Store(broker.url)) as store:

        def take(member: Member, held: dict[str, int], now_s: float) -> Assigned:
            return store.run(
                partial(join, member=member, wanted={TOPIC}, held=held, reset="earliest", now_s=now_s, lease_s=10.0)
            )

        first = take(one, {}, 100).fences
        assert take(one, first, 105)[:3] == (first, {}, {})
        assert take(other, {}, 110)[:3] == ({}, {}, {TOPIC: "one"})
        second = take(other, {}, 116).fences
        store.run(partial(leave, member=other, fences=second, commits={TOPIC: Commit(7, "")}))
        third = take(one, {}, 117)
        assert first[TOPIC] < second[TOPIC] < third.fences[TOPIC]
        assert third.starts == {TOPIC: Commit(7, "")}

        # the same member with what it knew before: its tracker is of an earlier time
        assert store.run(partial(commit, member=one, fences=first, commits={TOPIC: Commit(3, "")})) == {TOPIC}
        assert store.run(partial(commit, member=one, fences=third.fences, commits={TOPIC: Commit(8, "")})) == set()
        assert take(one, first, 118).starts == {TOPIC: Commit(8, "")}


def test_two_members_never_own_a_topic_at_once(broker: SqliteBroker, member: Callable[..., SqliteSource]) -> None:
    broker.create_topic(TOPIC)
    members = [member() for _ in range(4)]
    for _ in range(3):
        for source in members:
            source.poll(0, never)
    assert sum(bool(source.assignment.trackers) for source in members) == 1


def test_a_lease_from_the_future_does_not_hold(broker: SqliteBroker, member: Callable[..., SqliteSource]) -> None:
    broker.create_topic(TOPIC)
    own(member())
    with opened(broker) as connection:
        connection.execute("UPDATE lease SET until = until + 86400")
    own(member())


# --- several processes

_CONSUME = """
import sys
from pusher.broker.sqlite import SqliteSource
source = SqliteSource(sys.argv[1], sys.argv[2], [sys.argv[3]], lambda _: True, offset_reset="earliest", lease_s=1.0)
count = 0
while True:
    for tracker, records in source.poll(0.1, lambda _: False):
        for record in records[:5]:
            tracker.finish(record.offset)
        source.commit()
        print(len(records), flush=True)
"""


def test_a_killed_process_is_succeeded_and_what_it_had_not_finished_comes_again(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    write(broker, *numbered(20))
    with program(_CONSUME, broker.url, GROUP, TOPIC) as process:
        assert line_of(process) == b"20"
        standby = member(1.0)
        assert standby.poll(0, never) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert values(receive(standby, 15)) == numbered(15, first=5)


_PUBLISH = """
import sys, gevent
from pusher.broker.sqlite import SqlitePublisher
publisher = SqlitePublisher(sys.argv[1])
def publish(number):
    publisher.publish(sys.argv[2], b"%d" % number, lambda error: print(number, flush=True))
number = 0
while True:
    publish(number)
    number += 1
    gevent.sleep(0 if publisher.pending < 200 else 0.001)
"""


def test_what_was_acknowledged_survives_a_kill(broker: SqliteBroker) -> None:
    acknowledged = 0
    for _ in range(3):
        with program(_PUBLISH, broker.url, TOPIC) as process:
            seen = [line_of(process) for _ in range(300)]
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            seen += process.stdout.read().split()
        assert seen == numbered(len(seen))
        stored = read(broker)
        own_part = [record.value for record in stored[acknowledged:]]
        assert own_part[: len(seen)] == seen
        assert own_part == numbered(len(own_part))
        assert [record.offset for record in stored] == list(range(len(stored)))
        acknowledged = len(stored)


def test_processes_may_begin_at_once_on_a_file_that_does_not_exist(broker: SqliteBroker, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"\n".join(numbered(100)))
    command = [sys.executable, "pusher.py", "enqueue", TOPIC, str(lines), "--force", "--brokers", broker.url]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    for process in processes:
        assert process.communicate(timeout=60) == (f"enqueued 100 messages to {TOPIC}\n", "")
    assert offsets(broker) == list(range(400))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines", "queue.db"]


def test_a_file_is_made_once_whoever_else_makes_it(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        broker = SqliteBroker(tmp_path / str(number))
        publishers = [SqlitePublisher(broker.url, linger_ms=0) for _ in range(8)]
        for publisher in publishers:
            publisher.publish(TOPIC, b"one", expect_stored)
        for publisher in publishers:
            assert publisher.flush(20) == 0
            publisher.close()
        assert offsets(broker) == list(range(8))


# --- outages of the file


def test_a_full_disk_holds_records_up_and_loses_none(broker: SqliteBroker) -> None:
    broker.create_topic(TOPIC)
    found = [b"%06d" % number + bytes([120]) * 1000 for number in range(1000)]
    command = [sys.executable, "pusher.py", "enqueue", TOPIC, "--brokers", broker.url]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        process.stdin.write(b"\n".join(found))
        process.stdin.close()
        with gevent.Timeout(20):
            assert b"publishing failed, retrying" in process.stderr.readline()
        assert len(read(broker)) < 1000

        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert process.wait(60) == 0
    assert [record.value for record in read(broker)] == found


def test_a_broken_file_holds_a_publisher_up_until_it_is_mended(broker: SqliteBroker) -> None:
    broker.create_topic(TOPIC)
    with opened(broker) as connection, closing(SqlitePublisher(broker.url)) as publisher:
        connection.execute("SELECT * FROM topic").fetchall()
        until(lambda: publisher.health().ready)
        done: list[PublishError | None] = []
        with broken_file(broker):
            publisher.publish(TOPIC, b"one", done.append)
            until(lambda: not publisher.health().ready)
            assert "queue.db: file is not a database" in publisher.health().reason
            assert publisher.pending == 1
        assert publisher.flush(20) == 0
        assert done == [None]
        assert publisher.health() == (True, "")
    assert [record.value for record in read(broker)] == [b"one"]


def test_an_idle_publisher_notices_that_the_file_is_mended(broker: SqliteBroker) -> None:
    broker.path.write_bytes(b"rubbish" * 1000)
    with closing(SqlitePublisher(broker.url)) as publisher:
        until(lambda: "not a database" in publisher.health().reason)
        broker.path.unlink()
        until(lambda: publisher.health().ready)


def test_a_broken_file_holds_a_source_up_until_it_is_mended(
    broker: SqliteBroker, member: Callable[..., SqliteSource], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    write(broker, *numbered(10))
    source = member(clock=clock)
    deliveries = source.poll(0, never)
    ((tracker, found),) = deliveries
    assert len(found) == 10
    finish(deliveries)
    with opened(broker) as connection:
        connection.execute("SELECT * FROM topic").fetchall()
        with broken_file(broker):
            source.commit()
            for _ in range(3):
                assert source.poll(0, never) == []
            assert not source.health().ready
            assert state(tracker) is State.ACTIVE
            clock.now_s += 11
            assert source.poll(0, never) == []
            assert state(tracker) is State.SUSPENDED

    assert source.poll(0, never) == []
    assert source.health() == (True, "")
    assert state(tracker) is State.ACTIVE
    source.commit()
    source.close(commit=False)
    receive_nothing(member())
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == ["commit failed, retrying", "not consuming"]


def test_a_file_that_was_replaced_is_read_from_its_start(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    write(broker, *numbered(10))
    source = member()
    finish(receive(source, 10))
    for path in broker.path.parent.glob("queue.db*"):
        path.unlink()
    write(broker, b"new")
    assert values(receive(source, 1)) == [b"new"]


def test_a_publisher_writes_to_the_file_that_is_there(broker: SqliteBroker) -> None:
    with closing(SqlitePublisher(broker.url)) as publisher:
        publisher.publish(TOPIC, b"old", expect_stored)
        assert publisher.flush(20) == 0
        for path in broker.path.parent.glob("queue.db*"):
            path.unlink()
        publisher.publish(TOPIC, b"new", expect_stored)
        assert publisher.flush(20) == 0
    assert [record.value for record in read(broker)] == [b"new"]


def test_a_lock_of_another_program_blocks_its_writers_but_not_the_hub(broker: SqliteBroker) -> None:
    broker.create_topic(TOPIC)
    with opened(broker) as connection, closing(SqlitePublisher(broker.url)) as publisher:
        until(lambda: publisher.health().ready)
        connection.execute("BEGIN IMMEDIATE")
        publisher.publish(TOPIC, b"one", expect_stored)
        ticks = [time.monotonic()]
        while ticks[-1] - ticks[0] < 1.0:
            gevent.sleep(0.01)
            ticks.append(time.monotonic())
        assert max(after - before for before, after in pairwise(ticks)) < 0.5
        assert publisher.pending == 1
        connection.execute("COMMIT")
        assert publisher.flush(20) == 0


def test_another_database_is_left_alone(broker: SqliteBroker) -> None:
    with opened(broker) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    before = broker.path.read_bytes()
    with closing(Store(broker.url)) as store, pytest.raises(Unavailable, match="not a file of the embedded broker"):
        store.run(lambda connection: connection.execute("SELECT 1"))
    assert broker.path.read_bytes() == before


def test_a_file_of_a_newer_format_is_left_alone(broker: SqliteBroker) -> None:
    broker.create_topic(TOPIC)
    with opened(broker) as connection:
        connection.execute("PRAGMA user_version = 2")
    with closing(Store(broker.url)) as store, pytest.raises(Unavailable, match="created by a newer pusher"):
        store.run(lambda connection: connection.execute("SELECT 1"))


def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    with closing(SqlitePublisher(f"sqlite:///{tmp_path}/missing/queue.db")) as publisher:
        until(lambda: "No such file or directory" in publisher.health().reason)
    assert not (tmp_path / "missing").exists()


def test_a_reader_makes_no_file(broker: SqliteBroker) -> None:
    with closing(SqliteReader(broker.url, TOPIC)) as reader, pytest.raises(OSError, match="does not exist"):
        reader.read(0)
    assert not broker.path.exists()


def test_a_relative_address_is_looked_up_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(SqlitePublisher("sqlite:///queue.db")) as publisher:
        publisher.publish(TOPIC, b"one", expect_stored)
        assert publisher.flush(20) == 0
    assert (tmp_path / "queue.db").exists()


# --- positions


def test_removed_records_are_skipped_counted_and_said(
    broker: SqliteBroker, member: Callable[..., SqliteSource], caplog: pytest.LogCaptureFixture
) -> None:
    write(broker, *numbered(10))
    source = member(max_uncommitted=2)
    finish(receive(source, 2))
    with opened(broker) as connection:
        connection.execute("DELETE FROM record WHERE value IN (x'32', x'33')")
    assert values(receive(source, 2)) == [b"4", b"5"]
    stats = Stats("host")
    consuming = Consuming(source, lambda *_: None, never, commit_interval_s=1.0)
    for _ in range(2):
        consuming.count_skipped(stats)
    assert {sample.tags: sample.value for sample in stats.snapshot()} == {(TOPIC,): 1}
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "offset out of range, continuing at the earliest offset"
    ]


def test_a_position_beyond_the_end_goes_to_the_earliest(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    write(broker, *numbered(3))
    member().poll(0, never)
    with opened(broker) as connection:
        connection.execute("UPDATE committed SET offset = 100")
        connection.execute("DELETE FROM lease")
    source = member()
    assert values(receive(source, 3)) == numbered(3)
    assert source.out_of_range.total() == 1


def test_large_records_come_a_few_at_a_time(broker: SqliteBroker, member: Callable[..., SqliteSource]) -> None:
    write(broker, *[bytes(1_000_000) for _ in range(20)])
    source = member()
    looks: list[int] = []
    while sum(looks) < 20:
        looks.append(len(receive_some(source)))
    assert max(looks) == 5


# --- retention


def test_old_records_go_only_when_every_group_has_finished_them(
    broker: SqliteBroker, member: Callable[..., SqliteSource]
) -> None:
    write(broker, *numbered(20))
    source = member()
    (tracker, _), *_ = receive(source, 20)
    tracker.finish_many(range(5))
    source.commit()
    later_ms = int(time.time() * 1000) + 1

    with closing(Store(broker.url)) as store:
        assert store.run(partial(delete_old, stored_before_ms=later_ms - 3_600_000, limit=100)) == 0
        assert store.run(partial(delete_old, stored_before_ms=later_ms, limit=3)) == 3
        assert store.run(partial(delete_old, stored_before_ms=later_ms, limit=100)) == 2
        assert store.run(partial(delete_old, stored_before_ms=later_ms, limit=100)) == 0
    assert offsets(broker) == list(range(5, 20))


def test_offsets_are_not_used_again(broker: SqliteBroker) -> None:
    write(broker, *numbered(20))
    with closing(Store(broker.url)) as store:
        assert store.run(partial(delete_old, stored_before_ms=int(time.time() * 1000) + 1, limit=100)) == 20
    write(broker, b"next")
    assert offsets(broker) == [20]


def test_a_publisher_deletes_old_records(broker: SqliteBroker) -> None:
    write(broker, *numbered(2500))
    assert len(offsets(broker)) == 2500
    with closing(SqlitePublisher(broker.url, retention_s=0.001)):
        until(lambda: offsets(broker) == [])


# --- publishing


@pytest.mark.parametrize("topic", ["", "a b", "..", "a/b", "x" * 250])
def test_a_name_that_kafka_would_not_take_is_refused(broker: SqliteBroker, topic: str) -> None:
    with closing(SqlitePublisher(broker.url)) as publisher:
        done: list[PublishError | None] = []
        publisher.publish(topic, b"x", done.append)
        assert done == []
        assert publisher.flush(20) == 0
    assert type(done[0]).__name__ == "TopicRefused"


def test_headers_count_as_size(broker: SqliteBroker) -> None:
    with closing(SqlitePublisher(broker.url, max_record_bytes=10)) as publisher:
        done: list[PublishError | None] = []
        publisher.publish(TOPIC, b"12345", done.append, [("abc", b"de")])
        publisher.publish(TOPIC, b"12345", done.append, [("abc", b"def")])
        assert publisher.flush(20) == 0
    assert sorted(type(error).__name__ for error in done) == ["NoneType", "RecordTooLarge"]


def test_an_error_in_a_call_reaches_its_caller_and_the_next_call_works(broker: SqliteBroker) -> None:
    with closing(Store(broker.url)) as store:
        with pytest.raises(ZeroDivisionError):
            store.run(fail_in_the_middle)
        with pytest.raises(sqlite3.ProgrammingError):
            store.run(lambda connection: connection.execute("SELECT ?"))
        assert store.run(topics) == {}
        with pytest.raises(ZeroDivisionError):
            store.run(fail_in_the_middle)


def fail_in_the_middle(connection: sqlite3.Connection) -> float:
    with writing(connection):
        create_topic(connection, TOPIC)
        return 1 / 0


def test_a_publisher_that_dies_tells_its_owner(broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    failures: list[BaseException] = []
    with closing(SqlitePublisher(broker.url, failed=failures.append)) as publisher:
        until(lambda: publisher.health().ready)
        monkeypatch.setattr("pusher.broker.sqlite.publisher._append", broken)
        publisher.publish(TOPIC, b"one", expect_stored)
        until(lambda: bool(failures))
        assert isinstance(failures[0], ZeroDivisionError)
        assert "ZeroDivisionError" in publisher.health().reason
        assert publisher.pending == 1
