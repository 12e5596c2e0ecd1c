"""What a feedback says about its token: is it dead, and by a reason that a wrong set-up gives as well.

Nearly all feedbacks are successes and need no more than being finished, so ``Sorter.sort`` makes an object only of
those that name a dead token. Game and platform come from the topic, never from the message. Pure: never waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import orjson

from pusher.broker.interface import Record
from pusher.broker.offsets import Tracker
from pusher.config.settings import PLATFORMS
from pusher.providers.provider import provider
from pusher.push import topics
from pusher.push.fields import InvalidMessage, Json
from pusher.push.topics import TopicName

#: Shapes of feedbacks, as the names of their fields, that are remembered.
_SHAPES = 1_000
#: Ours have some 100; what others write must not stay in memory.
_MAX_SHAPE_CHARACTERS = 500
_NAME = re.compile(r"push-(.+)[-_](" + PLATFORMS + ")" + topics.FEEDBACKS, re.DOTALL)

#: Names of fields. None stands for one that is absent: no name in JSON equals it.
Shape = tuple[str | None, ...]


class Dead(NamedTuple):
    """A token that its provider calls dead, and the feedback that says so."""

    token: str
    reason: str
    #: A wrong topic or environment makes the provider say this of tokens that are alive.
    doubtful: bool
    tracker: Tracker
    record: Record

    def finish(self) -> None:
        """The token was dealt with."""
        self.tracker.finish(self.record.offset)


class Sorted(NamedTuple):
    """Feedbacks of one partition, sorted."""

    dead: list[Dead]
    #: Offsets of those that ask for nothing.
    others: list[int]
    successes: int
    doubtful: int
    invalid: list[tuple[Record, InvalidMessage]]


class Sorter:
    """Reads the feedbacks of one platform."""

    def __init__(self, platform: str) -> None:
        self._rules = provider(platform).rules
        #: The names of a feedback's fields -> those of its reason, token and sign of success; None where it has none.
        self._shapes: dict[Shape, tuple[str | None, str | None, str | None]] = {}

    def sort(self, tracker: Tracker, records: Sequence[Record]) -> Sorted:
        """Sorts feedbacks of one partition."""
        found = Sorted([], [], 0, 0, [])
        dead_reasons, (_, success) = self._rules.dead, self._rules.success
        successes = doubtful_ones = 0
        for record in records:
            try:
                fields = decode(record.value)
                reason_name, token_name, success_name = self._names(tuple(fields))
                reason = fields.get(reason_name)
                doubtful = dead_reasons.get(reason) if type(reason) is str else None
                if doubtful is None:
                    successes += not reason and fields.get(success_name) == success
                    found.others.append(record.offset)
                else:
                    found.dead.append(Dead(_token(fields.get(token_name)), str(reason), doubtful, tracker, record))
                    doubtful_ones += doubtful
            except InvalidMessage as error:
                found.invalid.append((record, error))
        return found._replace(successes=successes, doubtful=doubtful_ones)

    def _names(self, shape: Shape) -> tuple[str | None, str | None, str | None]:
        names = self._shapes.get(shape)
        if names is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            rules = self._rules
            lower = {name.lower(): name for name in shape if name is not None}
            names = (lower.get(rules.reason), lower.get(rules.token), lower.get(rules.success[0]))
            if sum(len(name) for name in lower) <= _MAX_SHAPE_CHARACTERS:
                self._shapes[shape] = names
        return names


def decode(value: bytes | None) -> dict[str | None, Json]:
    """The JSON object in a feedback; null is one without fields. Raises ``InvalidMessage``."""
    try:
        fields = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        fields = _decode_unusual(value or b"")
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise InvalidMessage("not-an-object", f"the feedback is a JSON {type(fields).__name__}, not an object")
    return fields


def _decode_unusual(value: bytes) -> Json:
    """What orjson refuses and other programs write: lone surrogates, NaN."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("not-json", f"not JSON: {type(error).__name__}") from None


def _token(value: Json) -> str:
    if not isinstance(value, str):
        raise InvalidMessage("bad-token", "the token of a dead device is not a string")
    if not value:
        raise InvalidMessage("missing-token", "a device is dead, but the token is missing")
    return value


def topic_name(topic: str, apps: Collection[str]) -> TopicName | None:
    """Game and platform of a feedback topic; None when it is none.

    Where a name can be split in several ways a configured app decides; else the end, for senders write it last.
    """
    if not topic.endswith(topics.FEEDBACKS):
        return None
    name = topics.parse(topic, apps)
    if name is None or name.game in apps:
        return name
    found = _NAME.fullmatch(topic)
    return TopicName(found.group(1), found.group(2)) if found else name
