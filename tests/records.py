"""Records as a broker hands them on, for tests of what comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from pusher.broker.offsets import TopicPartition, Tracker


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


def tracker(topic: str = "push-game_apns-single", offset: int = 0) -> Tracker:
    """A fresh assignment of partition 0."""
    return Tracker(TopicPartition(topic, 0), offset)
