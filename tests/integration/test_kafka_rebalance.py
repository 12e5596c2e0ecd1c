"""Consumer groups on a real Kafka: members that come, go, freeze and are expelled; topics that appear and widen."""

from __future__ import annotations

import random
import signal
import time
import uuid
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import gevent
import pytest
from kafka.admin import MemberToRemove
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Partition

from lab.kafka.admin import (
    administration,
    committed,
    create_topic,
    delete_topic,
    expire_records,
    widen_topic,
)
from lab.kafka.server import KafkaServer
from pusher.broker.interface import IsFull, Record
from pusher.broker.offsets import State, TopicPartition
from tests.contract.brokers import Client, everything, expect_stored, never, until
from tests.integration.members import Member, MemberProcess

pytestmark = pytest.mark.integration


class Group:
    """A consumer group of the shared Kafka, with names of its own."""

    def __init__(self, client: Client, brokers: str, parts: ExitStack) -> None:
        self.client, self.brokers, self._parts = client, brokers, parts
        self.prefix = f"push-{uuid.uuid4().hex[:12]}"
        self.name = f"{self.prefix}-group"
        self._topics = 0
        self._publisher = client.publisher(brokers, linger_ms=5)
        parts.callback(self._publisher.close)

    def topic(self, partitions: int) -> str:
        self._topics += 1
        topic = f"{self.prefix}_apns-single{self._topics}"
        create_topic(self.brokers, topic, partitions)
        return topic

    def member(
        self,
        *topics: str,
        finishes: bool = True,
        commits: bool = True,
        offset_reset: str = "earliest",
        is_full: IsFull = never,
    ) -> Member:
        source = self.client.source(
            self.brokers,
            self.name,
            topics or [f"^{self.prefix}_apns"],
            everything,
            offset_reset=offset_reset,
            session_timeout_ms=2000,
            metadata_refresh_s=0.5,
        )
        member = Member(source, finishes=finishes, commits=commits, is_full=is_full)
        self._parts.callback(member.stop, commit=False)
        return member

    def write(self, topic: str, count: int) -> list[bytes]:
        values = [f"{topic}-{uuid.uuid4().hex}".encode() for _ in range(count)]
        for value in values:
            self._publisher.publish(topic, value, expect_stored)
        assert self._publisher.flush(20) == 0
        return values

    def expel(self) -> None:
        """Removes all members."""
        with administration(self.brokers) as admin:
            (described,) = admin.describe_groups([self.name]).values()
            removals = [MemberToRemove(member_id=each["member_id"]) for each in described["members"]]
            admin.remove_group_members(self.name, removals)

    def ends(self, topic: str) -> dict[int, int]:
        """Where the partitions of a topic end."""
        with closing(self.client.reader(self.brokers, topic)) as reader:
            return reader.offsets("latest")

    def committed(self) -> dict[tuple[str, int], int]:
        return {partition: offset.offset for partition, offset in committed(self.brokers, self.name).items()}


@pytest.fixture
def group(client: Client, kafka_brokers: str, parts: ExitStack) -> Group:
    return Group(client, kafka_brokers, parts)


def partitions(topic: str, count: int) -> set[TopicPartition]:
    return {TopicPartition(topic, number) for number in range(count)}


def share(topic: str, count: int, *members: Member) -> bool:
    """Whether the members own all partitions of a topic, each about as many as the others, and none twice."""
    owned = [member.owned for member in members]
    sizes = [len(one) for one in owned]
    return set.union(*owned) >= partitions(topic, count) and sum(sizes) == count and max(sizes) - min(sizes) <= 1


def where(records: list[Record]) -> Counter[tuple[str, int, int]]:
    return Counter((record.topic, record.partition, record.offset) for record in records)


def test_partitions_that_stay_go_on_and_the_others_are_handed_over(group: Group) -> None:
    """Unfinished messages of retained partitions are neither lost nor repeated; those of moved ones repeat once."""
    topic = group.topic(4)
    group.write(topic, 400)
    first = group.member(finishes=False)
    until(lambda: len(first.seen) == 400)
    trackers = dict(first.source.assignment.trackers)

    second = group.member()
    until(lambda: share(topic, 4, first, second))
    moved, stayed = second.owned, first.owned

    assert {trackers[key].state for key in moved} == {State.GONE}
    assert {trackers[key].state for key in stayed} == {State.ACTIVE}
    assert all(first.source.assignment.trackers[key] is trackers[key] for key in stayed)
    again = [record for record in first.seen if TopicPartition(record.topic, record.partition) in moved]
    until(lambda: where(second.seen) == where(again))
    assert len(first.seen) == 400


