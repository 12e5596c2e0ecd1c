"""The easy way to write a feedback reporter: a function that waits until a list of outcomes is stored."""

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

#: Outcomes that wait from which on consuming pauses.
_MOST_WAITING = 10_000


class Reported(NamedTuple):
    """The outcome of one push."""

    game: str
    platform: str
    #: JSON, as docs/feedbacks.md has it.
    value: bytes


class Storing:
    """A ``FeedbackReporter`` over ``store(feedbacks)``, which gets up to ``most`` outcomes at a time.

    ``store`` returns once all are stored, here to stay. What it raises has all of them given again later, so it should
    not mind getting one twice. It may wait as long as it lets others run. ``check`` is the one of ``FeedbackReporter``.
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
        """Whether so many wait that consuming should pause."""
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
            refusal: PublishError | None = PublishError("given up half-way")
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
            message, longest_s = "a feedback reporter lets nothing else run", round(watch.longest_s, 1)
            _seldom.error(self._name, message, reporter=self._name, longest_s=longest_s)
        return None
