"""Reads a topic without a group, for the commands ``tail`` and ``replay``."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TypeVar

import gevent

from pusher.broker.interface import NoSuchTopic, Place
from pusher.broker.offsets import Commit
from pusher.broker.sqlite import group, topic_log
from pusher.broker.sqlite.store import Store, Unavailable, file_of
from pusher.broker.sqlite.topic_log import StoredRecord, Topic

T = TypeVar("T")

_LOOK_S = 0.02
_MAX_RECORDS = 500
_MAX_BYTES = 4 * 1024 * 1024


class _Missing(Unavailable):
    """The file has no topic of this name."""


class SqliteReader:
    """A ``Reader`` over the embedded broker. The constructor does not open the file; ``read`` never makes one."""

    def __init__(
        self,
        url: str,
        topic: str,
        start: Place = "earliest",
        end: Place | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = Store(url, create=False)
        self._topic, self._start, self._end, self._clock = topic, start, end, clock
        self._position: int | None = None
        #: Where reading ends; None: nowhere, or not known yet.
        self._limit: int | None = None

    def read(self, timeout_s: float) -> Sequence[StoredRecord]:
        """The next records, in order. See ``Reader``."""
        deadline = self._clock() + timeout_s
        while True:
            records = self._ask(self._next)
            left_s = deadline - self._clock()
            if records or self.ended or left_s <= 0:
                return records
            gevent.sleep(min(_LOOK_S, left_s))

    @property
    def ended(self) -> bool:
        """See ``Reader``."""
        return self._limit is not None and self._position is not None and self._position >= self._limit

    def offsets(self, place: Place) -> dict[int, int]:
        """See ``Reader``."""
        return {0: self._ask(lambda connection: _offset(connection, self._find(connection), place))}

    def committed(self, consumer_group: str) -> dict[int, Commit]:
        """The commits of a group, by partition. Raises like ``read``."""

        def look(connection: sqlite3.Connection) -> dict[int, Commit]:
            self._find(connection)
            found = group.committed(connection, consumer_group).get(self._topic)
            return {0: found} if found else {}

        return self._ask(look)

    def close(self) -> None:
        """Never raises."""
        self._store.close()

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._store.run(question)
        except Unavailable as error:
            kind = NoSuchTopic if isinstance(error, _Missing) else OSError
            raise kind(f"cannot read {self._topic}: {error}") from error

    def _find(self, connection: sqlite3.Connection) -> Topic:
        topic = topic_log.find_topic(connection, self._topic)
        if topic is None:
            raise _Missing(f"there is no such topic in {self._store.path}")
        return topic

    def _next(self, connection: sqlite3.Connection) -> list[StoredRecord]:
        topic = self._find(connection)
        if self._position is None:
            self._position = _offset(connection, topic, self._start)
            if self._end is not None and not (isinstance(self._end, Mapping) and 0 not in self._end):
                self._limit = _offset(connection, topic, self._end)
        if self.ended:
            return []
        records = topic_log.read(connection, self._topic, topic, self._position, _MAX_RECORDS, _MAX_BYTES)
        # Without a record nothing is left before the topic's end: what was there has been deleted.
        self._position = records[-1].offset + 1 if records else max(self._position, topic.end)
        return [record for record in records if self._limit is None or record.offset < self._limit]


def committed(url: str, consumer_group: str, topic: str) -> dict[int, Commit]:
    """The commits of a group in a topic, by partition. Raises ``OSError`` with one line."""
    with closing(SqliteReader(url, topic)) as reader:
        return reader.committed(consumer_group)


def topics(url: str) -> list[str]:
    """Names of all topics; none if there is no file yet. Raises ``OSError`` with one line."""
    if not file_of(url).exists():
        return []
    with closing(Store(url, create=False)) as store:
        try:
            return sorted(store.run(topic_log.topics))
        except Unavailable as error:
            raise OSError(str(error)) from error


def _offset(connection: sqlite3.Connection, topic: Topic, place: Place) -> int:
    if place == "earliest":
        return topic_log.earliest(connection, topic)
    if place == "latest":
        return topic.end
    if isinstance(place, Mapping):
        return place.get(0, topic_log.earliest(connection, topic))
    return topic_log.offset_at(connection, topic, int(float(place) * 1000))
