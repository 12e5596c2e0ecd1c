"""A push request for Google: the JSON object of a Kafka message, checked field by field.

The fields and their order are those of Google's "XMPP protocol reference" (legacy). Names are matched without regard to
case, the keys in ``data`` excepted; unknown fields are dropped; null is as good as absent. FCM maps the same fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pusher.push.fields import (
    MAX_BODY_BYTES,
    MAX_TOKEN_CHARACTERS,
    InvalidMessage,
    Json,
    decode_expiry,
    decode_metadata,
    decode_object,
    encode,
    merge,
)
from pusher.push.push import Push, derived_id

#: Google's tokens have a colon in them, and a legacy target may be ``/topics/name`` with percent-encoded characters.
_TOKEN = re.compile(r"[A-Za-z0-9._~:/%-]+")
_MAX_MESSAGE_ID_CHARACTERS = 1_024


class Kind(NamedTuple):
    """What a field may hold."""

    types: frozenset[type]
    words: str
    #: A further condition.
    holds: Callable[[Json], bool] | None = None


# bool is an int to Python, but not to JSON, and not in these sets
_NUMBERS = frozenset((int, float))
_TEXT_OR_NUMBER = _NUMBERS | {str}


def _is_arguments(value: Json) -> bool:
    return isinstance(value, str) or all(type(item) in _TEXT_OR_NUMBER for item in value)


TEXT = Kind(frozenset((str,)), "a string")
FLAG = Kind(frozenset((bool,)), "a boolean")
SECONDS = Kind(frozenset((int,)), "a number of seconds", lambda value: value >= 0)
OBJECT = Kind(frozenset((dict,)), "an object")
ARGUMENTS = Kind(frozenset((str, list)), "a string or an array of strings", _is_arguments)
BADGE = Kind(_TEXT_OR_NUMBER, "a string or a number")
#: Checked where it is used.
ANY = Kind(frozenset((str, int, float, bool, dict, list)), "")

#: In the order in which XMPP sends them.
MESSAGE: Mapping[str, Kind] = {
    "to": TEXT,
    "message_id": TEXT,
    "message_type": TEXT,
    "collapse_key": TEXT,
    "priority": TEXT,
    "content_available": FLAG,
    "time_to_live": SECONDS,
    "delivery_receipt_requested": FLAG,
    "dry_run": FLAG,
    "data": OBJECT,
    "notification": OBJECT,
    # these two are for pusher alone
    "metadata": ANY,
    "push_expiry": ANY,
}
NOTIFICATION: Mapping[str, Kind] = {
    "title": TEXT,
    "body": TEXT,
    "sound": TEXT,
    "click_action": TEXT,
    "body_loc_key": TEXT,
    "body_loc_args": ARGUMENTS,
    "title_loc_key": TEXT,
    "title_loc_args": ARGUMENTS,
    "icon": TEXT,
    "tag": TEXT,
    "color": TEXT,
    "badge": BADGE,
    # these two are one field, which FCM alone knows
    "image_url": TEXT,
    "image": TEXT,
}
FCM_ALONE = ("image_url", "image")


class GcmPush(Push):
    """A push for Google over XMPP. ``body`` is the JSON of its stanza."""

    __slots__ = ("__weakref__", "body")

    body: bytes


def parse(value: bytes | None, origin: str) -> GcmPush:
    """The push that a record asks for. Never waits; raises ``InvalidMessage``."""
    push = GcmPush()
    push.body = encode(_for_xmpp(read(push, value, origin)))
    if len(push.body) > MAX_BODY_BYTES:
        raise InvalidMessage("payload-too-large", f"the message has {len(push.body)} bytes")
    return push


def read(push: Push, value: bytes | None, origin: str, kinds: Mapping[str, Kind] = MESSAGE) -> dict[str, Json]:
    """Sets the push's id, token, expiry and metadata; returns Google's fields, without empty ones.

    ``kinds`` is ``MESSAGE``, possibly with more: a ``condition`` among them may take the place of ``to``. That and
    ``message_id`` are always there. Metadata is merged into ``data``. Raises ``InvalidMessage``.
    """
    message = _fields(decode_object(value), kinds)
    push.metadata = decode_metadata(message.pop("metadata", None))
    push.expires_ms = decode_expiry(message.pop("push_expiry", None))
    push.token = message.get("condition") or _token(message.get("to"))
    push.id = message["message_id"] = _message_id(message.get("message_id")) or derived_id(origin)
    if push.metadata:
        data = message["data"] = message.get("data") or {}
        merge(push.metadata, data)
    notification = message.get("notification")
    if notification:
        message["notification"] = _without_empty(_fields(notification, NOTIFICATION, "notification."))
    return _without_empty(message)


def _for_xmpp(message: dict[str, Json]) -> dict[str, Json]:
    """In Google's order, without what FCM alone knows."""
    ordered = {name: message[name] for name in MESSAGE if name in message}
    given = ordered.get("notification", {})
    shown = {name: given[name] for name in NOTIFICATION if name in given and name not in FCM_ALONE}
    if shown:
        ordered["notification"] = shown
    else:
        ordered.pop("notification", None)
    return ordered


def _fields(given: dict[str, Json], kinds: Mapping[str, Kind], path: str = "") -> dict[str, Json]:
    """The known fields; of several spellings the last one wins."""
    found: dict[str, Json] = {}
    for spelling, value in given.items():
        name = spelling if spelling in kinds else spelling.lower()
        kind = kinds.get(name)
        if kind is None:
            continue
        if value is not None and (type(value) not in kind.types or (kind.holds and not kind.holds(value))):
            raise InvalidMessage(f"bad-{name.replace('_', '-')}", f"{path}{name} is not {kind.words}")
        found[name] = value
    return found


def _token(value: Json) -> str:
    if not value:
        raise InvalidMessage("missing-token", "to is missing")
    if len(value) > MAX_TOKEN_CHARACTERS or _TOKEN.fullmatch(value) is None:
        raise InvalidMessage("bad-token", "to has characters that no token has, or too many")
    return str(value)


def _message_id(value: Json) -> str:
    """It becomes an XML attribute, in which control characters are not allowed and white space does not survive."""
    if not value:
        return ""
    if len(value) > _MAX_MESSAGE_ID_CHARACTERS or not value.isprintable():
        raise InvalidMessage("bad-message-id", "message_id has control characters or is too long")
    return str(value)


def _without_empty(fields: dict[str, Json]) -> dict[str, Json]:
    # 0 says something: a time to live of none, a badge to be cleared
    return {name: value for name, value in fields.items() if value or type(value) in _NUMBERS}
