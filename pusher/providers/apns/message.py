"""A push request for Apple: the JSON object of a Kafka message made ready to send.

Fields: ``DeviceToken``, ``Payload``, ``metadata``, ``push_expiry`` (ms), ``collapse_id``, and ``push_type``,
``priority``, ``topic`` for the headers of the same names. Headers: Apple, "Sending notification requests to APNs".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pusher.providers.http2.connection import literal_field
from pusher.push.fields import (
    MAX_BODY_BYTES,
    InvalidMessage,
    Json,
    decode_expiry,
    decode_metadata,
    decode_object,
    decode_token,
    encode,
    merge,
)
from pusher.push.push import Push, derived_id

#: Appended to the app's topic for these push types.
TOPIC_SUFFIX = {
    "voip": ".voip",
    "complication": ".complication",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "pushtotalk": ".voip-ptt",
    "fileprovider": ".pushkit.fileprovider",
    "controls": ".push-type.controls",
    "widgets": ".push-type.widgets",
}
_FIELDS = ("devicetoken", "payload", "metadata", "push_expiry", "collapse_id", "push_type", "priority", "topic")
#: By the usual spelling and in lower case.
_PLACES = {name: place for place, name in enumerate(_FIELDS)} | {"DeviceToken": 0, "Payload": 1}
_PRIORITIES = {1: b"1", 5: b"5", 10: b"10", "1": b"1", "5": b"5", "10": b"10"}
#: Apple takes 64 bytes and answers BadCollapseId above; this only keeps a header block in bounds.
_MAX_COLLAPSE_ID_BYTES = 1_024
#: Apple may have new ones; this only keeps a header in bounds.
_PUSH_TYPE = re.compile(r"[A-Za-z]{1,64}")
_TOPIC_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")


class Kind(NamedTuple):
    """The header fields that many pushes share."""

    topic: bytes
    push_type: bytes
    #: b"" leaves the header out.
    priority: bytes


class ApnsPush(Push):
    """A push for Apple, with the parts of its request."""

    __slots__ = ("body", "kind", "literals", "path")

    body: bytes
    kind: Kind
    literals: bytes
    path: bytes


class ApnsParser:
    """Makes pushes from the requests of one app. ``topic`` is the app's own, "" for none. Never waits."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def __call__(self, value: bytes | None, origin: str) -> ApnsPush:
        """Raises ``InvalidMessage``."""
        token, payload, metadata, expiry, collapse_id, push_type, priority, topic = _fields(value)
        push = ApnsPush()
        push.token = decode_token(token, "DeviceToken")
        push.metadata = decode_metadata(metadata)
        push.expires_ms = decode_expiry(expiry)
        if push.metadata is not None:
            payload = _merged(payload, push.metadata)
        push.body = encode(payload)
        if len(push.body) > MAX_BODY_BYTES:
            raise InvalidMessage("payload-too-large", f"the payload has {len(push.body)} bytes")
        push.kind = self._kind(payload, push_type, priority, topic)
        push.id = derived_id(origin)
        push.path = b"/3/device/" + push.token.encode()
        push.literals = _literals(push.id, push.expires_ms, collapse_id)
        return push

    def _kind(self, payload: Json, push_type: Json, priority: Json, topic: Json) -> Kind:
        if push_type is None or push_type == "":
            push_type = _push_type(payload)
        elif not isinstance(push_type, str) or _PUSH_TYPE.fullmatch(push_type) is None:
            raise InvalidMessage("bad-push-type", "push_type is not one of Apple's")
        if topic is None or topic == "":
            topic = self._topic and self._topic + TOPIC_SUFFIX.get(push_type, "")
        elif not isinstance(topic, str) or not _TOPIC_CHARACTERS.issuperset(topic) or len(topic) > 255:
            raise InvalidMessage("bad-topic", "topic is not a bundle identifier")
        return Kind(topic.encode(), push_type.encode(), _priority(priority, push_type))


def _fields(value: bytes | None) -> list[Json]:
    """The known fields, whatever the case of their names; of several spellings the last one wins."""
    found: list[Json] = [None] * len(_FIELDS)
    for name, field in decode_object(value).items():
        place = _PLACES.get(name)
        if place is None:
            place = _PLACES.get(name.lower())
        if place is not None:
            found[place] = field
    return found


def _merged(payload: Json, metadata: dict[str, Json]) -> Json:
    """Metadata goes to the device in the payload's member ``M``; values that are there already stay."""
    if payload is None:
        payload = {}
    if isinstance(payload, dict):
        if payload.get("M") is None:
            payload["M"] = {}
        if isinstance(payload["M"], dict):
            merge(metadata, payload["M"])
    return payload


def _push_type(payload: Json) -> str:
    aps = payload.get("aps") if isinstance(payload, dict) else None
    if not isinstance(aps, dict) or "content-available" not in aps:
        return "alert"
    return "alert" if "alert" in aps or "badge" in aps or "sound" in aps else "background"


def _priority(priority: Json, push_type: str) -> bytes:
    if priority is None or priority == "":
        return b"5" if push_type == "background" else b""
    # bool is an int, and 1.0 equals 1: neither is a priority.
    if type(priority) not in (int, str) or priority not in _PRIORITIES:
        raise InvalidMessage("bad-priority", "priority is none of 1, 5 and 10")
    return _PRIORITIES[priority]


def _literals(apns_id: str, expires_ms: int, collapse_id: Json) -> bytes:
    """The header fields that differ from push to push."""
    literals = _APNS_ID + apns_id.encode()
    if expires_ms:
        literals += literal_field(b"apns-expiration", b"%d" % (expires_ms // 1000))
    if collapse_id is None or collapse_id == "":
        return literals
    if not isinstance(collapse_id, str):
        raise InvalidMessage("bad-collapse-id", "collapse_id is not a string")
    value = collapse_id.encode()
    if len(value) > _MAX_COLLAPSE_ID_BYTES or not collapse_id.isprintable():
        raise InvalidMessage("bad-collapse-id", "collapse_id has control characters or is too long")
    return literals + literal_field(b"apns-collapse-id", value)


#: An id always has 36 characters, so that all but the id itself is the same in every request.
_APNS_ID = literal_field(b"apns-id", b"0" * 36)[:-36]
