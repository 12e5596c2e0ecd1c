"""Detects plug-in code that blocks the hub, and with it every app of the process."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import gevent

#: Blocking the hub for longer is reported.
LIMIT_S = 1.0
_TICK_S = 0.05


class Watch:
    """``with Watch() as watch:`` measures the longest time in which nothing else could run: ``watch.longest_s``."""

    __slots__ = ("_at", "_timer", "longest_s")

    def __enter__(self) -> Self:
        self.longest_s = 0.0
        self._at = time.monotonic()
        self._timer: Any = gevent.get_hub().loop.timer(_TICK_S, _TICK_S)
        self._timer.start(self._tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.stop()
        self._timer.close()
        self._tick()

    @property
    def too_long(self) -> bool:
        """Whether it blocked the hub for longer than is accepted."""
        return self.longest_s > LIMIT_S

    def _tick(self) -> None:
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self._at)
        self._at = now
