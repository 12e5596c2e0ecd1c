"""What kafka-python does under gevent that this package has to live with; each trap was met."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import uuid
from collections import Counter, deque
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gevent
import pytest
import yaml
from kafka import KafkaProducer
from kafka.future import Future

from lab.kafka.admin import create_topic, delete_topic, topics
from lab.kafka.server import KafkaServer, free_port
from pusher import config
from pusher.broker.access import Access
from pusher.broker.interface import PublishError, RecordTooLarge, TopicRefused
from pusher.broker.kafka import KafkaPublisher
from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.kafka.client import Consumer, connection
from pusher.broker.kafka_client import open_broker
from pusher.config import settings
from tests.contract.brokers import (
    CLIENTS,
    Client,
    everything,
    expect_stored,
    never,
    poll_until,
    receive,
    records,
    until,
    values,
)
from tests.integration.members import Member

pytestmark = pytest.mark.integration

#: Tests without ``client`` are about this library alone.
PYTHON = CLIENTS["kafka-python"]


def new_topic(brokers: str, partitions: int = 1, **settings: str) -> str:
    topic = f"push-{uuid.uuid4().hex[:12]}_apns-single"
    create_topic(brokers, topic, partitions, **settings)
    return topic


def publisher_of(client: Client, brokers: str, parts: ExitStack, topic_wait_s: float = 10.0) -> Any:
    publisher = client.publisher(brokers, linger_ms=5, topic_wait_s=topic_wait_s)
    parts.callback(publisher.close)
    return publisher


def source_of(client: Client, brokers: str, parts: ExitStack, *names: str, session_timeout_ms: int = 6000) -> Any:
    source = client.source(
        brokers,
        uuid.uuid4().hex,
        names,
        everything,
        offset_reset="earliest",
        session_timeout_ms=session_timeout_ms,
        metadata_refresh_s=1,
    )
    parts.callback(source.close, commit=False)
    return source


def test_the_library_is_refused_before_gevent_has_patched() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import pusher.broker.kafka"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "gevent has to patch" in finished.stderr


@pytest.mark.parametrize("bound", ["least", "most"])
def test_what_a_setting_takes_the_client_takes(
    client: Client, kafka_brokers: str, parts: ExitStack, bound: str
) -> None:
    """Times of more than 24 days are no 32 bits of milliseconds, which both clients send or keep them as."""
    queue = settings.QUEUE
    kinds: list[Any] = [queue.session_timeout, queue.fetch_wait_max, queue.metadata_refresh, settings.FEEDBACK_LINGER]
    least = {one.key: f"{one.kind.minimum_s or 0.001}s" for one in kinds} | {queue.fetch_min_bytes.key: "1"}
    most = {one.key: f"{one.kind.maximum_s}s" for one in kinds} | {queue.fetch_min_bytes.key: "100000000"}
    flat = least if bound == "least" else most
    flat |= {queue.topics.key: f"push-{uuid.uuid4().hex}_apns-single"}
    text = yaml.safe_dump(flat | {queue.group.key: uuid.uuid4().hex, "kafka.client": client.name})
    broker = open_broker(config.parse(text), queue.at, kafka_brokers)
    parts.callback(broker.publisher().close)
    source = broker.source(queue, everything)
    parts.callback(source.close, commit=False)
    poll_until(source, lambda: source.health().ready)


def test_a_rebalance_whose_polls_end_in_its_middle_is_seen_through(kafka_brokers: str, parts: ExitStack) -> None:
    """The library forgets a rejoin for new topics when the poll that began it ends before the answer."""
    first, second = new_topic(kafka_brokers), new_topic(kafka_brokers)
    source = source_of(PYTHON, kafka_brokers, parts, first)
    poll_until(source, lambda: len(source.assignment.trackers) == 1)
    consumer = source._consumer

    consumer.subscribe_to([first, second], source._share)
    deadline = time.monotonic() + 20
    while len(consumer.assignment()) < 2:
        consumer.rejoin(timeout_ms=1)
        assert time.monotonic() < deadline


def test_only_committed_transactions_are_read_and_their_marks_leave_no_lag(
    client: Client, kafka_brokers: str, parts: ExitStack
) -> None:
    topic = new_topic(kafka_brokers)
    producer = KafkaProducer(bootstrap_servers=kafka_brokers, transactional_id=uuid.uuid4().hex)
    parts.callback(producer.close)
    producer.init_transactions()
    for kind, end in (("good", producer.commit_transaction), ("bad", producer.abort_transaction)) * 2:
        producer.begin_transaction()
        for number in range(3):
            producer.send(topic, f"{kind}{number}".encode(), partition=0)
        producer.flush()
        end()

    source = source_of(client, kafka_brokers, parts, topic)
    deliveries = receive(source, 6)
    assert values(deliveries) == [b"good0", b"good1", b"good2"] * 2
    for delivery in deliveries:
        delivery.tracker.finish_many(record.offset for record in delivery.records)
    poll_until(source, lambda: source.lag() == {(topic, 0): 0})
    assert [commit.offset for commit in source.assignment.due().values()] == [16]

    with closing(client.reader(kafka_brokers, topic, "earliest", "latest")) as reader:
        found: list[bytes | None] = []
        while not reader.ended:
            found += [record.value for record in reader.read(0.5)]
    assert found == [b"good0", b"good1", b"good2"] * 2


def test_what_is_wanted_may_change_before_the_topics_are_known(
    client: Client, kafka_brokers: str, parts: ExitStack
) -> None:
    """A new group must not take topics that are there already for later ones, which begin at the earliest."""
    topic = new_topic(kafka_brokers)
    with closing(client.publisher(kafka_brokers)) as publisher:
        publisher.publish(topic, b"old", expect_stored)
        assert publisher.flush(20) == 0
    source = client.source(kafka_brokers, uuid.uuid4().hex, [topic], everything, offset_reset="latest")
    parts.callback(source.close, commit=False)
    source.refresh()
    poll_until(source, lambda: bool(source.assignment.trackers))
    assert source.start_skipped == {topic: 1}


def test_a_compacted_topic_is_named_as_the_cause(client: Client, kafka_brokers: str, parts: ExitStack) -> None:
    topic = new_topic(kafka_brokers, cleanup_policy="compact")
    publisher = publisher_of(client, kafka_brokers, parts)
    refused: list[PublishError | None] = []
    publisher.publish(topic, b"without a key", refused.append)
    until(lambda: bool(refused))
    assert "compacted topic" in str(refused[0])


def test_constructors_wait_for_no_broker_and_all_begins_once_there_is_one(
    client: Client, tmp_path: Path, parts: ExitStack
) -> None:
    server = KafkaServer(tmp_path / "kafka", port=free_port())
    topic = f"push-{uuid.uuid4().hex[:12]}_apns-single"
    (tmp_path / "kafka").mkdir()
    source = source_of(client, server.brokers, parts, topic)
    publisher = publisher_of(client, server.brokers, parts)
    stored: list[PublishError | None] = []
    publisher.publish(topic, b"early", stored.append)
    for _ in range(3):
        assert source.poll(0.1, never) == []
    source.commit()
    assert publisher.flush(0.1) == 1
    assert not source.health().ready
    assert source.health().reason
    assert publisher.health() == (False, f"{server.brokers}: connection refused")

    server.start()
    parts.callback(server.stop)
    assert publisher.flush(30) == 0
    assert stored == [None]
    assert values(receive(source, 1)) == [b"early"]
    assert source.health().ready
    assert publisher.health().ready
    source.close()


def test_a_reader_says_that_nobody_answers(client: Client, parts: ExitStack) -> None:
    brokers = f"127.0.0.1:{free_port()}"
    reader = client.reader(brokers, "push-game_apns-single", answer_s=0.2)
    parts.callback(reader.close)
    with pytest.raises(OSError, match=brokers):
        reader.read(0.1)


def test_a_reader_stops_at_the_end(client: Client, kafka_brokers: str, parts: ExitStack) -> None:
    topic = new_topic(kafka_brokers, partitions=2)
    # a publisher may put all of them into one partition
    with closing(KafkaProducer(bootstrap_servers=kafka_brokers)) as producer:
        for number in range(500):
            producer.send(topic, b"%d" % number, partition=number % 2)
        producer.flush(20)
    reader = client.reader(kafka_brokers, topic, {0: 5}, end={0: 10, 1: 3})
    parts.callback(reader.close)
    found: Counter[int] = Counter()

    def ended() -> bool:
        found.update(record.partition for record in reader.read(1))
        return bool(reader.ended)

    until(ended)
    assert found == {0: 5, 1: 3}
    empty = client.reader(kafka_brokers, topic, "latest", end="latest")
    parts.callback(empty.close)
    assert list(empty.read(0.1)) == []
    assert empty.ended


def test_a_missing_topic_is_never_made_by_reading(client: Client, kafka_brokers: str, parts: ExitStack) -> None:
    """The shared Kafka makes topics that a metadata request names."""
    missing, present = f"push-{uuid.uuid4().hex[:12]}_apns-single", new_topic(kafka_brokers)
    source = source_of(client, kafka_brokers, parts, missing, present)
    poll_until(source, lambda: bool(source.assignment.trackers))
    for _ in range(3):
        source.poll(0.2, never)
    assert missing not in topics(kafka_brokers)

    delete_topic(kafka_brokers, present)
    poll_until(source, lambda: not source.assignment.trackers)
    for _ in range(3):
        source.poll(0.2, never)
    assert present not in topics(kafka_brokers)


def test_a_missing_topic_is_made_by_publishing_where_the_broker_allows_it(
    client: Client, kafka_brokers: str, parts: ExitStack
) -> None:
    topic = f"push-{uuid.uuid4().hex[:12]}-apns-feedbacks"
    publisher = publisher_of(client, kafka_brokers, parts)
    publisher.publish(topic, b"x", expect_stored)
    assert publisher.flush(20) == 0
    assert topic in topics(kafka_brokers)


def test_a_topic_that_cannot_be_made_is_refused_and_holds_up_no_other(
    client: Client, breakable_kafka: KafkaServer, parts: ExitStack
) -> None:
    brokers = breakable_kafka.brokers
    publisher = publisher_of(client, brokers, parts, topic_wait_s=1)
    missing, present = f"push-missing{uuid.uuid4().hex[:8]}-apns-feedbacks", new_topic(brokers)
    ends: list[PublishError | None] = []
    for topic in (missing, missing, missing, present):
        publisher.publish(topic, b"x", ends.append)
    until(lambda: len(ends) == 4)
    assert ends[0] is None
    assert all(isinstance(error, TopicRefused) for error in ends[1:])
    assert missing in str(ends[1])
    if client is PYTHON:  # it would be asked for ten times a second for ever
        assert missing not in publisher._producer.cluster._topics

    create_topic(brokers, missing)
    publisher.publish(missing, b"x", expect_stored)
    assert publisher.flush(20) == 0


@pytest.mark.parametrize("name", ["no spaces", "", "x" * 250, ".."])
def test_a_name_that_no_topic_can_have_is_refused(
    client: Client, name: str, kafka_brokers: str, parts: ExitStack
) -> None:
    errors: list[PublishError | None] = []
    publisher_of(client, kafka_brokers, parts).publish(name, b"x", errors.append)
    until(lambda: bool(errors))
    assert isinstance(errors[0], TopicRefused)


def test_of_a_batch_only_the_records_that_are_too_large_are_refused(
    client: Client, kafka_brokers: str, parts: ExitStack
) -> None:
    topic = new_topic(kafka_brokers, max_message_bytes="3000")
    publisher = publisher_of(client, kafka_brokers, parts)
    ends: dict[int, list[PublishError | None]] = {number: [] for number in range(60)}
    for number, end in ends.items():
        publisher.publish(topic, bytes(5000 if number in (0, 17, 40, 59) else 100), end.append)
    assert publisher.flush(30) == 0
    assert {number for number, end in ends.items() if isinstance(end[0], RecordTooLarge)} == {0, 17, 40, 59}
    assert {number for number, end in ends.items() if end == [None]} == set(ends) - {0, 17, 40, 59}
    assert {len(end) for end in ends.values()} == {1}


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_come_back(client: Client, compression: str, kafka_brokers: str, parts: ExitStack) -> None:
    topic = new_topic(kafka_brokers)
    publisher = client.publisher(kafka_brokers, compression=compression)
    parts.callback(publisher.close)
    for _ in range(100):
        publisher.publish(topic, b"x" * 100, expect_stored)
    assert publisher.flush(20) == 0
    assert values(receive(source_of(client, kafka_brokers, parts, topic), 100)) == [b"x" * 100] * 100


def test_a_publisher_closes_without_its_broker(tmp_path: Path) -> None:
    """The library's own close raises then, and closes nothing."""
    publisher = KafkaPublisher(f"127.0.0.1:{free_port()}")
    publisher.publish("push-game-apns-feedbacks", b"x", expect_stored)
    publisher.close()
    assert not publisher._producer._sender.is_alive()
    assert publisher.pending == 1


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_refused_connection_leaves_no_descriptor(parts: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    """Not even until the garbage collector comes by, which takes long in a process that makes little garbage."""
    caplog.set_level("ERROR", logger="kafka")  # a command that was run in this process may have silenced it
    gc.collect()
    gc.disable()
    parts.callback(gc.enable)
    publisher = publisher_of(PYTHON, f"127.0.0.1:{free_port()}", parts)
    publisher.publish("push-game-apns-feedbacks", b"x", expect_stored)
    before = descriptors()
    until(lambda: sum(record.message.startswith("Connection failed") for record in caplog.records) >= 6)
    # one more: the attempt that is under way
    assert descriptors() <= before + 1


def test_a_publisher_with_records_under_way_closes_without_its_broker(
    breakable_kafka: KafkaServer, parts: ExitStack
) -> None:
    topic = new_topic(breakable_kafka.brokers)
    publisher = KafkaPublisher(breakable_kafka.brokers)
    publisher.publish(topic, b"x", expect_stored)
    assert publisher.flush(20) == 0
    breakable_kafka.freeze()
    ends: list[PublishError | None] = []
    publisher.publish(topic, b"x", ends.append)
    assert publisher.flush(0.2) == 1
    publisher.close()
    assert not publisher._producer._sender.is_alive()
    assert not ends


def test_a_frozen_broker_stops_neither_polls_nor_commits_nor_the_hub(
    client: Client, breakable_kafka: KafkaServer, parts: ExitStack
) -> None:
    topic = new_topic(breakable_kafka.brokers)
    publisher = publisher_of(client, breakable_kafka.brokers, parts)
    source = source_of(client, breakable_kafka.brokers, parts, topic, session_timeout_ms=2000)
    publisher.publish(topic, b"one", expect_stored)
    ((tracker, _),) = receive(source, 1)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.01)
            ticks += 1

    ticker = gevent.spawn(tick)
    breakable_kafka.freeze()
    tracker.finish(0)
    publisher.publish(topic, b"two", expect_stored)
    source.commit()
    assert source.poll(0.2, never) == []
    assert ticks > 10
    breakable_kafka.thaw()
    assert publisher.flush(20) == 0
    # After so long a silence the broker may have expelled the member: then "one" comes again before it.
    until(lambda: b"two" in values(source.poll(0.2, never)))
    ticker.kill()


