"""Opens the lane of an app for its provider."""

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
    """Creates the lane of one app."""

    app: str
    platform: str
    hostname: str
    #: The reporters that get the outcomes; empty: outcomes are not reported.
    reporters: Sequence[FeedbackReporter]
    stats: Stats
    config: Config
    #: The rate limit and the search for duplicates; None: both are off.
    limits: Limits | None = None

    def __call__(
        self, client: str, parse: Parse[Any], make_feedback: MakeFeedback, retry: RetryPolicy, high_water: int
    ) -> Lane[Any]:
        """``client`` is a tag of the latency metric (such as the protocol); ``high_water`` is in pushes."""
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
    """Whether a parser must set the ``content`` of the app's pushes, by which duplicates are found."""
    return rules(config, platform, app).compares
