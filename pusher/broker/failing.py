"""Partitions that cannot be read now, because of a missing right or damaged records: each is not read for a while.

A problem of one topic must not affect another topic. Pure: no I/O, never waits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pusher.backoff import BackOff
from pusher.broker.offsets import TopicPartition

_BACK_OFF = BackOff(min_s=1.0, max_s=30.0)
#: A partition that was tried again and has not failed for this long is healthy.
_SETTLED_S = 5.0


@dataclass
class _Failure:
    reason: str
    times: int
    until: float


class Failing:
    """The failing partitions, why, and when they are tried again; times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._failures: dict[TopicPartition, _Failure] = {}

    def note(self, key: TopicPartition, reason: str, now: float) -> bool:
        """A partition failed: it waits, twice as long as the last time. Whether this is new."""
        known = self._failures.get(key)
        times = known.times + 1 if known else 1
        self._failures[key] = _Failure(reason, times, now + _BACK_OFF.delay_s(times))
        return known is None

    def waiting(self, now: float) -> set[TopicPartition]:
        """Those that are not to be tried now. Those that were tried long enough without failing are forgotten."""
        if not self._failures:  # nearly always, and asked for each fetch
            return set()
        for key in [key for key, failure in self._failures.items() if failure.until + _SETTLED_S < now]:
            del self._failures[key]
        return {key for key, failure in self._failures.items() if failure.until > now}

    def forget(self, keys: Collection[TopicPartition]) -> None:
        """These can be read, or are no longer ours."""
        for key in keys:
            self._failures.pop(key, None)

    def __contains__(self, key: TopicPartition) -> bool:
        return key in self._failures

    @property
    def reason(self) -> str:
        """Each topic that fails with its reason; "" when none does."""
        if not self._failures:
            return ""
        reasons = {key.topic: failure.reason for key, failure in sorted(self._failures.items())}
        return "; ".join(f"{topic} cannot be read: {reason}" for topic, reason in reasons.items())
