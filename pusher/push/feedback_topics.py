"""The feedback reporter ``kafka``: each app has a topic at ``feedback.kafka.brokers``, Kafka or the embedded queue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pusher.broker import connect
from pusher.broker.interface import Publisher
from pusher.config import settings
from pusher.push import topics
from pusher.push.reporter import Around, Report
from pusher.push.topics import TopicName


class FeedbackTopics:
    """A ``FeedbackReporter`` over a publisher."""

    def __init__(self, publisher: Publisher, check: Callable[[], str] = lambda: "") -> None:
        self._publisher, self._check = publisher, check

    def for_app(self, name: TopicName) -> Report:
        """See ``FeedbackReporter``."""
        return partial(self._publisher.publish, topics.feedback_topic(*name))

    @property
    def full(self) -> bool:
        """Whether the publisher's buffer is full."""
        return self._publisher.full

    def check(self) -> str:
        """Whether the broker can be used."""
        return self._check()


def open_reporter(around: Around) -> FeedbackTopics:
    """The door's object. Raises ``StartError`` where the settings of the broker cannot be used."""
    at, config = settings.FEEDBACK_AT, around.config
    return FeedbackTopics(around.publisher(at), lambda: connect.broker(config, at).check())
