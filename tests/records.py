"""Records as a broker hands them on, for tests of what comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import orjson

from pusher.broker.offsets import TopicPartition, Tracker
from pusher.push.origin import origin
from pusher.push.push import Push

P = TypeVar("P", bound=Push)


class FakeRecord(NamedTuple):
    """A record with the shape that every broker gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


def record(value: object, offset: int = 0, topic: str = "push-game_apns-single", **changes: object) -> FakeRecord:
    """A record of ``value``: bytes as they are, anything else as JSON."""
    raw = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
    return FakeRecord(topic, 0, offset, 1_700_000_000_000, raw)._replace(**changes)  # type: ignore[arg-type]


def request(
    value: object, offset: int = 0, topic: str = "push-game_apns-single", **changes: object
) -> tuple[bytes | None, str]:
    """What a parser gets of such a record: its value and its origin."""
    made = record(value, offset, topic, **changes)
    return made.value, origin(made)


def placed(push: P, source: Tracker, offset: int = 0) -> P:
    """The push as the pipeline hands it on."""
    push.tracker, push.offset, push.timestamp_ms = source, offset, 1_700_000_000_000
    return push


def tracker(topic: str = "push-game_apns-single", offset: int = 0) -> Tracker:
    """A fresh assignment of partition 0."""
    return Tracker(TopicPartition(topic, 0), offset)
