"""The table that keeps deleted rows, so that they can be restored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pusher.listener.store import Wanted
from pusher.listener.stores.postgres.statement import Statement, folded, quoted
from pusher.push.topics import TopicName


class Archive:
    """The table that keeps deleted rows. ``name`` may begin with a schema and is folded as PostgreSQL does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = quoted(*folded(name).split("."))

    def presence(self) -> Statement:
        """Has a row where the table exists."""
        return Statement("SELECT 1 WHERE to_regclass(%s) IS NOT NULL", (self.table.replace("%%", "%"),))

    def creation(self) -> Statement:
        """Makes the table."""
        return Statement(
            f"CREATE TABLE {self.table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "deleted_at timestamptz NOT NULL DEFAULT now(), restored_at timestamptz, game text NOT NULL, "
            "platform text NOT NULL, token text NOT NULL, reason text NOT NULL, deleted_row jsonb NOT NULL)"
        )

    def move(self, owner: TopicName, column: str, delete: Statement, reasons: Mapping[str, str]) -> Statement:
        """What ``delete`` deletes comes here, in one statement; ``column`` holds the token, quoted already."""
        insert = (
            f"INSERT INTO {self.table} (game, platform, token, reason, deleted_row) "  # noqa: S608  # quoted
            f"SELECT %s, %s, {column}::text, coalesce(%s::jsonb ->> {column}::text, ''), to_jsonb(gone) FROM gone"
        )
        values = (*delete.values, owner.game, owner.platform, json.dumps(reasons, ensure_ascii=False))
        return Statement(f"WITH gone AS ({delete.text} RETURNING *) {insert}", values)


def condition(wanted: Wanted) -> Statement:
    """The condition behind WHERE."""
    parts = ["restored_at IS NULL", "game = %s", "platform = %s", "deleted_at >= %s"]
    parts += ["deleted_at < %s"] * bool(wanted.until) + ["reason = %s"] * bool(wanted.reason)
    values = (*wanted.owner, wanted.since, wanted.until, wanted.reason)
    return Statement(" AND ".join(parts), tuple(value for value in values if value))


def summary(archive: Archive, wanted: Wanted) -> Statement:
    """Reason, number, first and last time of the rows that ``restoration`` would bring back."""
    text, values = condition(wanted)
    select = f"SELECT reason, count(*), min(deleted_at), max(deleted_at) FROM {archive.table}"  # noqa: S608  # quoted
    return Statement(f"{select} WHERE {text} GROUP BY reason ORDER BY reason", values)


def writable_columns(table: str) -> Statement:
    """Names of the columns of a table, which is quoted already, that may be written, in their order."""
    return Statement(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
        "AND attgenerated = '' ORDER BY attnum",
        (table.replace("%%", "%"),),
    )


def restoration(archive: Archive, wanted: Wanted, table: str, columns: Sequence[str], limit: int) -> Statement:
    """Puts the oldest ``limit`` rows back as they were, and notes that in the archive; ``table`` is quoted already.

    A row that is there again already stays as it is. Has a row with the numbers of rows taken and put back.
    """
    text, values = condition(wanted)
    names = ", ".join(map(quoted, columns))
    return Statement(
        f"WITH taken AS (UPDATE {archive.table} SET restored_at = now() WHERE id IN "  # noqa: S608  # quoted
        f"(SELECT id FROM {archive.table} WHERE {text} ORDER BY id LIMIT {limit:d}) RETURNING deleted_row), "
        f"put AS (INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM taken, "
        f"jsonb_populate_record(NULL::{table}, taken.deleted_row) ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM put)",
        values,
    )
