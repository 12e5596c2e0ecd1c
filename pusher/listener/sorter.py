"""Decides whether a feedback's token is dead, and whether a wrong configuration also causes its reason.

Nearly all feedbacks are successes and only need to be finished, so ``Sorter.sort`` creates an object only for those
that name a dead token. Game and platform come from the topic, never from the message. Pure: never waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from pusher.broker.interface import Record
from pusher.broker.offsets import Tracker
from pusher.config.doors import PLATFORMS
from pusher.providers.provider import provider
from pusher.push import topics
from pusher.push.fields import InvalidMessage, Json
from pusher.push.origin import has_origin
from pusher.push.topics import TopicName

#: Shapes of feedbacks, as the names of their fields, that are remembered.
_SHAPES = 1_000
#: Ours have some 100; what others write must not stay in memory.
_MAX_SHAPE_CHARACTERS = 500
_NAME = re.compile(r"push-(.+)[-_](" + PLATFORMS + ")" + topics.FEEDBACKS, re.DOTALL)

#: Names of fields. None stands for one that is absent: no name in JSON equals it.
Shape = tuple[str | None, ...]
Fields = dict[str | None, Json]


class Dead(NamedTuple):
    """A token that its provider calls dead, and the feedback that says so."""

    token: str
    reason: str
    #: A wrong topic or environment makes the provider say this of tokens that are alive.
    doubtful: bool
    tracker: Tracker
    record: Record
    #: When that was known, in ms since the epoch: the provider's time, else the sender's, else the record's.
    told_ms: int = 0
    #: It was replayed from the held topic, after a review: the guard does not hold it again.
    released: bool = False

    def finish(self) -> None:
        """The token was dealt with."""
        self.tracker.finish(self.record.offset)


class Sorted(NamedTuple):
    """Feedbacks of one partition, sorted. Numbers are without those that were released."""

    dead: list[Dead]
    #: Offsets of those that ask for nothing.
    others: list[int]
    invalid: list[tuple[Record, InvalidMessage]]
    successes: int = 0
    doubtful: int = 0
    proven: int = 0


class Names(NamedTuple):
    """How a feedback spells the fields that are looked at; None for one that it does not have."""

    reason: str | None
    token: str | None
    success: str | None
    metadata: str | None
    timestamp: str | None


class Sorter:
    """Reads the feedbacks of one platform."""

    def __init__(self, platform: str) -> None:
        self._rules = rules = provider(platform).rules
        self._plain = Names(rules.reason, rules.token, rules.success[0], "metadata", "timestamp")
        #: The names of a feedback's fields -> those that are looked at; None where one is spelled in several ways.
        self._shapes: dict[Shape, Names | None] = {}

    def sort(self, tracker: Tracker, records: Sequence[Record]) -> Sorted:
        """Sorts feedbacks of one partition."""
        found = Sorted([], [], [])
        dead_reasons, (_, success) = self._rules.dead, self._rules.success
        successes = 0
        for record in records:
            try:
                fields = decode(record.value)
                names = self._names(tuple(fields))
                reason = fields.get(names.reason) if names is not None else None
                if reason is None and (names is None or names.reason is not None):
                    fields, names = decode_exactly(record.value), self._plain
                    reason = fields.get(names.reason)
                if names is not None and type(reason) is str and reason in dead_reasons:
                    self._put_dead(found, tracker, record, fields, names)
                else:
                    successes += not reason and names is not None and fields.get(names.success) == success
                    found.others.append(record.offset)
            except InvalidMessage as error:
                found.invalid.append((record, error))
        judged = [one.doubtful for one in found.dead if not one.released]
        doubtful_ones = sum(judged)
        return found._replace(successes=successes, doubtful=doubtful_ones, proven=len(judged) - doubtful_ones)

    def _put_dead(self, found: Sorted, tracker: Tracker, record: Record, fields: Fields, names: Names) -> None:
        value = record.value or b""
        if fields.get(names.token) is None or value.count(b'"%s"' % str(names.metadata).encode()) > 1:
            fields, names = decode_exactly(value), self._plain
        reason, metadata = fields[names.reason], fields.get(names.metadata)
        facts = metadata if isinstance(metadata, dict) else {}
        # Who writes no metadata marks nothing; who does marks each token that is to be deleted.
        if reason in self._rules.marked and facts and facts.get("deleteToken") is not True:
            found.others.append(record.offset)
            return
        found.dead.append(
            Dead(
                _token(fields.get(names.token)),
                reason,
                self._rules.dead[reason],
                tracker,
                record,
                _told_ms(facts.get("unregisteredAt"), fields.get(names.timestamp), record.timestamp),
                bool(record.headers) and has_origin(record),
            )
        )

    def _names(self, shape: Shape) -> Names | None:
        if shape in self._shapes:
            return self._shapes[shape]
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        spelled = [name for name in shape if name is not None]
        lower = {name.lower(): name for name in spelled}
        names = Names(*(lower.get(str(name)) for name in self._plain)) if len(lower) == len(spelled) else None
        if sum(len(name) for name in lower) <= _MAX_SHAPE_CHARACTERS:
            self._shapes[shape] = names
        return names


def decode(value: bytes | None) -> Fields:
    """The JSON object in a feedback; null is one without fields. Raises ``InvalidMessage``."""
    try:
        fields = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return decode_exactly(value)
    return _object(fields)


def decode_exactly(value: bytes | None) -> Fields:
    """The same slowly, with names in lower case.

    Of a field that is given twice, in whatever spelling, the last that is not null holds; of ``metadata`` all are
    merged. Bytes that are not UTF-8 become U+FFFD. Takes NaN, which other programs write. Raises ``InvalidMessage``.
    """
    outermost: list[tuple[str, Json]] = []

    def note(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        nonlocal outermost
        outermost = pairs  # the last object that ends is the one around all others
        return dict(pairs)

    try:
        fields = _object(json.loads((value or b"").decode("utf-8", "replace"), object_pairs_hook=note))
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("not-json", f"not JSON: {type(error).__name__}") from None
    return _merged(outermost) if fields else {}


def _object(value: Json) -> Fields:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidMessage("not-an-object", f"the feedback is a JSON {type(value).__name__}, not an object")
    return value


def _merged(pairs: Sequence[tuple[str, Json]]) -> Fields:
    fields: Fields = {}
    for name, value in pairs:
        low = name.lower()
        before = fields.get(low)
        if low == "metadata" and isinstance(value, dict) and isinstance(before, dict):
            value = {**before, **value}
        if value is not None or before is None:
            fields[low] = value
    return fields


def _told_ms(provider_ms: Json, sender_s: Json, written_ms: int) -> int:
    if type(provider_ms) is int and provider_ms > 0:
        return provider_ms
    return sender_s * 1000 if type(sender_s) is int and sender_s > 0 else written_ms


def _token(value: Json) -> str:
    if not isinstance(value, str):
        raise InvalidMessage("bad-token", "the token of a dead device is not a string")
    if not value:
        raise InvalidMessage("missing-token", "a device is dead, but the token is missing")
    # Half a character, which cannot be encoded, becomes U+FFFD.
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def topic_name(topic: str) -> TopicName | None:
    """Game and platform of a feedback topic, as senders name it; None for any other.

    The end decides, whatever a game is called: a topic of one game never deletes from the table of another.
    """
    found = _NAME.fullmatch(topic)
    return TopicName(found.group(1), found.group(2)) if found else None
