"""The feedback topic of an app: what became of a push is told there, and only then is the push finished.

Where the topic refuses records, because it is missing or forbidden, the app is blocked until it takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from pusher.broker.interface import Publisher, PublishError, RecordTooLarge, TopicRefused
from pusher.push import topics
from pusher.push.feedback import SentFrom
from pusher.push.outcome import Outcome
from pusher.push.push import Push
from pusher.telemetry import sentry
from pusher.telemetry.log import Seldom, few, logger

log = logger(__name__)
_seldom, _few = Seldom(log, period_s=60), few(log)

#: How often a feedback that its topic refused is tried again.
_RETRY_S = 5.0


class MakeFeedback(Protocol):
    """Builds the feedback record of an outcome."""

    def __call__(
        self, origin: SentFrom, push: Push, outcome: Outcome, now_s: int, *, user_metadata: bool = True
    ) -> bytes:
        """``user_metadata=False`` leaves out what the producer attached."""
        ...


class FeedbackTopic:
    """Publishes the feedbacks of one app. Nothing here waits."""

    def __init__(
        self,
        origin: SentFrom,
        make: MakeFeedback,
        publisher: Publisher,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        #: Why nothing can be published, one line; "" while it can.
        self.blocked = ""
        self._origin, self._make, self._publisher = origin, make, publisher
        self._clock, self._wall_clock = clock, wall_clock
        self._topic = topics.feedback_topic(origin.game, origin.platform)
        self._refused: list[tuple[Push, Outcome]] = []
        self._retry_at = 0.0

    def tell(self, push: Push, outcome: Outcome, *, user_metadata: bool = True) -> None:
        """Publishes an outcome; when the broker has it the push's offset is finished.

        ``user_metadata=False`` leaves out what the producer attached.
        """
        value = self._make(self._origin, push, outcome, int(self._wall_clock()), user_metadata=user_metadata)
        self._publisher.publish(self._topic, value, partial(self._told, push, outcome, user_metadata))

    def publish(self, make: Callable[[SentFrom, int], bytes], stored: Callable[[], object]) -> None:
        """Publishes what is the outcome of no push; ``make`` gets the present time in s.

        ``stored`` is called when the broker has it, and not at all where it cannot be stored now.
        """
        if self._publisher.full:
            _seldom.warning(f"{self._topic} full", "message not fed back, the publisher's buffer is full")
        else:
            self._publisher.publish(
                self._topic, make(self._origin, int(self._wall_clock())), partial(self._stored, stored)
            )

    def try_refused_again(self) -> None:
        """What the topic refused, when it is time. Called about once a second."""
        if self._refused and self._clock() >= self._retry_at:
            refused, self._refused = self._refused, []
            for push, outcome in refused:
                self._tell_again(push, outcome)

    def _told(self, push: Push, outcome: Outcome, user_metadata: bool, error: PublishError | None) -> None:
        if error is None:
            self.blocked = ""
            push.tracker.finish(push.offset)
        elif isinstance(error, RecordTooLarge) and user_metadata:
            topic, partition = push.tracker.key
            _few.warning(
                (self._topic, "size"),
                "feedback refused for its size, published without the producer's metadata",
                game=self._origin.game,
                topic=topic,
                partition=partition,
                offset=push.offset,
            )
            self._tell_again(push, outcome, user_metadata=False)
        else:
            self._hold(push, outcome, error)

    def _tell_again(self, push: Push, outcome: Outcome, *, user_metadata: bool = True) -> None:
        """As ``tell``, for greenlets that all apps share: what it raises blocks this app, and is tried again."""
        try:
            self.tell(push, outcome, user_metadata=user_metadata)
        except Exception as error:
            left_out = _seldom.turn(f"{self._topic} fault", "a feedback cannot be made")
            if left_out is not None:
                log.exception("a feedback cannot be made, the app waits", game=self._origin.game, **left_out)
                sentry.report_exception(None, game=self._origin.game)
            self._keep(push, outcome, f"a feedback cannot be made: {error!r}")

    def _hold(self, push: Push, outcome: Outcome, error: PublishError) -> None:
        kind = "missing or forbidden" if isinstance(error, TopicRefused) else "refused"
        self._keep(push, outcome, f"feedback topic {self._topic} {kind}: {error}")
        _seldom.error(
            self._topic,
            "feedback topic refuses records, the app waits: create the topic or allow writing",
            topic=self._topic,
            error=str(error),
        )

    def _keep(self, push: Push, outcome: Outcome, reason: str) -> None:
        self.blocked = reason
        self._refused.append((push, outcome))
        self._retry_at = self._clock() + _RETRY_S

    def _stored(self, stored: Callable[[], object], error: PublishError | None) -> None:
        if error is None:
            stored()
        else:
            _seldom.error(f"{self._topic} refuses", "message not fed back", topic=self._topic, error=str(error))
