"""Which replica the next request for a partition goes to, after what came of the last one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.consumer.fetcher import CompletedFetch
from kafka.errors import KafkaConnectionError, NotLeaderForPartitionError, OffsetOutOfRangeError
from kafka.protocol.consumer import FetchResponse
from kafka.structs import TopicPartition

from pusher.broker.access import Access
from pusher.broker.kafka.access import KafkaLogin, consumer_settings
from pusher.broker.kafka.client import Consumer, connection

PARTITION = TopicPartition("push-game_apns-single", 0)
LEADER, NEAR = 1, 2


class Reading:
    """A consumer whose partition is led by one broker and has a replica at another."""

    def __init__(self) -> None:
        access = Access(rack="near")
        settings = consumer_settings(access) | {"auto_offset_reset": "none"}
        self.consumer = Consumer(**connection("127.0.0.1:1", KafkaLogin(access)), **settings)
        self.consumer.assign([PARTITION])
        self.consumer.seek(PARTITION, 0)

    @property
    def replica(self) -> int | None:
        """The one that is asked instead of the leader."""
        found: int | None = self.consumer._subscription.assignment[PARTITION].preferred_read_replica()
        return found

    @property
    def rack(self) -> str:
        """What the next requests say."""
        self.consumer._replicas.choose()
        return str(self.consumer._fetcher.config["client_rack"])

    def answer(self, named: int = -1, error: int = 0) -> None:
        """One of a broker, without records."""
        data = FetchResponse.FetchableTopicResponse.PartitionData(
            partition_index=0, error_code=error, high_watermark=0, preferred_read_replica=named, records=b""
        )
        self.consumer._parsed(CompletedFetch(PARTITION, 0, 12, data, _Metrics()))

    def lose(self, node: int) -> None:
        """A request gets no answer."""
        self.consumer._fetcher._handle_fetch_error(node, KafkaConnectionError("gone"))


class _Metrics:
    def record(self, *_: Any) -> None:
        pass


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    yield made
    made.consumer.close(autocommit=False, timeout_ms=0)


def test_a_replica_is_read_until_another_is_named(reading: Reading) -> None:
    assert (reading.replica, reading.rack) == (None, "near")
    reading.answer(named=NEAR)
    assert reading.replica == NEAR
    reading.answer()
    assert reading.replica == NEAR
    reading.answer(named=3)
    assert (reading.replica, reading.rack) == (3, "near")


def test_a_replica_that_is_gone_is_not_asked_for_again_at_once(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.answer(named=NEAR)
    reading.lose(LEADER)
    assert (reading.replica, reading.rack) == (NEAR, "near")
    reading.lose(NEAR)
    assert (reading.replica, reading.rack) == (None, "")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert reading.rack == "near"


def test_a_replica_that_refuses_is_left(reading: Reading) -> None:
    reading.answer(named=NEAR)
    reading.answer(error=NotLeaderForPartitionError.errno)
    assert (reading.replica, reading.rack) == (None, "")


def test_a_replica_that_has_not_got_so_far_is_left_and_the_place_is_kept(reading: Reading) -> None:
    reading.answer(named=NEAR)
    reading.answer(error=OffsetOutOfRangeError.errno)
    assert (reading.replica, reading.rack) == (None, "near")
    with pytest.raises(OffsetOutOfRangeError):
        reading.answer(error=OffsetOutOfRangeError.errno)
