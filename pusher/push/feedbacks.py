"""Passes the outcomes of an app to one feedback reporter, and repeats them until they are stored.

If a reporter cannot store an outcome, the app waits: its offsets stay open and its partitions are paused until it can.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

from pusher.backoff import BackOff
from pusher.broker.interface import PublishError, RecordTooLarge, TopicRefused
from pusher.push.feedback import SentFrom
from pusher.push.outcome import Outcome
from pusher.push.push import Push
from pusher.push.reporter import FeedbackReporter
from pusher.push.topics import TopicName
from pusher.telemetry import sentry
from pusher.telemetry.log import Seldom, few, logger

log = logger(__name__)
_seldom, _few = Seldom(log, period_s=60), few(log)

#: Wait before a refused outcome is reported again.
_BACK_OFF = BackOff(min_s=5.0, max_s=20.0)


class MakeFeedback(Protocol):
    """Builds the feedback record of an outcome."""

    def __call__(
        self, origin: SentFrom, push: Push, outcome: Outcome, now_s: int, *, user_metadata: bool = True
    ) -> bytes:
        """``user_metadata=False`` leaves out what the producer attached."""
        ...


class Feedbacks:
    """Passes the outcomes of one app to one reporter. Nothing here waits."""

    def __init__(
        self,
        origin: SentFrom,
        make: MakeFeedback,
        reporter: FeedbackReporter,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        #: Why nothing can be stored, one line; "" while it can.
        self.blocked = ""
        self._origin, self._make, self._reporter = origin, make, reporter
        self._clock, self._wall_clock = clock, wall_clock
        self._name = TopicName(origin.game, origin.platform)
        self._report = reporter.for_app(self._name)
        self._refused: list[tuple[Push, Outcome]] = []
        #: Rounds in a row in which something was refused.
        self._rounds = 0
        self._retry_at = 0.0

    def tell(self, push: Push, outcome: Outcome) -> None:
        """Reports an outcome; when it is stored, here and with every other reporter, the push's offset is finished."""
        value = self._make(self._origin, push, outcome, int(self._wall_clock()))
        self._report(value, partial(self._told, push, outcome))

    def _tell_again(self, push: Push, outcome: Outcome, *, shortened: bool = False) -> None:
        """As ``tell``, for greenlets that all apps share: what it raises blocks this app, and is tried again."""
        try:
            value = self._make(self._origin, push, outcome, int(self._wall_clock()), user_metadata=not shortened)
            self._report(value, partial(self._told, push, outcome, shortened=shortened))
        except Exception as error:
            left_out = _seldom.turn((self, "fault"), "a feedback cannot be built")
            if left_out is not None:
                log.exception("a feedback cannot be built, the app waits", game=self._origin.game, **left_out)
                sentry.report_exception(None, game=self._origin.game)
            self._keep(push, outcome, f"a feedback cannot be built: {error!r}")

    def publish(self, make: Callable[[SentFrom, int], bytes], stored: Callable[[], object]) -> None:
        """Reports what is the outcome of no push; ``make`` gets the present time in s.

        ``stored`` is called when it is stored, and not at all where that cannot be done now.
        """
        if self._reporter.full:
            _seldom.warning(
                (self._name, "full"), "message has no feedback, the reporter is full", game=self._origin.game
            )
        else:
            value = make(self._origin, int(self._wall_clock()))
            self._report(value, partial(self._stored, stored))

    def tell_refused_again(self) -> None:
        """Repeats refused outcomes that are due. Called about once a second."""
        if self._refused and self._clock() >= self._retry_at:
            refused, self._refused = self._refused, []
            for push, outcome in refused:
                self._tell_again(push, outcome)

    def _told(self, push: Push, outcome: Outcome, error: PublishError | None, *, shortened: bool = False) -> None:
        if error is None:
            if self.blocked:
                self.blocked, self._rounds = "", 0
            push.untold = missing = push.untold - 1
            if not missing:
                push.tracker.finish(push.offset)
        elif isinstance(error, RecordTooLarge) and not shortened:
            topic, partition = push.tracker.key
            _few.warning(
                (self._name, "size"),
                "feedback refused for its size, published without the producer's metadata",
                game=self._origin.game,
                topic=topic,
                partition=partition,
                offset=push.offset,
            )
            self._tell_again(push, outcome, shortened=True)
        else:
            self._hold(push, outcome, error)

    def _hold(self, push: Push, outcome: Outcome, error: PublishError) -> None:
        advice = ": create the topic or allow writing" if isinstance(error, TopicRefused) else ""
        self._keep(push, outcome, f"feedbacks cannot be stored: {error}{advice}")
        _seldom.error(
            self,
            f"feedbacks cannot be stored, the app waits{advice}",
            game=self._origin.game,
            platform=self._origin.platform,
            error=str(error),
        )

    def _keep(self, push: Push, outcome: Outcome, reason: str) -> None:
        self.blocked = reason
        if not self._refused:
            self._rounds += 1
            self._retry_at = self._clock() + _BACK_OFF.delay_s(self._rounds, (1 + random.random()) / 2)
        self._refused.append((push, outcome))

    def _stored(self, stored: Callable[[], object], error: PublishError | None) -> None:
        if error is None:
            stored()
        else:
            _seldom.error((self._name, "refused"), "message has no feedback", game=self._origin.game, error=str(error))
