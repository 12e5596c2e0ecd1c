"""A feedback reporter built from one function, which waits until a list of outcomes is stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from gevent.event import Event

from pusher.broker.interface import Done, PublishError
from pusher.push.reporter import Around, Report
from pusher.push.topics import TopicName
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.watch import Watch

_seldom = Seldom(logger(__name__), period_s=60)

#: When this many outcomes wait, consuming pauses.
_MOST_WAITING = 10_000


class Reported(NamedTuple):
    """The outcome of one push."""

    game: str
    platform: str
    #: JSON, see "Feedbacks" in docs/messages.md.
    value: bytes


class Storing:
    """A ``FeedbackReporter`` over ``store(feedbacks)``, which gets up to ``most`` outcomes at a time.

    ``store`` returns when all are durably stored. If it raises an exception, it gets all of them again later, so it
    must accept an outcome twice. It may wait, if other greenlets can run meanwhile. ``check``: see
    ``FeedbackReporter``.
    """

    def __init__(
        self,
        around: Around,
        name: str,
        store: Callable[[Sequence[Reported]], object],
        check: Callable[[], str],
        most: int = 500,
    ) -> None:
        self._name, self._store, self._check, self._most = name, store, check, most
        self._waiting: deque[tuple[Reported, Done]] = deque()
        self._work = Event()
        around.spawn(name, self._run)

    def for_app(self, name: TopicName) -> Report:
        """See ``FeedbackReporter``."""
        return partial(self._add, name)

    @property
    def full(self) -> bool:
        """Whether so many outcomes wait that consuming should pause."""
        return len(self._waiting) >= _MOST_WAITING

    def check(self) -> str:
        """See ``FeedbackReporter``."""
        return self._check()

    def _add(self, name: TopicName, value: bytes, done: Done) -> None:
        self._waiting.append((Reported(*name, value), done))
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            if not batch:
                self._work.clear()
                continue
            refusal: PublishError | None = PublishError("cancelled before it finished")
            try:
                refusal = self._try([feedback for feedback, _ in batch])
            finally:
                for _, done in batch:
                    done(refusal)

    def _try(self, feedbacks: Sequence[Reported]) -> PublishError | None:
        try:
            with Watch() as watch:
                self._store(feedbacks)
        except Exception as error:  # noqa: BLE001 - plugged in: whatever it raises is told to the app, which waits
            return PublishError(f"{type(error).__name__}: {error}".splitlines()[0])
        if watch.too_long:
            message, longest_s = "a feedback reporter blocks all other greenlets", round(watch.longest_s, 1)
            _seldom.error(self._name, message, reporter=self._name, longest_s=longest_s)
        return None
