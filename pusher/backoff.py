"""How long to wait before a retry: of pushes, links, brokers, the database.

Each wait is twice the one before, up to a limit. Jitter keeps retries that failed together from running together.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Far above any limit, and small enough to be a float.
_MOST_DOUBLINGS = 64


@dataclass(frozen=True)
class BackOff:
    """``min_s`` after the first failure, then doubled up to ``max_s``."""

    min_s: float = 1.0
    max_s: float = 60.0

    def delay_s(self, failures: int, chance: float = 1.0) -> float:
        """How long to wait (s) after so many failures in a row; of that the share ``chance``, a random one: jitter."""
        if failures <= 0:
            return 0.0
        return chance * min(self.max_s, doubled_s(self.min_s, failures))


def doubled_s(first_s: float, failures: int) -> float:
    """``first_s`` after one failure, twice as long after each further one."""
    return first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)
