"""Consumer groups: who owns which topic of a group, and what is committed. Functions over a connection.

A topic of a group belongs to one member at a time, by a lease that the member prolongs before it ends. Each change of
the owner raises the lease's fence, and a commit has to name the fence it was granted: a member that slept through the
end of its lease cannot commit over its successor's work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pusher.broker.offsets import Commit
from pusher.broker.sqlite.store import writing
from pusher.broker.sqlite.topic_log import earliest, topics


class Member(NamedTuple):
    """A member of a group. No two members ever have the same ``name``."""

    group: str
    name: str


class Assigned(NamedTuple):
    """A member's share of the topics that it wants."""

    #: Its topics, each with the lease's fence.
    fences: dict[str, int]
    #: Where those begin that are new.
    starts: dict[str, Commit]
    #: The other topics, each with the member that owns it.
    others: dict[str, str]
    #: Messages that the group, being new, leaves out because it begins at the end, by topic.
    left_out: dict[str, int]


def join(
    connection: sqlite3.Connection,
    member: Member,
    wanted: Collection[str],
    held: Mapping[str, int],
    reset: str,
    now_s: float,
    lease_s: float,
) -> Assigned:
    """Prolongs the leases ``held`` and takes those that are free. Commits the start of topics that have none.

    ``reset`` is where they start if the group has committed nothing yet: "latest" or "earliest"; later ones start at
    the earliest offset.
    """
    with writing(connection):
        committed, left_out = _commit_starts(connection, member.group, wanted, reset)
        share = Assigned({}, {}, {}, left_out)
        for topic in committed.keys() & wanted:
            owner, fence, until_s = _lease(connection, member.group, topic)
            kept = owner == member.name and held.get(topic) == fence
            # A lease that ends too far ahead was written before the clock was set back.
            if not kept and owner not in ("", member.name) and now_s < until_s <= now_s + 2 * lease_s:
                share.others[topic] = owner
                continue
            if not kept:
                fence += 1
                share.starts[topic] = committed[topic]
            share.fences[topic] = fence
            connection.execute(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?)",
                (member.group, topic, member.name, fence, now_s + lease_s),
            )
    return share


def commit(
    connection: sqlite3.Connection, member: Member, fences: Mapping[str, int], commits: Mapping[str, Commit]
) -> set[str]:
    """Commits; returns the topics for which it was refused, because they belong to another member by now."""
    with writing(connection):
        return _commit(connection, member, fences, commits)


def leave(
    connection: sqlite3.Connection, member: Member, fences: Mapping[str, int], commits: Mapping[str, Commit]
) -> None:
    """Commits and gives up the leases ``fences``."""
    with writing(connection):
        _commit(connection, member, fences, commits)
        for topic, fence in fences.items():
            connection.execute(
                "UPDATE lease SET owner = '', until = 0 WHERE consumer_group = ? AND topic = ? AND fence = ?",
                (member.group, topic, fence),
            )


def committed(connection: sqlite3.Connection, group: str) -> dict[str, Commit]:
    """The commits of a group, by topic."""
    rows = connection.execute("SELECT topic, offset, metadata FROM committed WHERE consumer_group = ?", (group,))
    return {topic: Commit(offset, metadata) for topic, offset, metadata in rows}


def _commit(
    connection: sqlite3.Connection, member: Member, fences: Mapping[str, int], commits: Mapping[str, Commit]
) -> set[str]:
    refused = set()
    for topic, found in commits.items():
        owner, fence, _ = _lease(connection, member.group, topic)
        if owner == member.name and fence == fences[topic]:
            _store(connection, member.group, {topic: found}.items())
        else:
            refused.add(topic)
    return refused


def _commit_starts(
    connection: sqlite3.Connection, group: str, wanted: Collection[str], reset: str
) -> tuple[dict[str, Commit], dict[str, int]]:
    """What the group has committed, after everything wanted that exists has got its start; what that leaves out."""
    known = committed(connection, group)
    present = {name: topic for name, topic in topics(connection).items() if name in wanted}
    latest = reset == "latest" and not known
    starts = {
        name: Commit(topic.end if latest else earliest(connection, topic), "")
        for name, topic in present.items()
        if name not in known
    }
    _store(connection, group, starts.items())
    before = {name: starts[name].offset - earliest(connection, present[name]) for name in starts}
    return known | starts, {name: number for name, number in before.items() if number}


def _store(connection: sqlite3.Connection, group: str, commits: Iterable[tuple[str, Commit]]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO committed VALUES (?, ?, ?, ?)",
        [(group, topic, offset, metadata) for topic, (offset, metadata) in commits],
    )


def _lease(connection: sqlite3.Connection, group: str, topic: str) -> tuple[str, int, float]:
    """Owner, fence and end of a lease."""
    row: tuple[str, int, float] | None = connection.execute(
        "SELECT owner, fence, until FROM lease WHERE consumer_group = ? AND topic = ?", (group, topic)
    ).fetchone()
    return row or ("", 0, 0.0)
