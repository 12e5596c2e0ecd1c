"""Limits on the work that a peer may cause: loops over its bytes let others run, and data that answers nothing is
counted.

A flood is measured by the work that it makes (octets, elements, parameters, decoded fields), not by its number of
frames or reads: RFC 9113, 10.5.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

#: How long a loop over foreign bytes may run before others get their turn.
SLICE_S = 0.005
#: gevent runs up to 50 callbacks, of which sleep(0) is one, before it looks at sockets and timers again.
PAUSE_S = 0.0001


class Turns:
    """Gives other greenlets their turn after each slice of time."""

    def __init__(self, slice_s: float = SLICE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._slice_s, self._clock = slice_s, clock
        self._since = clock()

    def begin(self) -> None:
        """A slice begins: the caller has just waited."""
        self._since = self._clock()

    def give_way(self) -> None:
        """Lets others run when the slice is over; returns at once while it is not."""
        if self._clock() - self._since >= self._slice_s:
            gevent.sleep(PAUSE_S)
            self._since = self._clock()


class Budget:
    """A peer's credit for what answers nothing. It grows with time, up to ``most``, and with useful answers."""

    def __init__(self, per_s: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._most, self._clock = per_s, most, clock
        self._credit, self._at = most, clock()

    def spend(self, cost: float) -> bool:
        """Takes ``cost`` from the credit; false when there is none left: the peer is to be cut off."""
        self._credit -= cost
        if self._credit >= 0:
            return True
        now = self._clock()
        self._credit = min(self._most, self._credit + (now - self._at) * self._per_s)
        self._at = now
        return self._credit >= 0

    def earn(self, credit: float) -> None:
        """The peer has answered something."""
        self._credit = min(self._most, self._credit + credit)
