"""What a feedback reporter is: it takes the outcomes of pushes somewhere and says when each is stored there.

The doors are in ``pusher.feedback``; ``feedback.reporters`` names those in use. A push is finished when every one of
them has stored its outcome. The object behind a door is ``open_reporter(around) -> FeedbackReporter``, which does
not wait.
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
#: ``done(None)`` is called once it is stored, in any order. ``done(PublishError("why, where"))`` says that it cannot
#: be stored now: the app is held up, and the outcome is given again after a back-off, for as long as it takes.
#: ``done(RecordTooLarge(...))`` has it given again without what the producer attached. What ``report`` raises counts as
#: an outcome that cannot be stored now.
Report = Callable[[bytes, Done], None]


class FeedbackReporter(Protocol):
    """Where outcomes go."""

    def for_app(self, name: TopicName) -> Report:
        """What takes the outcomes of one app. Asked once for each app; does not wait."""
        ...

    @property
    def full(self) -> bool:
        """Whether nothing more should be reported now, so that consuming pauses. Never waits."""
        ...

    def check(self) -> str:
        """For ``--check``: says that it can be used. May wait some seconds; raises ``OSError`` with one line if not."""
        ...


class Around(NamedTuple):
    """What a reporter has around it in its process."""

    config: Config
    stats: Stats
    #: The publisher of a broker, shared by all who publish there. Does not wait.
    publisher: Callable[[BrokerSettings], Publisher]
    #: ``spawn(name, run)`` starts ``run`` in a greenlet that begins again, after a back-off, when it ends.
    spawn: Callable[[str, Callable[[], object]], object]


OpenReporter = Callable[[Around], FeedbackReporter]