def test_what_is_finished_is_committed_when_a_partition_is_revoked(group: Group) -> None:
    topic = group.topic(4)
    group.write(topic, 400)
    first = group.member(commits=False)
    until(lambda: len(first.seen) == 400)

    second = group.member()
    until(lambda: share(topic, 4, first, second))
    new = group.write(topic, 40)
    until(lambda: len(first.seen) + len(second.seen) >= 440)
    assert set(second.values) <= set(new)


def test_what_was_held_when_it_was_lost_is_read_when_it_comes_back(group: Group) -> None:
    """librdkafka keeps a partition paused that it was told to pause in an earlier assignment."""
    topic = group.topic(2)
    group.write(topic, 20)
    lost: list[bool] = []
    member = group.member(is_full=lambda _topic: not lost)
    until(lambda: len(member.owned) == 2)
    trackers = list(member.source.assignment.trackers.values())
    gevent.sleep(0.5)
    group.expel()
    until(lambda: {tracker.state for tracker in trackers} == {State.GONE})
    lost.append(True)
    until(lambda: len(member.seen) == 20)


def test_a_member_that_leaves_hands_over_at_once(group: Group) -> None:
    topic = group.topic(4)
    first, second = group.member(), group.member()
    until(lambda: share(topic, 4, first, second))
    second.stop()
    until(lambda: first.owned == partitions(topic, 4))
    values = group.write(topic, 40)
    until(lambda: sorted(first.values, key=str) == sorted(values))


def test_an_expelled_member_drops_its_partitions_and_joins_again(group: Group) -> None:
    topic = group.topic(2)
    group.write(topic, 20)
    member = group.member(finishes=False)
    until(lambda: len(member.seen) == 20)
    trackers = list(member.source.assignment.trackers.values())

    group.expel()
    until(lambda: {tracker.state for tracker in trackers} == {State.GONE})
    until(lambda: len(member.seen) == 40)
    assert set(where(member.seen).values()) == {2}


def test_new_partitions_begin_at_their_first_record(group: Group) -> None:
    topic = group.topic(1)
    group.write(topic, 1)
    member = group.member(offset_reset="latest")
    until(lambda: len(member.owned) == 1)
    widen_topic(group.brokers, topic, 3)
    values: list[bytes] = []
    while len(group_partitions := set(group.committed())) < 3:
        values += group.write(topic, 20)
        gevent.sleep(0.1)
    assert group_partitions == {(topic, number) for number in range(3)}
    until(lambda: sorted(member.values, key=str) == sorted(values))


def test_topics_come_and_go_without_a_stall(group: Group) -> None:
    first, second = group.member(), group.member()

    def all_arrive(topic: str) -> None:
        values = set(group.write(topic, 20))
        until(lambda: values <= set(first.values) | set(second.values))

    topics = [group.topic(2)]
    all_arrive(topics[0])
    for _ in range(3):
        topics.append(group.topic(2))
        all_arrive(topics[-1])
    delete_topic(group.brokers, topics[-1])
    until(lambda: {key.topic for key in first.owned | second.owned} == set(topics[:-1]))
    all_arrive(topics[0])


def test_members_with_different_topics_share_a_group(group: Group) -> None:
    one, other = group.topic(3), group.topic(3)
    first, second = group.member(one), group.member(other)
    until(lambda: first.owned == partitions(one, 3) and second.owned == partitions(other, 3))
    generation = first.source.assignment.trackers.copy()
    values, others = group.write(one, 30), group.write(other, 30)
    until(lambda: sorted(first.values, key=str) == sorted(values) and sorted(second.values, key=str) == sorted(others))
    assert first.source.assignment.trackers == generation


def test_the_start_of_all_partitions_is_committed_before_the_first_message(group: Group) -> None:
    topic = group.topic(4)
    group.write(topic, 400)
    before = group.member(offset_reset="latest", commits=False)
    until(lambda: len(before.owned) == 4)
    assert len(group.committed()) == 4
    assert sum(group.committed().values()) == 400


def test_positions_below_the_log_go_to_its_start(group: Group) -> None:
    topic = group.topic(1)
    group.write(topic, 10)
    member = group.member()
    until(lambda: len(member.seen) == 10)
    member.stop()
    group.write(topic, 20)
    expire_records(group.brokers, topic, 0, 25)

    successor = group.member()
    until(lambda: [record.offset for record in successor.seen] == list(range(25, 30)))
    assert successor.source.out_of_range.total() == 1


