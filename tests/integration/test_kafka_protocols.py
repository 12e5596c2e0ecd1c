"""Groups of another kind than the classic one: cooperative, KIP-848, and members that keep their place while away."""

from __future__ import annotations

import uuid
from collections import Counter
from contextlib import ExitStack

import pytest

from lab.kafka.admin import administration, committed, create_topic
from lab.kafka.server import KafkaServer
from pusher.broker.access import Access
from pusher.broker.offsets import State
from pusher.errors import StartError
from tests.contract.brokers import CLIENTS, Client, everything, expect_stored, until
from tests.integration.members import Member

pytestmark = pytest.mark.integration

CONFLUENT = CLIENTS["confluent-kafka"]


class ShortGroup:
    """A topic with four partitions and its group."""

    def __init__(self, client: Client, brokers: str, parts: ExitStack, session_timeout_ms: int = 10_000) -> None:
        self.client, self.brokers, self._parts = client, brokers, parts
        self._session_timeout_ms = session_timeout_ms
        self.topic = f"push-{uuid.uuid4().hex[:12]}_apns-single"
        create_topic(brokers, self.topic, 4)
        self._publisher = client.publisher(brokers, linger_ms=5)
        parts.callback(self._publisher.close)

    def member(self, access: Access, *, finishes: bool = True) -> Member:
        source = self.client.source(
            self.brokers,
            self.topic,
            [self.topic],
            everything,
            offset_reset="earliest",
            session_timeout_ms=self._session_timeout_ms,
            metadata_refresh_s=0.5,
            login=self.client.login(access),
        )
        member = Member(source, finishes=finishes)
        self._parts.callback(member.stop, commit=False)
        return member

    def write(self, count: int) -> set[bytes]:
        values = [uuid.uuid4().hex.encode() for _ in range(count)]
        for value in values:
            self._publisher.publish(self.topic, value, expect_stored)
        assert self._publisher.flush(20) == 0
        return set(values)


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_a_rebalance_takes_only_what_another_member_gets(
    breakable_kafka: KafkaServer, parts: ExitStack, protocol: str
) -> None:
    with administration(breakable_kafka.brokers) as admin:
        admin.update_features({"group.version": 1})  # KIP-848
    group = ShortGroup(CONFLUENT, breakable_kafka.brokers, parts)
    access = Access(group_protocol=protocol)
    written = group.write(400)
    first = group.member(access, finishes=False)
    until(lambda: len(first.seen) == 400)
    trackers = dict(first.source.assignment.trackers)

    second = group.member(access)
    until(lambda: (len(first.owned), len(second.owned)) == (2, 2))
    assert not first.owned & second.owned
    assert {trackers[key].state for key in second.owned} == {State.GONE}
    assert all(first.source.assignment.trackers[key] is trackers[key] for key in first.owned)
    moved = {record.value for record in first.seen if (record.topic, record.partition) in second.owned}
    until(lambda: set(second.values) == moved)
    assert len(first.seen) == 400

    written |= group.write(100)
    until(lambda: set(first.values) | set(second.values) == written)
    second.stop()
    until(lambda: len(first.owned) == 4)
    later = group.write(100)
    until(lambda: later <= set(first.values))
    assert max(Counter(second.values).values()) == 1


def test_only_confluent_kafka_knows_the_other_protocols() -> None:
    with pytest.raises(StartError, match=r"kafka\.groupProtocol"):
        CLIENTS["kafka-python"].login(Access(group_protocol="consumer"))


def test_a_static_member_that_returns_in_time_keeps_its_place(
    client: Client, breakable_kafka: KafkaServer, parts: ExitStack
) -> None:
    group = ShortGroup(client, breakable_kafka.brokers, parts, session_timeout_ms=20_000)
    one, other = (Access(group_instance_id=name) for name in ("one", "other"))
    first, second = group.member(one), group.member(other)
    until(lambda: (len(first.owned), len(second.owned)) == (2, 2))
    owned, trackers = first.owned, dict(second.source.assignment.trackers)
    first.stop()
    back = group.member(one)
    until(lambda: back.owned == owned)
    values = group.write(100)
    until(lambda: set(back.values) | set(second.values) == values)
    assert second.source.assignment.trackers == trackers


def test_a_member_whose_place_another_process_takes_steps_back_and_goes_on_when_that_is_gone(
    client: Client, breakable_kafka: KafkaServer, parts: ExitStack
) -> None:
    """librdkafka gives up for good, and kafka-python would go on sending without its place."""
    group = ShortGroup(client, breakable_kafka.brokers, parts)
    access = Access(group_instance_id="the same")
    first = group.member(access)
    written = group.write(100)
    until(lambda: set(first.values) == written)
    second = group.member(access)
    until(lambda: "kafka.groupInstanceId" in first.source.health().reason)
    assert not first.owned

    second.stop()
    later = group.write(100)
    until(lambda: later <= set(first.values))
    assert first.source.health().ready
    ends = {key: tracker.next_offset for key, tracker in first.source.assignment.trackers.items()}
    until(
        lambda: {key: commit.offset for key, commit in committed(breakable_kafka.brokers, group.topic).items()} == ends
    )
