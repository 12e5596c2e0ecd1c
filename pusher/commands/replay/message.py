"""What replay must know about a record: its app, its target, and whether it can be sent at all.

Requests are read by the parser of the sender that would send them, so that an id here is the id in the feedback.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple

import orjson

from pusher.broker.interface import Record
from pusher.config.values import Config
from pusher.providers.provider import all_apps, provider, providers
from pusher.push import topics
from pusher.push.fields import InvalidMessage, Json
from pusher.push.origin import SOURCE_TOPIC_HEADER, origin
from pusher.push.push import Push, derived_id
from pusher.push.topics import TopicName

Key = bytes
#: As long as a 64 bit number can be.
_TIME_MS = re.compile(r"[0-9]{1,19}")


class Message(NamedTuple):
    """A record that may be sent again."""

    #: Of the id that its feedbacks carry.
    key: Key
    #: Of the record that was sent first: the same for all copies.
    origin_key: Key
    #: The topic that it goes to; "" where nothing says which.
    target: str
    token: str = ""
    #: Milliseconds since the epoch; 0: never.
    expires_ms: int = 0
    #: Why it did not end well, where its record says so: in lower case, the provider's word and ours.
    reasons: tuple[str, ...] = ()
    #: It can never be sent.
    invalid: bool = False


class Feedback(NamedTuple):
    """What a feedback says of a push."""

    id: str
    delivered: bool
    #: The provider's word and ours, in lower case.
    reasons: tuple[str, ...]
    token: str
    #: The token is dead.
    dead: bool


#: Reads a record.
Look = Callable[[Record], Message]
Parse = Callable[[bytes | None, str], Push]


def key_of(text: str) -> Key:
    """A digest of an id, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def origin_key_of(record: Record) -> Key:
    """The key of the record that was sent first."""
    return key_of(derived_id(origin(record)))


def origin_ms(record: Record) -> int:
    """When the record that was sent first was written, milliseconds since the epoch; -1 if it is unknown."""
    time_ms = origin(record).rpartition("/")[2]
    return int(time_ms) if _TIME_MS.fullmatch(time_ms) else -1


def parser_of(config: Config, name: TopicName) -> Parse:
    """How the sender of an app reads its requests."""
    return provider(name.platform).parser(config, name.game)


def read_request(record: Record, target: str, parse: Parse) -> Message:
    """A record of a topic of requests, or of an invalid topic, whose header says why it is there."""
    origin_key = origin_key_of(record)
    reason = _header(record, "error").partition(":")[0].lower()
    message = Message(origin_key, origin_key, target, reasons=(reason,))
    try:
        push = parse(record.value, origin(record))
    except InvalidMessage:
        return message._replace(invalid=True)
    return message._replace(key=key_of(push.id), token=push.token, expires_ms=push.expires_ms)


def read_held(record: Record, target: str) -> Message:
    """A feedback that the listener's guard has held."""
    origin_key = origin_key_of(record)
    feedback = read_feedback(record.value)
    message = Message(origin_key, origin_key, target)
    return message._replace(token=feedback.token, reasons=feedback.reasons) if feedback else message


def source_topic(record: Record) -> str:
    """The topic that a record of an invalid topic comes from; "" if it is unknown."""
    return _header(record, SOURCE_TOPIC_HEADER)


def target_name(config: Config, topic: str) -> TopicName | None:
    """Game and platform of a topic that a sender reads; None for any other."""
    name = topics.parse(topic, all_apps(config))
    return None if topics.is_written_by_pusher(topic) else name


def read_feedback(value: bytes | None) -> Feedback | None:
    """The outcome of a push; None for what is none, such as a receipt."""
    try:
        fields = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    for one in providers().values():
        told = one.told(fields)
        if told is not None:
            return Feedback(_text(told.id), told.delivered, _words(*told.reasons), _text(told.token), _is_dead(fields))
    return None


def _header(record: Record, name: str) -> str:
    """The text of the last header with that name; "" if there is none."""
    return dict(record.headers or ()).get(name, b"").decode("utf-8", "replace")


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _words(*words: Json) -> tuple[str, ...]:
    return tuple(word.lower() for word in words if isinstance(word, str))


def _is_dead(fields: dict[str, Json]) -> bool:
    metadata = fields.get("metadata")
    return isinstance(metadata, dict) and metadata.get("deleteToken") is True
