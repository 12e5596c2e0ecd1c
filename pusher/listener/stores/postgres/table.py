"""The statements that delete dead tokens from the table of their game and platform.

Names are quoted, values are bound, so that nothing in a token or in a game's name can break a statement. The tokens are
one array, a text that PostgreSQL reads as the column's own type, whatever that is, and looks up in the column's index.
Pure: never waits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pusher.errors import StartError
from pusher.listener.store import DeadToken, NotDeleted
from pusher.listener.stores.postgres import settings
from pusher.listener.stores.postgres.archive import Archive
from pusher.listener.stores.postgres.statement import Statement, array, folded, quoted
from pusher.push import topics
from pusher.push.topics import TopicName

#: PostgreSQL cuts a longer name, to that of another table perhaps (manual, "Identifiers and Key Words").
MAX_NAME_BYTES = 63
_PLACEHOLDERS = ("<game>", "<platform>")


class Naming(NamedTuple):
    """What the tables of games and their columns are called; names are folded as PostgreSQL does."""

    #: From schema to table, with placeholders.
    table: tuple[str, ...] = ("<game>_<platform>",)
    column: str = "token"
    #: Column with the time at which a token was registered; "" = none.
    updated_at: str = ""

    @classmethod
    def of(cls, table: str, column: str, updated_at: str) -> Naming:
        """From the settings; a dot separates the schema. Raises ``StartError``."""
        parts = tuple(table.split("."))
        if not all(parts) or len(parts) > 2:
            raise StartError(f"{settings.TABLE.key} expects a table name, optionally with its schema; {table!r} is not")
        for name in (*parts, column, updated_at):
            refuse_long(name)
        return cls(parts, folded(column), folded(updated_at))

    def table_of(self, owner: TopicName) -> tuple[str, ...]:
        """From schema to table. A dot in a game's name stays in the table's. Raises ``NotDeleted``."""
        names = tuple(folded(topics.fill(part, owner)) for part in self.table)
        for name in names:
            if len(name.encode()) > MAX_NAME_BYTES:
                size = len(name.encode())
                text = (
                    f"the table {name} cannot exist: PostgreSQL cuts names at {MAX_NAME_BYTES} bytes, this has {size}"
                )
                raise NotDeleted(text, missing=True)
        return names


def names_tables(template: str) -> bool:
    """Whether the tables of games differ; earlier versions read the setting not at all, and files may have any word."""
    return any(placeholder in template for placeholder in _PLACEHOLDERS)


def refuse_long(name: str) -> None:
    """Raises ``StartError``."""
    if len(name.encode()) > MAX_NAME_BYTES:
        raise StartError(f"{name} cannot be a name in PostgreSQL: it has more than {MAX_NAME_BYTES} bytes")


@dataclass(frozen=True)
class Table:
    """The table of a game and platform. With an archive, deleted rows are moved there."""

    owner: TopicName
    naming: Naming
    archive: Archive | None = None

    @property
    def quoted(self) -> str:
        """Its name in a statement. Raises ``NotDeleted``."""
        return quoted(*self.naming.table_of(self.owner))

    def delete(self, dead: Sequence[DeadToken]) -> Statement:
        """Deletes all rows with these tokens, but for those that were registered later. Raises ``NotDeleted``."""
        token = quoted(self.naming.column)
        text = f"DELETE FROM {self.quoted} WHERE {token} = ANY(%s)"  # noqa: S608  # the names are quoted
        values: tuple[str, ...] = (array(one.token for one in dead),)
        if self.naming.updated_at:
            column = quoted(self.naming.updated_at)
            # Where the table spells a token in another way, such as a uuid, the oldest word of all holds.
            text += (
                f" AND ({column} IS NULL OR extract(epoch FROM {column}) * 1000 <= "
                f"coalesce((%s::jsonb ->> {token}::text)::numeric, %s::numeric))"
            )
            told = {one.token: one.told_ms for one in dead}
            values += (json.dumps(told, ensure_ascii=False), str(min(told.values(), default=0)))
        statement = Statement(text, values)
        if self.archive is None:
            return statement
        return self.archive.move(self.owner, token, statement, {one.token: one.reason for one in dead})

    def found(self) -> Statement:
        """Has a row: whether the table and an index on the column of tokens are there, and the names of all columns."""
        name = self.quoted.replace("%%", "%")
        return Statement(
            "SELECT to_regclass(%s) IS NOT NULL, EXISTS (SELECT 1 FROM pg_index JOIN pg_attribute ON "
            "attrelid = indrelid AND attnum = indkey[0] WHERE indrelid = to_regclass(%s) AND attname = %s "
            "AND indisvalid AND indpred IS NULL), ARRAY(SELECT attname::text FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped)",
            (name, name, self.naming.column, name),
        )
