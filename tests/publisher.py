"""A publisher and a clock in the hands of a test, for what is handed one or the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pusher.broker.interface import Done, Header, PublishError
from pusher.telemetry.health import Health


class ListPublisher:
    """A publisher that keeps what it is given until the test says what became of it."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, Done, Sequence[Header]]] = []
        self.full = False

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        self.records.append((topic, value, done, headers))

    @property
    def pending(self) -> int:
        return len(self.records)

    def flush(self, timeout_s: float) -> int:
        self.settle(None)
        return 0

    def close(self) -> None:
        self.records.clear()

    def health(self) -> Health:
        return Health(True)

    def settle(self, error: PublishError | None) -> None:
        """The broker's answer to all that waits."""
        records, self.records = self.records, []
        for _, _, done, _ in records:
            done(error)


class StoringPublisher(ListPublisher):
    """Stores at once, unless it is told to hold; keeps what it has stored, as read from JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.feedbacks: list[dict[str, Any]] = []
        self.holds = False

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        super().publish(topic, value, done, headers)
        self.feedbacks.append(json.loads(value))
        if not self.holds:
            self.settle(None)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
