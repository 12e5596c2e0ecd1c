"""The statements that take dead tokens out of the table of their game and platform.

Names are quoted, values are bound as one array, so that nothing in a token or in a game's name can break a statement.
The array is a text that PostgreSQL reads as the column's own type, whatever that is, and looks up in the column's
index. Pure: never waits.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pusher.listener.feedback import Dead
from pusher.topics import TopicName

#: Characters of tokens in one statement; a token alone may have more.
_MAX_CHARACTERS = 1 << 20
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Statement(NamedTuple):
    """What psycopg2's ``execute`` takes."""

    text: str
    values: tuple[str, ...] = ()


def table_of(name: TopicName) -> str:
    """The table of a game and platform: lower case as PostgreSQL folds unquoted names, ASCII letters only."""
    return f"{name.game}_{name.platform}".translate(_LOWER)


def is_text(value: str) -> bool:
    """Whether PostgreSQL can hold it: no NUL, no lone surrogate."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def quoted(*names: str) -> str:
    """An identifier, from schema to object, for a statement that is executed with values."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names).replace("%", "%%")


def array(tokens: Iterable[str]) -> str:
    """The text of an array of all tokens."""
    return "{" + ",".join('"' + token.replace("\\", "\\\\").replace('"', '\\"') + '"' for token in tokens) + "}"


class Table:
    """The table of a game and platform. With an archive, deleted rows are moved there."""

    def __init__(self, name: TopicName, archive: Archive | None = None) -> None:
        self.owner, self.name = name, table_of(name)
        self._archive = archive

    def can_hold(self, token: str) -> bool:
        """Whether the token, and the table itself, can be there at all."""
        return is_text(token) and is_text(self.name)

    def delete(self, reasons: Mapping[str, str]) -> Statement:
        """Deletes all rows with these tokens, each of which has the reason why it is dead."""
        text = f"DELETE FROM {quoted(self.name)} WHERE token = ANY(%s)"  # noqa: S608  # the name is quoted
        if self._archive is None:
            return Statement(text, (array(reasons),))
        return self._archive.move(self.owner, Statement(text, (array(reasons),)), reasons)


class Archive:
    """The table that keeps deleted rows. ``name`` may begin with a schema and is folded as PostgreSQL does."""

    def __init__(self, name: str) -> None:
        self.table = quoted(*name.translate(_LOWER).split("."))

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

    def move(self, owner: TopicName, delete: Statement, reasons: Mapping[str, str]) -> Statement:
        """What ``delete`` deletes comes here, in one statement."""
        insert = (
            f"INSERT INTO {self.table} (game, platform, token, reason, deleted_row) "  # noqa: S608  # quoted
            "SELECT %s, %s, token::text, coalesce(%s::jsonb ->> token::text, ''), to_jsonb(gone) FROM gone"
        )
        values = (*delete.values, owner.game, owner.platform, json.dumps(reasons, ensure_ascii=False))
        return Statement(f"WITH gone AS ({delete.text} RETURNING *) {insert}", values)


def batches(dead: Sequence[Dead], size: int) -> Iterator[list[Dead]]:
    """Cuts into parts of at most ``size`` tokens that make no monstrous statement."""
    part: list[Dead] = []
    characters = 0
    for one in dead:
        if part and (len(part) >= size or characters + len(one.token) > _MAX_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(one)
        characters += len(one.token)
    if part:
        yield part
