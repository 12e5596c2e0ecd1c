"""Handles feedbacks that the guard has stopped: publishes them unchanged to the held topic, or drops them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from pusher.broker.interface import Publisher, PublishError, RecordTooLarge
from pusher.listener.sorter import Dead
from pusher.push import topics
from pusher.push.topics import TopicName
from pusher.telemetry import metrics
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.stats import Stats

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: How often a feedback that the held topic refused is tried again.
_RETRY_S = 5.0


class Held:
    """The stopped feedbacks of one game and platform. Without a publisher they are dropped. Never waits."""

    def __init__(
        self,
        name: TopicName,
        hostname: str,
        publisher: Publisher | None,
        stats: Stats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topics.held_topic(name.game, name.platform)
        self._publisher, self._clock = publisher, clock
        self._held = stats.counter(metrics.GUARD_HELD, hostname, name.game, name.platform)
        self._dropped = stats.counter(metrics.GUARD_DROPPED, hostname, name.game, name.platform)
        self._refused: list[Dead] = []
        self._retry_at = 0.0
        #: Feedbacks that are neither stored nor given up.
        self.in_hand = 0
        #: Why the held topic takes nothing, one line; "" while it does.
        self.blocked = ""

    def take(self, stopped: Sequence[Dead]) -> None:
        """Holds or drops; each is finished when that is done."""
        self.in_hand += len(stopped)
        for one in stopped:
            if self._publisher is None:
                self._drop(one)
            else:
                self._publish(self._publisher, one)

    def tick(self) -> None:
        """About once a second: tries again what was refused."""
        if self._publisher is not None and self._refused and self._clock() >= self._retry_at:
            refused, self._refused = self._refused, []
            tried = 0
            try:
                for one in refused:
                    self._publish(self._publisher, one)
                    tried += 1
            finally:
                # should one fail, it and those behind it stay
                self._refused += refused[tried:]

    def _publish(self, publisher: Publisher, one: Dead) -> None:
        publisher.publish(
            self._topic, one.record.value or b"", partial(self._published, one), headers=one.record.headers or ()
        )

    def _published(self, one: Dead, error: PublishError | None) -> None:
        if error is None:
            self.blocked = ""
            self._held.add()
            self._finish(one)
        elif isinstance(error, RecordTooLarge):
            log.error("the held topic refused a feedback for its size; it stays in its source topic", **_where(one))
            self._drop(one)
        else:
            self.blocked = f"held topic {self._topic} refused: {error}"
            _seldom.error(
                self._topic,
                "the held topic refuses records: create it or allow writing",
                topic=self._topic,
                error=str(error),
            )
            self._refused.append(one)
            self._retry_at = self._clock() + _RETRY_S

    def _drop(self, one: Dead) -> None:
        self._dropped.add()
        self._finish(one)

    def _finish(self, one: Dead) -> None:
        self.in_hand -= 1
        one.finish()


def _where(one: Dead) -> dict[str, object]:
    topic, partition = one.tracker.key
    return {"topic": topic, "partition": partition, "offset": one.record.offset}
