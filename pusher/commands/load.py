"""Writes many records to topics, for the commands ``enqueue`` and ``replay``.

A daemon waits for its broker without end; a command gives up when the broker has stored nothing for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from pusher.broker.interface import Header, Publisher, PublishError

_LOOK_S = 0.1
#: How long the broker may store nothing.
_PATIENCE_S = 30.0


class Stuck(OSError):
    """The broker stores nothing any more. The text says why, in one line."""


class Load:
    """Records on their way, and their results. ``ended`` gets the size of each record that is stored or refused."""

    def __init__(self, publisher: Publisher, ended: Callable[[int], object]) -> None:
        self._publisher, self._told = publisher, ended
        self.stored = self.refused = 0
        #: Why the first one was refused.
        self.refusal: PublishError | None = None

    def put(self, topic: str, value: bytes, headers: Sequence[Header] = (), *, size: int = 1) -> None:
        """Waits while the publisher is full; raises ``Stuck``."""
        self._publisher.publish(topic, value, partial(self._done, size), headers)
        if self._publisher.full:
            self._wait(lambda: not self._publisher.full)

    def wait(self) -> None:
        """Waits until all are stored or refused; raises ``Stuck``."""
        self._wait(lambda: not self._publisher.pending)

    def _wait(self, condition: Callable[[], bool]) -> None:
        ended, deadline = self._ended, time.monotonic() + _PATIENCE_S
        while not condition():
            self._publisher.flush(_LOOK_S)
            if self._ended > ended:
                ended, deadline = self._ended, time.monotonic() + _PATIENCE_S
            elif time.monotonic() > deadline:
                reason = self._publisher.health().reason or "no answer"
                raise Stuck(f"gave up, nothing stored for {_PATIENCE_S:g} s: {reason}")

    @property
    def _ended(self) -> int:
        return self.stored + self.refused

    def _done(self, size: int, error: PublishError | None) -> None:
        self._told(size)
        if error is None:
            self.stored += 1
        else:
            self.refused += 1
            self.refusal = self.refusal or error
