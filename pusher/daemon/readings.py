"""Reads the figures of ``telemetry/figures.py`` off the parts of a process. Never waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pusher.daemon.consuming import Consuming
from pusher.daemon.publishers import Publishers
from pusher.push import topics
from pusher.push.lane import Lane
from pusher.push.pipeline import Pipeline
from pusher.push.topics import TopicName
from pusher.telemetry import figures
from pusher.telemetry.health import Condition
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Sample

_DAY_S = 86_400.0
UNKNOWN = TopicName(topics.UNKNOWN, topics.UNKNOWN)


def of_kafka(
    consuming: Consuming, publishers: Publishers, name_of: Callable[[str], TopicName | None]
) -> Iterator[Sample]:
    """Lag and age of each owned partition, and what is on its way to Kafka."""
    for metric, values in (
        (figures.CONSUMER_LAG, consuming.source.lag()),
        (figures.OLDEST_UNFINISHED, consuming.oldest_s()),
    ):
        for (topic, partition), value in values.items():
            name = name_of(topic) or UNKNOWN
            yield Sample(metric, (name.platform, name.game, topic, str(partition)), value)
    yield Sample(figures.POLL_AGE, (), consuming.poll_age_s)
    yield Sample(figures.OUT_OF_RANGE, (), consuming.source.out_of_range.total())
    for address, pending in publishers.pending().items():
        yield Sample(figures.PUBLISHER_PENDING, (address,), pending)


def of_lane(lane: Lane[Any]) -> Iterator[Sample]:
    """The outcomes of an app's messages, and where its unfinished messages are."""
    tags = (lane.settings.platform, lane.settings.app)
    totals = lane.totals
    for kind, number in totals.outcomes.items():
        yield Sample(figures.OUTCOMES, (*tags, kind.value), number)
    yield from _of_app(
        tags,
        {
            figures.CONSUMED: totals.consumed,
            figures.DROPPED: totals.dropped,
            figures.IN_HAND: lane.in_hand,
            figures.INBOX: lane.waiting,
            figures.RETRIES_WAITING: len(lane.retries),
        },
    )


def of_unroutable(pipeline: Pipeline) -> Iterator[Sample]:
    """Messages of no app, all of which are invalid."""
    tags = (pipeline.platform, topics.UNKNOWN)
    if pipeline.unroutable:
        yield Sample(figures.CONSUMED, tags, pipeline.unroutable)
        yield Sample(figures.OUTCOMES, (*tags, "invalid"), pipeline.unroutable)


def of_service(tags: tuple[str, str], condition: Condition, in_flight: int, *, ready: bool) -> Iterator[Sample]:
    """An app's links and credentials; ``tags`` are platform and game."""
    yield from _of_app(
        tags,
        {
            figures.APP_READY: ready,
            figures.LINKS: condition.links,
            figures.IN_FLIGHT: in_flight,
            figures.CREDENTIALS_REFUSED: condition.refused,
        },
    )
    if condition.token_age_s is not None:
        yield Sample(figures.PROVIDER_TOKEN_AGE, tags, condition.token_age_s)
    if condition.certificate_ends_s is not None:
        yield Sample(figures.CERTIFICATE_EXPIRY, tags, (condition.certificate_ends_s - time.time()) / _DAY_S)
    if condition.pace_per_s is not None:
        yield Sample(figures.PACE, tags, condition.pace_per_s)
    if condition.quota_per_s is not None:
        yield Sample(figures.QUOTA, tags, condition.quota_per_s)


def of_not_ready(tags: tuple[str, str]) -> Sample:
    """An app that could not be set up, or of which no more is known."""
    return Sample(figures.APP_READY, tags, 0)


def _of_app(tags: tuple[str, str], values: dict[Metric, float]) -> Iterator[Sample]:
    for metric, value in values.items():
        yield Sample(metric, tags, value)
