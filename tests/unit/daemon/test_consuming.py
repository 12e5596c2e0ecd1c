"""What is read is handed on in parts, so that heartbeats and other apps have their turn."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from pusher.broker.interface import Record
from pusher.broker.offsets import Tracker
from pusher.daemon.consuming import Consuming, slices
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser
from pusher.push.lane import Lane, LaneSettings
from pusher.push.pipeline import Pipeline
from pusher.push.retry import RetryPolicy
from pusher.telemetry.stats import Stats
from tests.publisher import ListPublisher
from tests.records import record, tracker

KIB = 1024


def sizes(parts: list[list[Record]]) -> list[int]:
    return [len(part) for part in parts]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([10] * 250, [100, 100, 50]),
        ([10 * KIB] * 7, [3, 3, 1]),
        ([50 * KIB] * 3, [1, 1, 1]),
        ([50_000 * KIB] * 3, [1, 1, 1]),
        ([10, 50_000 * KIB, 10, 10], [1, 1, 2]),
        ([None, None], [2]),
    ],
)
def test_parts_are_bounded_in_number_and_octets(values: list[int | None], expected: list[int]) -> None:
    records = [record(None if size is None else bytes(size), offset) for offset, size in enumerate(values)]
    parts = [list(part) for part in slices(records)]
    assert sizes(parts) == expected
    assert [one for part in parts for one in part] == records


class OneDelivery:
    """A source that gives its records once."""

    def __init__(self, delivery: tuple[Tracker, list[Record]]) -> None:
        self._deliveries = [delivery]

    def poll(self, *_: object) -> list[tuple[Tracker, list[Record]]]:
        gevent.sleep(0.001)
        deliveries, self._deliveries = self._deliveries, []
        return deliveries

    def commit(self) -> None:
        """Nothing to do."""


def nested_on_purpose() -> bytes:
    """60 KB that cost their parser most: nested, with numbers that must keep their text and halves of characters."""
    unit = b'{"a":{"b":{"c":[1.10000000000000000001,{"d":"\\ud83d"}]}}}'
    return b'{"DeviceToken":"ab","Payload":{"aps":{},"x":[%b]}}' % b",".join([unit] * (60_000 // len(unit)))


def test_timers_have_their_turn_between_messages_that_are_dear_to_parse() -> None:
    stats, publisher = Stats("test"), ListPublisher()
    pipeline = Pipeline("apns", ("game",), lambda: publisher, stats, "")
    settings = LaneSettings("game", "apns", "apns", "pod-1", RetryPolicy(1, 1))
    lane: Lane[Any] = Lane(settings, ApnsParser("com.game"), apns_feedback, (), stats)
    pipeline.lanes["game"] = lane
    partition, value = tracker(), nested_on_purpose()
    records = partition.admit([record(value, offset) for offset in range(100)])
    consuming = Consuming(OneDelivery((partition, records)), pipeline.submit, pipeline.is_full, 60)  # type: ignore[arg-type]
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while lane.totals.consumed < 100:
            ticks += 1
            gevent.sleep(0.001)

    running, ticking = gevent.spawn(consuming.run), gevent.spawn(tick)
    ticking.join(60)
    consuming.end(5)
    running.kill()
    assert lane.in_hand == 100
    assert ticks >= 20
