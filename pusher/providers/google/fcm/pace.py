"""How fast the pushes of one Firebase project may go. Pure: time is passed in, in monotonic seconds.

Pushes are spread evenly below a rate, which starts at a tenth after a start or an outage and grows to the full rate in
a minute. When Google answers that the quota is used up, only a probe is sent from time to time, until one is accepted;
then the full rate applies again. So a process that shares a project with others finds its part of the quota through
refusals, without communication: the quota goes to the processes that use it first.

Sources: Firebase, "Best practices when sending FCM messages at scale" (ramp of at least 60 s, even traffic);
"Throttling and quotas" (600,000 messages a minute for each project, Retry-After).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pusher.push.retry import MAX_RETRY_AFTER_S

RAMP_S = 60.0
_RAMP_FROM = 0.1
PROBE_EVERY_S = 5.0
#: Failures for so long, without a push that was accepted, are an outage.
OUTAGE_S = 10.0
#: Sends are let go in portions of this much time: fewer, larger writes.
_PORTION_S = 0.01
#: What was not used is saved up for this much time.
_SAVED_S = 0.02


@dataclass(frozen=True)
class PaceReading:
    """For metrics and the status page; pushes a second, None: without limit, or not known."""

    pace: float | None
    #: What was accepted between the last two times that the quota was filled.
    quota: float | None


class Pace:
    """``per_minute`` 0: neither limit nor ramp; a quota that is used up still stops."""

    def __init__(self, per_minute: int, now: float, *, probe_every_s: float | None = None) -> None:
        self._rate = per_minute / 60 if per_minute else math.inf
        self._probe_every_s = PROBE_EVERY_S if probe_every_s is None else probe_every_s
        self._ramp_began = now
        self._credit, self._credited_at = 0.0, now
        #: When the latest push was sent that was refused for the quota; None while pushes may go.
        self._refused_at: float | None = None
        self._probe_at, self._probed = 0.0, False
        self._accepted_at = now
        #: Whether a push has failed since one was accepted.
        self._failing = False
        #: How often the quota was filled again after probes had been refused or were waited for.
        self.fills = 0
        self._filled_at: float | None = None
        self._accepted = 0
        self._quota: float | None = None

    @property
    def stopped(self) -> bool:
        """Whether the quota is used up and only probes go."""
        return self._refused_at is not None

    def room(self, now: float) -> int:
        """How many pushes may go."""
        if self._refused_at is not None:
            return 1 if now >= self._probe_at else 0
        if self._rate == math.inf:
            return 1_000_000
        rate = self._allowed(now)
        credit = min(self._credit + rate * (now - self._credited_at), max(1.0, rate * _SAVED_S))
        self._credit, self._credited_at = credit, now
        return int(credit) if credit >= max(1.0, rate * _PORTION_S) else 0

    def wait_s(self, now: float) -> float:
        """How long there is no room, when ``room`` has just said so."""
        if self._refused_at is not None:
            return max(0.0, self._probe_at - now)
        rate = self._allowed(now)
        return (max(1.0, rate * _PORTION_S) - self._credit) / rate

    def take(self, wanted: int, now: float) -> int:
        """How many of ``wanted`` pushes go now: these count as sent."""
        taken = min(wanted, self.room(now))
        if self._refused_at is not None and taken:
            self._probe_at, self._probed = now + self._probe_every_s, True
        elif self._rate != math.inf:
            self._credit -= taken
        return taken

    def accepted(self, sent_at: float, now: float) -> None:
        """A push that was sent at ``sent_at`` was accepted."""
        self._accepted += 1
        # Answers come in the order of the requests: a quota that is used up accepts nothing after it has refused.
        if self._refused_at is not None and sent_at >= self._refused_at:
            self._filled(now)
        if self._failing:
            if now - self._accepted_at >= OUTAGE_S:
                self._ramp_began = now
            self._failing = False
        self._accepted_at = now

    def failed(self) -> None:
        """A push failed by a fault of the provider or of the way to it, or there is no way to it."""
        self._failing = True

    def refused(self, sent_at: float, now: float, retry_after_s: float | None) -> None:
        """A push was refused because the quota is used up."""
        if retry_after_s is not None:
            self._probe_at = max(self._probe_at, now + min(retry_after_s, MAX_RETRY_AFTER_S))
        elif self._refused_at is None:
            self._probe_at = now + self._probe_every_s
        self._refused_at = max(self._refused_at or sent_at, sent_at)
        # an answer all the same: no outage
        self._accepted_at = now

    def shown(self, now: float) -> PaceReading:
        """The current rate, and the quota if it is known."""
        allowed = 0.0 if self.stopped else self._allowed(now)
        return PaceReading(None if allowed == math.inf else allowed, self._quota)

    def _allowed(self, now: float) -> float:
        grown = _RAMP_FROM + (1 - _RAMP_FROM) * (now - self._ramp_began) / RAMP_S
        return self._rate * min(1.0, grown)

    def _filled(self, now: float) -> None:
        """A push went through again."""
        if self._probed:
            self.fills += 1
            if self._filled_at is not None:
                self._quota = self._accepted / (now - self._filled_at)
            self._filled_at, self._accepted = now, 0
        self._refused_at, self._probed = None, False
        self._credit, self._credited_at = 0.0, now
        self._ramp_began = now - RAMP_S
