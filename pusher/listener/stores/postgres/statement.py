"""Parts of SQL statements. Names are quoted, values are bound, so that neither can break a statement. Pure."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import NamedTuple

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Statement(NamedTuple):
    """Text and the values to be bound. A percent sign of the text itself is doubled."""

    text: str
    values: tuple[str, ...] = ()


def is_text(value: str) -> bool:
    """Whether PostgreSQL can hold it: no NUL."""
    return "\0" not in value


def quoted(*names: str) -> str:
    """An identifier, from schema to object, for the text of a ``Statement``."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names).replace("%", "%%")


def array(tokens: Iterable[str]) -> str:
    """The text of an array of all tokens."""
    return "{" + ",".join('"' + token.replace("\\", "\\\\").replace('"', '\\"') + '"' for token in tokens) + "}"


def folded(name: str) -> str:
    """A name in lower case as PostgreSQL folds those that are not quoted: ASCII letters only."""
    return name.translate(_LOWER)
