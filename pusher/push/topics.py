"""The names of topics: ``push-<game>`` + ``_`` or ``-`` + the word of a platform + anything.

A game may itself contain ``_``, ``-`` or a platform's name; where a name can be split in several ways, a configured app
decides, and among several configured ones the longest.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from pusher.config.doors import PLATFORMS

FEEDBACKS, INVALID, HELD = "-feedbacks", "-invalid", "-held"
#: Stands for a game or platform that a topic's name does not tell.
UNKNOWN = "unknown"
_SPLIT = re.compile(r"(?=[-_](" + PLATFORMS + "))")
_PREFIX = "push-"


class TopicName(NamedTuple):
    """The game and the platform that a topic belongs to."""

    game: str
    platform: str


def parse(topic: str, apps: Collection[str]) -> TopicName | None:
    """Splits a topic's name; None when it is not of the grammar.

    Without a configured app the first platform word decides, as it does for a name with only one.
    """
    if not topic.startswith(_PREFIX):
        return None
    rest = topic[len(_PREFIX) :]
    splits = [TopicName(rest[: m.start()], m.group(1)) for m in _SPLIT.finditer(rest) if m.start() > 0]
    known = [name for name in splits if name.game in apps]
    if known:
        return known[-1]
    return splits[0] if splits else None


def is_written_by_pusher(topic: str) -> bool:
    """Whether a topic holds outcomes, not requests."""
    return topic.endswith((FEEDBACKS, INVALID, HELD))


def fill(template: str, name: TopicName) -> str:
    """A topic's name with ``<game>`` and ``<platform>`` filled in."""
    return template.replace("<game>", name.game).replace("<platform>", name.platform)


def feedback_topic(game: str, platform: str) -> str:
    """Where the outcomes of a game's pushes go."""
    return f"push-{game}-{platform}{FEEDBACKS}"


def held_topic(game: str, platform: str) -> str:
    """Where the listener's guard puts the feedbacks that it did not act on."""
    return f"push-{game}-{platform}{HELD}"
