"""The interface of a feedback reporter, which stores the outcomes of pushes and says when each is stored.

A reporter is a plug-in of the group ``pusher.feedback``: ``open_reporter(around) -> FeedbackReporter``, which does not
wait. ``feedback.reporters`` lists the reporters in use. A push is finished when all of them have stored its outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pusher.broker.interface import Done, Publisher
from pusher.push.topics import TopicName
from pusher.telemetry.stats import Stats

if TYPE_CHECKING:
    from pusher.config.kafka import BrokerSettings
    from pusher.config.values import Config

#: ``report(value, done)`` takes one outcome of an app, its feedback record as JSON. Never waits.
#:
#: The reporter calls ``done(None)`` when the outcome is stored, in any order. With ``done(PublishError("why, where"))``
#: it says that it cannot store the outcome now: the app waits, and the reporter gets the outcome again after a
#: back-off, until it is stored. After ``done(RecordTooLarge(...))`` it gets the outcome again without the producer's
#: metadata. An exception in ``report`` counts as an outcome that cannot be stored now.
Report = Callable[[bytes, Done], None]


class FeedbackReporter(Protocol):
    """Stores outcomes."""

    def for_app(self, name: TopicName) -> Report:
        """Returns the function that takes the outcomes of one app. Called once for each app; does not wait."""
        ...

    @property
    def full(self) -> bool:
        """Whether it can take no more outcomes now, so that consuming pauses. Never waits."""
        ...

    def check(self) -> str:
        """For ``--check``: returns a line if it can be used, else raises ``OSError`` with one line. May wait some s."""
        ...


class Around(NamedTuple):
    """What a process offers its reporters."""

    config: Config
    stats: Stats
    #: Returns the publisher of a broker, which all users of this broker share. Does not wait.
    publisher: Callable[[BrokerSettings], Publisher]
    #: ``spawn(name, run)`` starts ``run`` in a greenlet. When ``run`` ends, it is started again after a back-off.
    spawn: Callable[[str, Callable[[], object]], object]


OpenReporter = Callable[[Around], FeedbackReporter]
