"""The records of topics: append, read, find, delete. Functions over a connection, for ``Store.run``."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from pusher.broker.interface import Header

#: Offsets take the low bits of a record's id, its topic the high ones.
_OFFSET_BITS = 40
#: Rows written by one statement: each statement gives the interpreter's lock away and has to get it back.
_ROWS = 100
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class StoredRecord(NamedTuple):
    """A ``Record`` of this broker."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes
    headers: Sequence[Header]


class Topic(NamedTuple):
    """A topic's number and the offset of its next record."""

    id: int
    end: int

    def id_of(self, offset: int) -> int:
        """The id of a record."""
        return self.id << _OFFSET_BITS | offset


class Content(NamedTuple):
    """The part of a record that its writer sets; the headers are encoded by ``encode_headers``."""

    topic: str
    value: bytes
    headers: str | None


def is_topic_name(name: str) -> bool:
    """Whether Kafka would accept it too."""
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def encode_headers(headers: Sequence[Header]) -> str | None:
    """Headers as JSON, a character a byte; None for none."""
    return orjson.dumps([(name, value.decode("latin-1")) for name, value in headers]).decode() if headers else None


def _decode_headers(text: str | None) -> Sequence[Header]:
    return [(name, value.encode("latin-1")) for name, value in orjson.loads(text)] if text else ()


def topics(connection: sqlite3.Connection) -> dict[str, Topic]:
    """All topics by name."""
    return {name: Topic(number, end) for number, name, end in connection.execute("SELECT id, name, next FROM topic")}


def find_topic(connection: sqlite3.Connection, name: str) -> Topic | None:
    """None if no topic has this name."""
    row = connection.execute("SELECT id, next FROM topic WHERE name = ?", (name,)).fetchone()
    return Topic(*row) if row else None


def create_topic(connection: sqlite3.Connection, name: str) -> Topic:
    """A topic, new or old. Within a transaction where a record is to follow."""
    connection.execute("INSERT INTO topic (name, next) VALUES (?, 0) ON CONFLICT DO NOTHING", (name,))
    found = find_topic(connection, name)
    assert found is not None  # noqa: S101  # for the type checker
    return found


def append(connection: sqlite3.Connection, contents: Iterable[Content], timestamp_ms: int) -> None:
    """Writes records, in order, making topics that are missing. Within a transaction."""
    by_topic: dict[str, list[Content]] = {}
    for content in contents:
        by_topic.setdefault(content.topic, []).append(content)
    for name, own in by_topic.items():
        topic = create_topic(connection, name)
        for first in range(0, len(own), _ROWS):
            rows = own[first : first + _ROWS]
            fields: list[object] = []
            for number, (_, value, headers) in enumerate(rows, topic.id_of(topic.end + first)):
                fields += (number, timestamp_ms, value, headers)
            marks = ",".join(["(?,?,?,?)"] * len(rows))
            connection.execute(f"INSERT INTO record VALUES {marks}", fields)  # noqa: S608  # question marks only
        connection.execute("UPDATE topic SET next = ? WHERE id = ?", (topic.end + len(own), topic.id))


def read(
    connection: sqlite3.Connection, name: str, topic: Topic, position: int, max_records: int, max_bytes: int
) -> list[StoredRecord]:
    """Records from an offset on, at least one if there is any; they may begin later where some were deleted."""
    found: list[StoredRecord] = []
    first = topic.id_of(0)
    rows = connection.execute(
        "SELECT id, timestamp, value, headers FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (topic.id_of(position), topic.id_of(topic.end) - 1, max_records),
    )
    for number, timestamp, value, headers in rows:
        found.append(StoredRecord(name, 0, number - first, timestamp, value, _decode_headers(headers)))
        max_bytes -= len(value)
        if max_bytes <= 0:
            break
    return found


def earliest(connection: sqlite3.Connection, topic: Topic) -> int:
    """The offset of the first existing record, or the end."""
    return _first_id(connection, topic, "1", ()) - topic.id_of(0)


def offset_at(connection: sqlite3.Connection, topic: Topic, time_ms: int) -> int:
    """The offset of the first record that was stored at that time or later, or the end. Reads all before it."""
    return _first_id(connection, topic, "timestamp >= ?", (time_ms,)) - topic.id_of(0)


def delete_old(connection: sqlite3.Connection, stored_before_ms: int, limit: int) -> int:
    """Deletes records that are old and that no group has yet to finish; at most ``limit`` a topic. Returns how many."""
    deleted = 0
    for topic in _finished(connection).values():
        end = _first_id(connection, topic, "timestamp >= ?", (stored_before_ms,))
        deleted += connection.execute(
            "DELETE FROM record WHERE id IN (SELECT id FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
            (topic.id_of(0), end, limit),
        ).rowcount
    return deleted


def _finished(connection: sqlite3.Connection) -> Mapping[str, Topic]:
    """The topics, each with the lowest committed offset of its groups as its end."""
    lowest = dict(connection.execute("SELECT topic, min(offset) FROM committed GROUP BY topic"))
    return {
        name: topic._replace(end=min(topic.end, lowest.get(name, topic.end)))
        for name, topic in topics(connection).items()
    }


def _first_id(connection: sqlite3.Connection, topic: Topic, condition: str, values: tuple[int, ...]) -> int:
    """The id of the first record of which a condition holds, or of the end."""
    row = connection.execute(
        f"SELECT id FROM record WHERE id >= ? AND id < ? AND {condition} ORDER BY id LIMIT 1",  # noqa: S608  # our own
        (topic.id_of(0), topic.id_of(topic.end), *values),
    ).fetchone()
    return int(row[0]) if row else topic.id_of(topic.end)
