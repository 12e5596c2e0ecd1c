"""Calls at a later time, all from one greenlet, which is much cheaper than a greenlet a call."""

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

from gevent.event import Event


class Schedule:
    """Functions to be called, by due time."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._wake = Event()

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """Calls function(*args) after so many seconds; the function must not wait."""
        heapq.heappush(self._calls, (time.monotonic() + seconds, next(self._numbers), function, args))
        self._wake.set()

    def run(self) -> None:
        """Makes the calls for ever; waits."""
        while True:
            now = time.monotonic()
            while self._calls and self._calls[0][0] <= now:
                _, _, function, args = heapq.heappop(self._calls)
                function(*args)
            self._wake.clear()
            self._wake.wait(self._calls[0][0] - time.monotonic() if self._calls else None)
