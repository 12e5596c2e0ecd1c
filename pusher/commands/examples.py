"""Examples of each command, as its ``--help`` and the manual page show them. They stand in ``examples.ini``."""

from __future__ import annotations

import configparser
from functools import cache
from importlib import resources
from typing import NamedTuple


class Example(NamedTuple):
    """A description and a command line."""

    text: str
    line: str


@cache
def examples() -> dict[str, tuple[Example, ...]]:
    """By the command's words, such as ``pusher send``."""
    parser = configparser.RawConfigParser(delimiters=("=>",), comment_prefixes=(";",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # texts keep their capitals
    parser.read_string((resources.files(__package__) / "examples.ini").read_text())
    return {words: tuple(Example(*item) for item in parser.items(words)) for words in parser.sections()}


def shown(words: str) -> str:
    """The examples of a command as the end of its ``--help``; "" for a command that has none."""
    found = examples().get(words, ())
    if not found:
        return ""
    return "\nexamples:\n" + "".join(f"  # {example.text}\n  {example.line}\n" for example in found)
