"""How a provider gets the lane of an app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pusher.config import settings
from pusher.config.values import Config
from pusher.push.feedbacks import MakeFeedback
from pusher.push.lane import Lane, LaneSettings, Parse
from pusher.push.limits.rules import rules
from pusher.push.reporter import FeedbackReporter
from pusher.push.retry import RetryPolicy
from pusher.telemetry.stats import Stats

if TYPE_CHECKING:
    from pusher.push.limits.limiter import Limits


@dataclass(frozen=True)
class OpenLane:
    """Makes the lane of one app."""

    app: str
    platform: str
    hostname: str
    #: Where outcomes are reported; none: nowhere.
    reporters: Sequence[FeedbackReporter]
    stats: Stats
    config: Config
    #: What keeps back pushes of devices that have had enough; None: nothing does.
    limits: Limits | None = None

    def __call__(
        self, client: str, parse: Parse[Any], make_feedback: MakeFeedback, retry: RetryPolicy, high_water: int
    ) -> Lane[Any]:
        """``client`` is a tag of the latency, which tells a platform's ways apart; ``high_water`` is in pushes."""
        how = LaneSettings(
            app=self.app,
            platform=self.platform,
            client=client,
            hostname=self.hostname,
            retry=retry,
            high_water=high_water,
            patience=self.config[settings.QUEUE.max_uncommitted] // 2,
            feedback_successes=self.config[settings.FEEDBACK_SUCCESSES],
        )
        lane: Lane[Any] = Lane(how, parse, make_feedback, self.reporters, self.stats)
        if self.limits is not None:
            lane.gate = self.limits.gate(lane)
        return lane


def compares(config: Config, platform: str, app: str) -> bool:
    """Whether a parser has to give the app's pushes their ``content``, by which duplicates are found."""
    return rules(config, platform, app).compares
