"""Stops deletion when reasons that mean a dead token become too frequent.

A wrong topic, or a mix-up of sandbox and production, makes Apple refuse the tokens of a whole user base with reasons
that otherwise mean a dead token. These reasons are doubtful, and soon too many. Reasons that only a dead token causes
are proven, and too many only if nearly all tokens are reported as dead. The guard counts all outcomes of a game in a
sliding window. Pure: the time, in seconds of any clock that does not go back, is passed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

#: The window slides by one slot at a time.
_SLOTS = 60
#: Once it has stopped deletion, the guard goes by lower limits, so that it does not change its mind with each batch.
_SCALE_WHILE_STOPPED = 0.8


class Seen(NamedTuple):
    """Outcomes counted."""

    outcomes: int = 0
    successes: int = 0
    doubtful: int = 0
    proven: int = 0


class Limit(NamedTuple):
    """The limits."""

    #: Of all outcomes.
    share: float
    #: Fewer than this never stop deletion.
    minimum: int


class Stopped(NamedTuple):
    """For which reasons deletion is stopped."""

    doubtful: bool = False
    proven: bool = False


_NOTHING = Stopped()


@dataclass(frozen=True)
class GuardPolicy:
    """When refusals are too many. Times in seconds."""

    window_s: float
    doubtful: Limit
    proven: Limit
    #: Whether senders feed back successes; if not, and none is seen, ``maximum`` decides instead of the share.
    successes_expected: bool
    maximum: int

    def stops(self, seen: Seen, before: Stopped = _NOTHING) -> Stopped:
        """What the outcomes of a window stop, if ``before`` was stopped."""
        return Stopped(
            self._is_too_much(seen.doubtful, self.doubtful, seen, before.doubtful),
            self._is_too_much(seen.proven, self.proven, seen, before.proven),
        )

    def _is_too_much(self, refusals: int, limit: Limit, seen: Seen, before: bool) -> bool:
        scale = _SCALE_WHILE_STOPPED if before else 1.0
        if refusals < limit.minimum * scale:
            return False
        if not seen.successes and not self.successes_expected:
            return refusals > self.maximum * scale
        return refusals > limit.share * scale * seen.outcomes


class Guard:
    """The guard of one game and platform."""

    def __init__(self, policy: GuardPolicy) -> None:
        self._policy = policy
        self._slot_s = policy.window_s / _SLOTS
        #: Number of a slot and what was seen in it, the oldest first.
        self._slots: deque[tuple[int, Seen]] = deque()
        self._sum = Seen()
        self._stopped = _NOTHING

    def count(self, now: float, seen: Seen) -> None:
        """Notes outcomes."""
        slot = int(now / self._slot_s)
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = (slot, _add(self._slots[-1][1], seen))
        else:
            self._slots.append((slot, seen))
        self._sum = _add(self._sum, seen)

    def seen(self, now: float) -> Seen:
        """The outcomes in the window."""
        oldest = int(now / self._slot_s) - _SLOTS
        while self._slots and self._slots[0][0] <= oldest:
            gone = self._slots.popleft()[1]
            self._sum = Seen(*(total - part for total, part in zip(self._sum, gone, strict=True)))
        return self._sum

    def stops(self, now: float) -> Stopped:
        """For which reasons tokens must not be deleted now."""
        self._stopped = self._policy.stops(self.seen(now), self._stopped)
        return self._stopped


def _add(one: Seen, other: Seen) -> Seen:
    return Seen(*(mine + others for mine, others in zip(one, other, strict=True)))