def test_fetches_that_fail_when_they_are_sent_leave_others_their_turn(
    kafka_brokers: str, parts: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that takes no request while another fetch is under way, or a heartbeat is due, ends no wait."""
    topic = new_topic(kafka_brokers)
    source = source_of(PYTHON, kafka_brokers, parts, topic)
    poll_until(source, lambda: source.assignment.trackers)
    consumer = source._consumer
    until(lambda: (source.poll(0.1, never), consumer._fetcher.in_flight_fetches())[1])
    for connection_ in consumer._manager._conns.values():
        connection_.pause("a test")
    turns = []
    for under_way in (True, False):
        consumer._fetcher._nodes_with_pending_fetch_requests.clear()
        consumer._fetcher._fetch_futures = deque([Future()] if under_way else [])
        monkeypatch.setattr(consumer._coordinator, "time_to_next_poll", lambda: 0)
        ticker = gevent.spawn(tick, counted := [0])
        source.poll(0.5, never)
        ticker.kill()
        turns.append(counted[0])
    assert min(turns) > 5, turns


def tick(counted: list[int]) -> None:
    while True:
        gevent.sleep(0.01)
        counted[0] += 1


def test_a_hub_that_was_blocked_beyond_the_session_loses_nothing(
    client: Client, kafka_brokers: str, parts: ExitStack
) -> None:
    topic = new_topic(kafka_brokers)
    publisher = publisher_of(client, kafka_brokers, parts)
    member = Member(source_of(client, kafka_brokers, parts, topic, session_timeout_ms=1000), finishes=False)
    parts.callback(member.end)
    publisher.publish(topic, b"one", expect_stored)
    assert publisher.flush(20) == 0
    until(lambda: len(member.seen) == 1)
    tracker = next(iter(member.source.assignment.trackers.values()))

    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        pass
    if client is PYTHON:
        until(lambda: [record.offset for record in member.seen] == [0, 0])
        assert member.source.assignment.trackers[tracker.key] is not tracker
    else:  # heartbeats come from a thread of the library
        publisher.publish(topic, b"two", expect_stored)
        until(lambda: [record.offset for record in member.seen] == [0, 1])
        assert member.source.assignment.trackers[tracker.key] is tracker


@pytest.mark.filterwarnings("ignore:Exception in thread kafka-io")
def test_a_consumer_that_breaks_is_built_anew(kafka_brokers: str, parts: ExitStack) -> None:
    topic = new_topic(kafka_brokers)
    publisher = publisher_of(PYTHON, kafka_brokers, parts)
    source = source_of(PYTHON, kafka_brokers, parts, topic)
    publisher.publish(topic, b"one", expect_stored)
    ((tracker, _),) = receive(source, 1)

    def explode(_events: object) -> None:
        raise AssertionError("the I/O greenlet dies")

    source._consumer._net._process_events = explode
    publisher.publish(topic, b"two", expect_stored)
    tracker.finish(0)
    source.commit()
    assert tracker.due() is not None
    assert values(receive(source, 2)) == [b"one", b"two"]


def test_connections_are_tried_again_within_a_second() -> None:
    consumer = Consumer(**connection(f"127.0.0.1:{free_port()}", KafkaLogin(Access())))
    try:
        assert consumer._manager.config["reconnect_backoff_max_ms"] == 1000
    finally:
        consumer.close(autocommit=False, timeout_ms=100)


def test_a_partition_that_was_held_goes_on_while_all_others_are_idle(
    client: Client, kafka_brokers: str, parts: ExitStack
) -> None:
    """The library sets fetched records of a paused partition aside and forgets them until another one gets new ones."""
    busy, other = new_topic(kafka_brokers), new_topic(kafka_brokers)
    publisher = publisher_of(client, kafka_brokers, parts)
    for number in range(1_500):
        publisher.publish(busy, b"%d" % number, expect_stored)
    assert publisher.flush(20) == 0
    source = source_of(client, kafka_brokers, parts, busy, other)
    seen: Counter[str] = Counter()

    def read(*held: str) -> Counter[str]:
        for tracker, fresh in source.poll(0.2, lambda topic: topic in held):
            seen[tracker.key.topic] += len(fresh)
        return seen

    poll_until(source, lambda: len(source.assignment.trackers) == 2, is_full=lambda _: True)
    until(lambda: read()[busy] > 0)
    assert seen[busy] < 1_500
    publisher.publish(other, b"one", expect_stored)
    until(lambda: read(busy)[other] == 1)
    until(lambda: read()[busy] == 1_500)


class Octets(str):
    """A header's name that some other client wrote: Kafka takes any octets."""

    __slots__ = ()

    def encode(self, *_encoding: str) -> bytes:
        return b"trace-\xff"


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_header_whose_name_is_no_text_holds_up_nothing(
    client: Client, kafka_brokers: str, parts: ExitStack, compression: str | None
) -> None:
    topic = new_topic(kafka_brokers)
    producer = KafkaProducer(
        **connection(kafka_brokers, KafkaLogin(Access())), compression_type=compression, linger_ms=1000
    )
    for number in range(5):
        name = Octets("x") if number in (1, 3) else "trace"
        producer.send(topic, b"%d" % number, headers=[(name, b"v"), ("after", b"w")], partition=0)
    producer.flush(20)
    producer.close()
    found = records(receive(source_of(client, kafka_brokers, parts, topic), 5))
    assert [record.value for record in found] == [b"0", b"1", b"2", b"3", b"4"]
    assert [list(record.headers) for record in found[:3]] == [
        [("trace", b"v"), ("after", b"w")],
        [("trace-\ufffd" if client is PYTHON else "\ufffd", b"v"), ("after", b"w")],
        [("trace", b"v"), ("after", b"w")],
    ]
