"""How often a consumer asks for records that come one by one."""

from __future__ import annotations

import math

#: A read, and everything that its records wake, costs nearly the same for one record as for many. So while fewer
#: records a second come than this, the next read waits so long, and the longer the fewer they are.
_WAITS_S = ((400, 0.06), (6000, 0.015))
#: Not so after a silence: no others are likely to come soon, and the wait would wake the process once more.
_SILENCE_S = 0.09


class ReadPace:
    """When records are read next, by how many a second the last reads brought. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._brought_at = self._due_at = -math.inf
        #: Records a second, the mean of the last two reads: one read of a fast topic may bring few.
        self._rate_s = 0.0

    def note(self, number: int, now: float, *, more: bool) -> None:
        """A read has brought some records; ``more``: others are there already."""
        passed_s, self._brought_at = now - self._brought_at, now
        if more or passed_s >= _SILENCE_S:
            self._rate_s = self._due_at = 0.0
            return
        rate_s = number / max(passed_s, 0.001)
        self._rate_s = (self._rate_s + rate_s) / 2 if self._rate_s else rate_s
        self._due_at = now + next((wait_s for few, wait_s in _WAITS_S if self._rate_s < few), 0.0)

    def wait_s(self, now: float) -> float:
        """For how long the next read waits; not above 0 if it does not."""
        return self._due_at - now
