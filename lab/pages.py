"""The pages of the documentation: their fenced blocks, and the commands that they tell a reader to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from lab.processes import ROOT

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


class Block(NamedTuple):
    """A fenced block of a page; ``language`` is "" where none is written."""

    page: str
    line: int
    language: str
    text: str


class Typed(NamedTuple):
    """One command: its words as a shell passes them on, without redirections and assignments of variables."""

    page: str
    line: int
    words: tuple[str, ...]
    #: Whether it is part of a sentence, and may name a command without what the command needs.
    inline: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def text(page: str) -> str:
    """All of a page."""
    return (ROOT / page).read_text()


def blocks(*languages: str) -> list[Block]:
    """The blocks of all pages, or those in these languages."""
    return [block for block in _blocks() if not languages or block.language in languages]


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in _FENCE.finditer(text(page)):
            indent, language, body = found.groups()
            line = text(page).count("\n", 0, found.start()) + 2
            yield Block(page, line, language, re.sub(f"^{indent}", "", body, flags=re.MULTILINE))


def prose(page: str) -> str:
    """The page with its blocks emptied, so that lines keep their numbers."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text(page))


def typed(programs: re.Pattern[str]) -> Iterator[Typed]:
    """The commands of all blocks of ``sh``, and those in sentences that begin with one of these programs."""
    for block in blocks("sh"):
        for offset, line in enumerate(re.sub(r"\\\n", " ", block.text).splitlines()):
            for words in commands(line):
                yield Typed(block.page, block.line + offset, words, inline=False)
    for page in PAGES:
        for code in re.finditer(r"`([^`]+)`", prose(page)):
            if programs.match(code[1]):
                at = prose(page).count("\n", 0, code.start()) + 1
                for words in commands(code[1].replace("\n", " ")):
                    yield Typed(page, at, words, inline=True)


def commands(line: str) -> Iterator[tuple[str, ...]]:
    """What a shell would run of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.commenters = "#"
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if redirected:
            redirected = False
        elif set(word) <= set("<>"):
            redirected = True
        elif not set(word) <= set("|&;"):
            if words or not _ASSIGNMENT.match(word):
                words.append(word)
        elif words:
            yield tuple(words)
            words = []
