"""How fast messages are settled."""

from __future__ import annotations

from collections import deque


class Pace:
    """How fast messages are settled, and for how long none is, from the first to the last."""

    def __init__(self) -> None:
        #: Most in a second.
        self.fastest = 0
        self.standstill_s = 0.0
        self._settled = 0
        self._moved_at = 0.0
        self._second: deque[tuple[float, int]] = deque()

    def note(self, settled: int, now: float, *, waiting: bool) -> None:
        """So many are settled now; whether others are waited for."""
        if settled == self._settled:
            if settled and waiting:
                self.standstill_s = max(self.standstill_s, now - self._moved_at)
            else:
                self._moved_at = now
            return
        self._settled, self._moved_at = settled, now
        self._second.append((now, settled))
        while self._second[0][0] < now - 1.0:
            self._second.popleft()
        self.fastest = max(self.fastest, settled - self._second[0][1])
