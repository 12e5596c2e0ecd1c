"""Contains a feedback reporter of another package: its faults are logged with its name and do not stop the process.

If it raises an exception or refuses an outcome, the apps concerned wait until it stores again. A second answer is
ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from gevent.event import Event

from pusher.broker.interface import Done, Failed, PublishError
from pusher.push.reporter import FeedbackReporter, Report
from pusher.push.topics import TopicName
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.watch import LIMIT_S

_seldom = Seldom(logger(__name__), period_s=60)

#: Reported outcomes without an answer from which on consuming pauses.
_MOST_PENDING = 20_000
#: With something reported and nothing answered for so long it is not ready.
_SILENT_S = 60.0


class Contained:
    """A ``FeedbackReporter`` around another. ``failed`` gets what our own side of an answer raises."""

    def __init__(
        self,
        label: str,
        reporter: FeedbackReporter,
        failed: Failed,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        #: Reported and not answered.
        self.pending = 0
        self._reporter, self._failed, self._clock = reporter, failed, clock
        self._answered_at = clock()
        self._idle = Event()
        self._idle.set()

    def for_app(self, name: TopicName) -> Report:
        """See ``FeedbackReporter``."""
        try:
            report = self._reporter.for_app(name)
        except Exception as error:  # noqa: BLE001 - plugged in: whatever it raises holds up the app
            return partial(_refuse, f"{self.label}: {_one_line(error)}")
        return partial(self._ask, report)

    def _ask(self, report: Report, value: bytes, done: Done) -> None:
        if not self.pending:
            self._idle.clear()
            self._answered_at = self._clock()
        self.pending += 1
        answer = _Answer(self, done)
        began = self._clock()
        try:
            report(value, answer)
        except Exception as error:  # noqa: BLE001 - plugged in: whatever it raises holds up the app
            answer(PublishError(_one_line(error)))
        took_s = self._clock() - began
        if took_s > LIMIT_S:
            _seldom.error(self.label, "a plug-in has blocked a greenlet", plug_in=self.label, took_s=round(took_s, 1))

    @property
    def full(self) -> bool:
        """Whether it says that it is full, or holds too many outcomes."""
        try:
            return self.pending >= _MOST_PENDING or self._reporter.full
        except Exception as error:  # noqa: BLE001 - as above
            _seldom.error((self.label, "full"), "a plug-in has failed", plug_in=self.label, error=_one_line(error))
            return True

    def check(self) -> str:
        """See ``FeedbackReporter``."""
        return self._reporter.check()

    def flush(self, timeout_s: float) -> int:
        """Waits until all is answered, up to ``timeout_s``; returns the number left."""
        self._idle.wait(timeout_s)
        return self.pending

    def health(self) -> Health:
        """Not ready while it does not answer."""
        silent_s = self._clock() - self._answered_at
        if self.pending and silent_s > _SILENT_S:
            return Health(False, f"has stored nothing for {silent_s:.0f} s")
        return Health(True)

    def answered(self, done: Done, error: PublishError | None) -> None:
        """Called once for each report."""
        self.pending -= 1
        self._answered_at = self._clock()
        if not self.pending:
            self._idle.set()
        try:
            done(None if error is None else type(error)(f"{self.label}: {error}"))
        except Exception as failure:  # noqa: BLE001 - the owner decides: the offset would stay open for ever
            self._failed(failure)


class _Answer:
    """A ``Done`` that counts once."""

    __slots__ = ("_contained", "_done")

    def __init__(self, contained: Contained, done: Done) -> None:
        self._contained = contained
        self._done: Done | None = done

    def __call__(self, error: PublishError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._contained.answered(done, error)


def _refuse(reason: str, _value: bytes, done: Done) -> None:
    done(PublishError(reason))


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
