"""The request of a replay, checked against the settings: its source, its target, and the facts that decide.

Three kinds of topics can be replayed: requests; invalid messages, which go back to the topics that they came from; and
feedbacks that the listener's guard has held, which go back to the feedback topic.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

from pusher.broker.interface import Broker, Record
from pusher.commands.replay.message import (
    Look,
    Message,
    Parse,
    parser_of,
    read_held,
    read_request,
    source_topic,
    target_name,
)
from pusher.commands.replay.places import Range
from pusher.config import settings
from pusher.config.settings import QueueSettings
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.listener import settings as listener_settings
from pusher.providers.provider import words
from pusher.push import topics
from pusher.push.limits.rules import rules
from pusher.push.topics import TopicName


class TopicKind(enum.Enum):
    """The kind of a topic that is replayed."""

    REQUESTS = "requests"
    INVALID = "invalid messages"
    HELD = "held feedbacks"


@dataclass(frozen=True)
class Filters:
    """Which messages of the range."""

    failed: bool = False
    #: In lower case; none: any.
    reasons: frozenset[str] = frozenset()
    missing_feedback: bool = False
    #: With ``missing_feedback``: also those that may have been limited.
    limited: bool = False
    token_prefix: str = ""
    #: Also those that were replayed before.
    again: bool = False

    @property
    def by_feedback(self) -> bool:
        """Whether the outcome decides."""
        return self.failed or self.missing_feedback or bool(self.reasons)


@dataclass(frozen=True)
class Job:
    """A replay. ``feedback_broker`` and ``group`` are those of the settings unless they are given."""

    config: Config
    range: Range
    source: TopicKind
    filters: Filters
    group: str
    feedback_broker: Broker
    to_topic: str = ""
    #: The new expiry, from the moment of sending; None: messages keep theirs.
    expiry_s: float | None = None

    def __post_init__(self) -> None:
        """Raises ``StartError`` where something cannot be done or must not."""
        self._check_target()
        if self.source is not TopicKind.REQUESTS and (self.filters.failed or self.filters.missing_feedback):
            raise StartError(
                f"{self.range.topic} contains {self.source.value}: use only --reason and --token-prefix there"
            )
        if self.source is TopicKind.HELD and self.expiry_s is not None:
            raise StartError("--expiry-seconds: a feedback does not expire")
        if self.needs_feedbacks and not self.config[settings.FEEDBACK_REPORTERS]:
            raise StartError("feedback.reporters is empty: messages have no feedback")
        if self.filters.missing_feedback and not self.config[settings.FEEDBACK_SUCCESSES]:
            raise StartError("feedback.successes is false: a message without feedback may have been delivered")

    @property
    def needs_feedbacks(self) -> bool:
        """Whether the feedback topic is to be read; elsewhere the record itself says what its reason is."""
        return self.source is TopicKind.REQUESTS and self.filters.by_feedback

    @cached_property
    def look(self) -> Look:
        """Reads a record of the range."""
        target = self.to_topic or self.range.topic
        if self.source is TopicKind.HELD:
            held_target = self.to_topic or self.range.topic.removesuffix(topics.HELD) + topics.FEEDBACKS
            return lambda record: read_held(record, held_target)
        if self.source is TopicKind.REQUESTS:
            parse = self._parser(target)
            return lambda record: read_request(record, target, parse)
        return _InvalidLook(self)

    @cached_property
    def may_be_limited(self) -> bool:
        """Whether a message without feedback may be one that its device was not to get."""
        name = self._name(self.range.topic)
        return not self.filters.limited and rules(self.config, name.platform, name.game).refuses

    @property
    def feedback_topic(self) -> str:
        """Where the outcomes of the range's messages are."""
        return topics.feedback_topic(*self._name(self.range.topic))

    @property
    def invalid_topic(self) -> str:
        """Where those are that can never be sent; "" for nowhere."""
        return topics.fill(self.config[settings.QUEUE_INVALID_TOPIC], self._name(self.range.topic))

    def expires_ms(self, now_ms: float) -> int:
        """The new expiry of what is sent now; 0: messages keep theirs."""
        return 0 if self.expiry_s is None else int(now_ms + self.expiry_s * 1000)

    def feedback_tells(self, target: str) -> bool:
        """Whether the outcome of a copy decides about another copy; otherwise a message is copied only once."""
        if self.filters.again:
            return True
        same = self.needs_feedbacks and self._name(target) == self._name(self.range.topic)
        return same and self.config[settings.FEEDBACK_SUCCESSES]

    def _check_target(self) -> None:
        if self.source is TopicKind.HELD:
            if self.to_topic and not self.to_topic.endswith(topics.FEEDBACKS):
                raise StartError(f"--to-topic {self.to_topic}: held feedbacks can only go to a topic of feedbacks")
        elif self.to_topic or self.source is TopicKind.REQUESTS:
            target = self._name(self.to_topic or self.range.topic)
            came_from = target_name(self.config, self.range.topic)
            if came_from and came_from.platform != target.platform:
                raise StartError(f"--to-topic {self.to_topic}: the messages are for {came_from.platform}")

    def _name(self, topic: str) -> TopicName:
        name = target_name(self.config, topic)
        if name is None:
            raise StartError(f"{topic} is not a topic of requests: push-<game>_<{' or '.join(words())}>...")
        return name

    def _parser(self, target: str) -> Parse:
        return parser_of(self.config, self._name(target))


class _InvalidLook:
    """Reads records of an invalid topic, each with the parser of the topic that it came from."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parsers: dict[str, Parse | None] = {}

    def __call__(self, record: Record) -> Message:
        """A record whose source topic no sender reads has no target."""
        target = self._job.to_topic or source_topic(record)
        if target not in self._parsers:
            name = target_name(self._job.config, target)
            self._parsers[target] = parser_of(self._job.config, name) if name else None
        parse = self._parsers[target]
        if parse is None:
            return Message(b"", b"", "")
        return read_request(record, target, parse)


def source_of(config: Config, topic: str) -> TopicKind:
    """The kind of a topic. Raises ``StartError`` for a topic that cannot be replayed."""
    template = config[settings.QUEUE_INVALID_TOPIC]
    if topic.endswith(topics.HELD):
        return TopicKind.HELD
    if topic.endswith(topics.INVALID) or topic == template:
        return TopicKind.INVALID
    if topic.endswith(topics.FEEDBACKS):
        raise StartError(f"{topic} contains outcomes, which cannot be sent again: replay the topic of their requests")
    return TopicKind.REQUESTS


def queue_of(source: TopicKind) -> QueueSettings:
    """The group that reads the targets."""
    return listener_settings.QUEUE if source is TopicKind.HELD else settings.QUEUE
