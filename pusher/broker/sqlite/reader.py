"""Reads a topic outside any group, for people: ``tail`` and replay."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence

import gevent

from pusher.broker.sqlite import topic_log
from pusher.broker.sqlite.store import Store, Unavailable
from pusher.broker.sqlite.topic_log import StoredRecord, Topic

_LOOK_S = 0.02
_MAX_RECORDS = 500
_MAX_BYTES = 4 * 1024 * 1024

#: "earliest", "latest", an offset by partition, or a time in seconds since the epoch.
Place = str | Mapping[int, int] | float


class SqliteReader:
    """A ``Reader`` over the embedded broker. The constructor does not open the file; ``read`` never makes one."""

    def __init__(
        self, url: str, topic: str, start: Place = "earliest", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = Store(url, create=False)
        self._topic, self._start, self._clock = topic, start, clock
        self._position: int | None = None

    def read(self, timeout_s: float) -> Sequence[StoredRecord]:
        """The next records, in order. See ``Reader``."""
        deadline = self._clock() + timeout_s
        while True:
            try:
                records = self._store.run(self._next)
            except Unavailable as error:
                raise OSError(f"cannot read {self._topic}: {error}") from error
            if records:
                self._position = records[-1].offset + 1
            left_s = deadline - self._clock()
            if records or left_s <= 0:
                return records
            gevent.sleep(min(_LOOK_S, left_s))

    def close(self) -> None:
        """Never raises."""
        self._store.close()

    def _next(self, connection: sqlite3.Connection) -> list[StoredRecord]:
        topic = topic_log.find_topic(connection, self._topic)
        if topic is None:
            raise Unavailable(f"there is no such topic in {self._store.path}")
        if self._position is None:
            self._position = _offset(connection, topic, self._start)
        return topic_log.read(connection, self._topic, topic, self._position, _MAX_RECORDS, _MAX_BYTES)


def _offset(connection: sqlite3.Connection, topic: Topic, place: Place) -> int:
    if place == "earliest":
        return topic_log.earliest(connection, topic)
    if place == "latest":
        return topic.end
    if isinstance(place, Mapping):
        return place.get(0, topic_log.earliest(connection, topic))
    return topic_log.offset_at(connection, topic, int(float(place) * 1000))
