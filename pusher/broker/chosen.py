"""Which topics a consumer group reads, by what its settings name."""

from __future__ import annotations

import re
from collections.abc import Iterable


class ChosenTopics:
    """Names, and regular expressions that begin with ``^`` and match from the start of a name."""

    def __init__(self, given: Iterable[str]) -> None:
        given = tuple(given)
        self._names = frozenset(topic for topic in given if not topic.startswith("^"))
        self._patterns = [re.compile(topic) for topic in given if topic.startswith("^")]

    def __contains__(self, topic: str) -> bool:
        return topic in self._names or any(pattern.match(topic) for pattern in self._patterns)
