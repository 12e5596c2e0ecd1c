"""The statements that take dead tokens out of the table of their game and platform.

Names are quoted, values are bound as one array, so that nothing in a token or in a game's name can break a statement.
The array is a text that PostgreSQL reads as the column's own type, whatever that is, and looks up in the column's
index. Pure: never waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pusher.listener.archive import Archive
from pusher.listener.sorter import Dead
from pusher.listener.statement import Statement, array, folded, is_text, quoted
from pusher.push.topics import TopicName

#: Characters of tokens in one statement; a token alone may have more.
_MAX_CHARACTERS = 1 << 20


def table_of(name: TopicName) -> str:
    """The table of a game and platform: lower case as PostgreSQL folds unquoted names, ASCII letters only."""
    return folded(f"{name.game}_{name.platform}")


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
