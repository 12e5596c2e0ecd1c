"""What a Firebase project may send: a number of messages, filled anew each window.

Source: Firebase, "Throttling and quotas": the quota counts for each project, is not aligned to the clock's minutes, and
every request counts but those that are answered 429. Time is passed in.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Terms(NamedTuple):
    """``limit`` messages each ``window_s``; ``tells``: a refusal says when the next window begins (Retry-After)."""

    limit: int
    window_s: float
    tells: bool = False

    @classmethod
    def read(cls, text: str) -> Terms:
        """Of ``LIMIT/SECONDS`` or ``LIMIT/SECONDS,retry-after``. Raises ValueError."""
        numbers, comma, told = text.partition(",")
        limit, slash, window = numbers.partition("/")
        if not slash or (comma and told != "retry-after") or int(limit) < 0 or not float(window) > 0:
            raise ValueError(f"{text!r} is not LIMIT/SECONDS or LIMIT/SECONDS,retry-after")
        return cls(int(limit), float(window), bool(told))


class Quota:
    """One project's. Its windows begin with its first request."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._began: float | None = None
        self.refused = 0
        #: What each window took; those in which nothing came are 0.
        self.windows: list[int] = []

    def take(self, now: float) -> float | None:
        """None: the request is within the quota; else the seconds until the next window."""
        if self._began is None:
            self._began = now
        window = math.floor((now - self._began) / self._terms.window_s)
        self.windows += [0] * (window + 1 - len(self.windows))
        if self.windows[-1] < self._terms.limit:
            self.windows[-1] += 1
            return None
        self.refused += 1
        return self._began + (window + 1) * self._terms.window_s - now

    def counts(self) -> dict[str, object]:
        """For the admin port."""
        return {"windows": self.windows, "refused": self.refused}
