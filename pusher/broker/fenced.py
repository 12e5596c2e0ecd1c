"""A member whose place in its group another process has taken, for both have the same kafka.groupInstanceId."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from pusher.telemetry.log import logger

log = logger(__name__)

FENCED = "another process has the same kafka.groupInstanceId"
#: Whoever joins expels the other one, which may be there for good: two that live must not do so all the time.
_PAUSE_S = 10.0


class Fenced:
    """Keeps such a member out of its group for a while, for the other one may have been there for a moment only."""

    def __init__(self, group: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._group, self._clock = group, clock
        self._until = clock()

    def step_back(self) -> None:
        """The group has reported that another process has this member's place."""
        self._until = self._clock() + _PAUSE_S
        log.error("left to it the place in the group, joins again later", reason=FENCED, group=self._group)

    def wait(self, timeout_s: float) -> bool:
        """Whether the member must stay out of the group now. Waits for the end of that, up to ``timeout_s``."""
        left_s = self._until - self._clock()
        if left_s > 0:
            gevent.sleep(min(left_s, max(0.0, timeout_s)))
        return left_s > 0
