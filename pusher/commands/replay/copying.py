"""Copies of messages: each has the origin of the first message, and therefore the same id.

The copies themselves are the only record of what was sent. An interrupted replay, even after kill -9, continues when
the same command is run again, because it finds its copies in the target topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from pusher.broker.interface import Header, Record
from pusher.commands.replay.job import TopicKind
from pusher.push.fields import InvalidMessage, decode_object, encode
from pusher.push.origin import BINDING_HEADER, ORIGIN_HEADER, SOURCE_TOPIC_HEADER, origin, origin_headers

_EXPIRY = "push_expiry"


class CopyRate:
    """No more than so many in a second; 0: as fast as they go."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = 1 / rate if rate else 0.0
        self._clock = clock
        self._next = clock()

    @property
    def wait_s(self) -> float:
        """How long the next one has to wait."""
        return max(0.0, self._next - self._clock())

    def wait(self) -> None:
        """Waits until the next one may go."""
        if self.wait_s:
            gevent.sleep(self.wait_s)

    def take(self) -> None:
        """One goes. After a pause the others do not go all at once."""
        self._next = max(self._next, self._clock()) + self._interval_s


def copy_of(record: Record, source: TopicKind, expires_ms: int) -> tuple[bytes, list[Header]]:
    """Value and headers of a copy. ``expires_ms`` is its new expiry, 0: it keeps its own."""
    value = record.value or b""
    value = with_expiry(value, expires_ms) if expires_ms else value
    return value, headers_of(record, source, value)


def headers_of(record: Record, source: TopicKind, copied: bytes) -> list[Header]:
    """Headers of a copy whose value is ``copied``: the producer's, and the origin.

    Those of an invalid topic stay there, but for the source topic: what is invalid again must not come back there.
    """
    ours = (ORIGIN_HEADER, BINDING_HEADER)
    found = [(name, value) for name, value in record.headers or () if name not in ours]
    if source is TopicKind.INVALID:
        found = [(name, value) for name, value in found if name == SOURCE_TOPIC_HEADER]
    return [*found, *origin_headers(origin(record), copied)]


def with_expiry(value: bytes, expires_ms: int) -> bytes:
    """A request with another expiry. What is no request stays as it is."""
    try:
        fields = decode_object(value)
    except InvalidMessage:
        return value
    kept = {name: field for name, field in fields.items() if name.lower() != _EXPIRY}
    return encode({**kept, _EXPIRY: expires_ms})