def test_each_partition_below_its_log_is_counted_once(group: Group) -> None:
    """Where one goes to its start, librdkafka gets all others anew."""
    topic = group.topic(8)
    written: list[bytes] = []
    while not all(group.ends(topic).values()):
        written += group.write(topic, 20)
    member = group.member()
    until(lambda: len(member.seen) == len(written))
    member.stop()
    for number in range(8):
        expire_records(group.brokers, topic, number, -1)
    with administration(group.brokers) as admin:
        admin.alter_group_offsets(group.name, {Partition(topic, n): OffsetAndMetadata(0, "", -1) for n in range(8)})

    successor = group.member()
    until(lambda: successor.source.out_of_range.total() >= 8)
    values = group.write(topic, 40)
    until(lambda: sorted(successor.values, key=str) == sorted(values))
    assert successor.source.out_of_range.total() == 8


def test_positions_above_the_log_go_to_its_start(group: Group) -> None:
    """The group's commit outlives its topic when the topic is made again before the commit is removed."""
    topic = group.topic(1)
    member = group.member()
    until(lambda: len(member.owned) == 1)
    member.stop()
    group.write(topic, 5)
    with administration(group.brokers) as admin:
        admin.alter_group_offsets(group.name, {Partition(topic, 0): OffsetAndMetadata(1000, "", -1)})

    successor = group.member()
    until(lambda: [record.offset for record in successor.seen] == list(range(5)))
    assert successor.source.out_of_range.total() == 1
    group.write(topic, 1)
    until(lambda: len(successor.seen) == 6)
    until(lambda: group.committed() == {(topic, 0): 6})


def test_nothing_is_lost_while_members_die_and_freeze_and_topics_appear(
    client: Client, breakable_kafka: KafkaServer, parts: ExitStack, tmp_path: Path
) -> None:
    # Every second each member reads the metadata of all topics: of the shared Kafka's thousands that takes its time.
    group = Group(client, breakable_kafka.brokers, parts)
    pattern = f"^{group.prefix}_apns"
    members = [
        MemberProcess(tmp_path, f"member{number}", group.client, group.brokers, group.name, pattern)
        for number in range(2)
    ]
    topics = [group.topic(4)]
    written: list[bytes] = []

    def write_for(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            written.extend(group.write(random.choice(topics), 20))
            gevent.sleep(0.02)

    def start() -> None:
        members.append(
            MemberProcess(tmp_path, f"member{len(members)}", group.client, group.brokers, group.name, pattern)
        )

    def seen() -> Counter[bytes]:
        return Counter(value for member in members for value in member.values)

    def caught_up() -> bool:
        return set(written) <= set(seen())

    write_for(1)
    until(caught_up)
    start()
    write_for(1)
    members[0].signal(signal.SIGKILL)
    write_for(1)
    topics.append(group.topic(2))
    widen_topic(group.brokers, topics[0], 6)
    write_for(1)
    members[1].signal(signal.SIGSTOP)
    write_for(3)
    start()
    members[1].signal(signal.SIGCONT)
    write_for(1)
    until(lambda: members[2].begun)  # before that SIGTERM just kills it
    members[2].signal(signal.SIGTERM)
    write_for(1)
    until(caught_up)  # each member that is gone while it joins costs the others a rebalance's 20 s
    until(lambda: members[3].begun)

    assert members[2].wait() == 0
    for member in (members[1], members[3]):
        member.signal(signal.SIGTERM)
        assert member.wait() == 0
    repeats = sum(seen().values()) - len(written)
    # A killed and a frozen member each leave behind what they handled since their last commit.
    assert repeats <= len(written) // 4


def test_nothing_is_lost_when_the_broker_is_killed(
    client: Client, breakable_kafka: KafkaServer, parts: ExitStack
) -> None:
    group = Group(client, breakable_kafka.brokers, parts)
    topic = group.topic(3)
    members = [group.member(topic), group.member(topic)]
    until(lambda: share(topic, 3, *members))
    publisher = client.publisher(breakable_kafka.brokers)
    parts.callback(publisher.close)
    values = [b"%d" % number for number in range(3000)]
    ends: Counter[object] = Counter()

    def publish() -> None:
        for value in values:
            publisher.publish(topic, value, lambda error: ends.update([error]))
            gevent.sleep(0.001)

    writing = gevent.spawn(publish)
    until(lambda: len(members[0].seen) + len(members[1].seen) > 300)
    breakable_kafka.kill()
    until(lambda: not members[0].source.health().ready)
    breakable_kafka.start()
    writing.get(timeout=60)
    assert publisher.flush(60) == 0
    assert ends == {None: len(values)}
    until(lambda: {value for member in members for value in member.values} == set(values), deadline_s=60)
    until(lambda: all(member.source.health().ready for member in members))
