"""When a push is retried. The policy is immutable, the queue is the state, time is passed in."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

from pusher.backoff import doubled_s

T = TypeVar("T")

#: A provider that asks for more is not believed: a push would wait for ever, and hold up the commit of its partition.
MAX_RETRY_AFTER_S = 3_600.0


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with jitter. All times in seconds."""

    interval_s: float = 1.0
    #: Sends in all, the first included.
    max_attempts: int = 3
    max_wait_s: float = 60.0
    #: Time between the first send and the last one; None: unlimited.
    max_elapsed_s: float | None = None
    #: Whether its sends count for the ``max_attempts`` of others; False: only time ends its retries.
    counted: bool = True

    def wait_s(
        self,
        attempts: int,
        retry_after_s: float | None = None,
        elapsed_s: float = 0.0,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """How long to wait after ``attempts`` sends; None when there is to be no further one.

        A provider's Retry-After, of an hour at most, wins over the back-off. The jitter only lengthens the wait, by up
        to a half, because both providers name minimum waits.
        """
        if self.counted and attempts >= self.max_attempts:
            return None
        if retry_after_s is None:
            wait = min(doubled_s(self.interval_s, attempts) * (1 + draw() / 2), self.max_wait_s)
        else:
            wait = min(retry_after_s, MAX_RETRY_AFTER_S)
        if self.max_elapsed_s is not None and elapsed_s + wait > self.max_elapsed_s:
            return None
        return wait


class RetryQueue(Generic[T]):
    """A heap of what is due when. Items due at the same time come out in the order they went in. Never waits."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T, bool]] = []
        self._order = itertools.count()
        self._aside = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def aside(self) -> int:
        """Of the items, those that wait aside."""
        return self._aside

    def items(self) -> list[T]:
        """All of them, in no order."""
        return [entry[2] for entry in self._heap]

    def push(self, due: float, item: T, *, aside: bool = False) -> None:
        """``due`` is on the clock that ``pop_due`` gets; ``aside``: it waits for something that others need not."""
        self._aside += aside
        heapq.heappush(self._heap, (due, next(self._order), item, aside))

    def pop_due(self, now: float, limit: int) -> list[T]:
        """At most ``limit`` items that are due."""
        heap = self._heap
        items: list[T] = []
        while heap and heap[0][0] <= now and len(items) < limit:
            _, _, item, aside = heapq.heappop(heap)
            self._aside -= aside
            items.append(item)
        return items

    @property
    def next_due(self) -> float | None:
        """When the first item is due; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def bring_forward(self, due: float, chosen: Callable[[T], bool], *, aside_alone: bool = False) -> None:
        """What is chosen is due at ``due`` at the latest; with ``aside_alone`` only what waits aside is asked about."""
        self._heap = [
            (min(at, due), order, item, aside)
            if (aside or not aside_alone) and chosen(item)
            else (at, order, item, aside)
            for at, order, item, aside in self._heap
        ]
        heapq.heapify(self._heap)

    def drain(self, keep: Callable[[float, T], bool]) -> list[T]:
        """Takes out everything for which ``keep(due, item)`` is false."""
        out = [entry[2] for entry in self._heap if not keep(entry[0], entry[2])]
        self._heap = [entry for entry in self._heap if keep(entry[0], entry[2])]
        heapq.heapify(self._heap)
        self._aside = sum(entry[3] for entry in self._heap)
        return out


def parse_retry_after(text: str, now_s: float) -> float | None:
    """The value of a Retry-After header (RFC 9110, 10.2.3) in seconds; None when it is neither number nor date."""
    if text.isascii() and text.isdigit():
        return float(text)
    moment_s = parse_date(text)
    return None if moment_s is None else max(0.0, moment_s - now_s)


def parse_date(text: str) -> float | None:
    """The Unix time of a date (RFC 9110, 5.6.7); None when it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
