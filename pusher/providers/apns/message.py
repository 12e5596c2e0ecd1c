"""A push request for Apple: the JSON object of a Kafka message made ready to send.

Fields: ``DeviceToken``, ``Payload``, ``metadata``, ``push_expiry`` (ms), ``collapse_id``, and ``push_type``,
``priority``, ``topic``, ``expiration`` (s) for the headers of the same names. An optional field of a wrong kind refuses
no push: it is left out, with a warning. ``channel_id`` in place of ``DeviceToken`` makes it a broadcast to all who
follow a Live Activity. Headers: Apple, "Sending notification requests to APNs" and "Sending broadcast push notification
requests to APNs".
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

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
from pusher.push.limits.content import canonical
from pusher.push.push import Push, derived_id
from pusher.telemetry.log import Seldom, logger

_seldom = Seldom(logger(__name__), period_s=60)

#: How the topic of a push type ends (Apple's table of push types).
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
_TYPE_OF_SUFFIX = {suffix: push_type for push_type, suffix in TOPIC_SUFFIX.items()}
_SUFFIXES = tuple(_TYPE_OF_SUFFIX)
#: Topics of certificates for device management (Apple, "Setting up push notifications for your MDM customers").
_MDM_TOPICS = "com.apple.mgmt."
_FIELDS = (
    "devicetoken",
    "payload",
    "metadata",
    "push_expiry",
    "collapse_id",
    "push_type",
    "priority",
    "topic",
    "expiration",
    "channel_id",
)
_METADATA = _FIELDS.index("metadata")
#: By the usual spelling and in lower case.
_PLACES = {name: place for place, name in enumerate(_FIELDS)} | {"DeviceToken": 0, "Payload": 1}
_PRIORITIES = {1: b"1", 5: b"5", 10: b"10", "1": b"1", "5": b"5", "10": b"10", "high": b"10", "normal": b"5"}
#: Apple takes 64 bytes and answers BadCollapseId above; this only keeps a header block in bounds.
_MAX_COLLAPSE_ID_BYTES = 1_024
#: Apple may have new ones; this only keeps a header in bounds.
_PUSH_TYPE = re.compile(r"[A-Za-z]{1,64}")
_TOPIC_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
_MAX_TOPIC_CHARACTERS = 255
#: Base64, of either alphabet; Apple: "don't make assumptions on the channel ID size".
CHANNEL_ID = re.compile(r"[A-Za-z0-9+/_-]{1,1024}={0,2}")
#: The only type of a broadcast.
_BROADCAST_TYPE = "liveactivity"
#: Far above any moment that Apple knows.
_MAX_EXPIRATION_S = 2**40
_WHOLE_NUMBER = re.compile(r"\s*([0-9]{1,13})(?:\.0*)?\s*", re.ASCII)


class SharedHeaders(NamedTuple):
    """The header fields that many pushes share."""

    topic: bytes
    push_type: bytes
    #: b"" leaves the header out.
    priority: bytes
    #: The topic is the app's own, not one that the message chose; and so is the push type.
    own_topic: bool = True
    own_type: bool = True
    #: The topic stands in the path, not in a header.
    broadcast: bool = False
    #: What Apple says of the credentials it says of the app: its own topic, as it is configured, is a device's.
    of_app: bool = True


class ApnsPush(Push):
    """A push for Apple, with the parts of its request. ``token`` is its target: a device token or a channel's id."""

    __slots__ = ("body", "kind", "literals", "path")

    body: bytes
    kind: SharedHeaders
    literals: bytes
    path: bytes


class ApnsParser:
    """Makes pushes from the requests of one app. ``topic`` is the app's own, "" for none. Never waits.

    ``compares``: pushes are given their ``content``.
    """

    def __init__(self, topic: str, app: str = "", *, compares: bool = False) -> None:
        self._topic, self._app, self._compares = topic, app, compares
        #: Of messages that choose nothing, which most are, by push type.
        self._usual: dict[str, SharedHeaders] = {}

    def __call__(self, value: bytes | None, origin: str) -> ApnsPush:
        """Raises ``InvalidMessage``."""
        token, payload, metadata, expiry, collapse_id, push_type, priority, topic, expiration, channel = _fields(value)
        push = ApnsPush()
        if channel is not None and token:
            self._left_out("channel_id", "is given together with DeviceToken")
            channel = None
        push.token = decode_token(token, "DeviceToken") if channel is None else _channel_id(channel)
        push.metadata = decode_metadata(metadata)
        push.expires_ms = decode_expiry(expiry)
        if self._compares:
            push.content = self._content(payload)
        if channel is not None:
            push.kind = self._broadcast(push_type, priority, topic)
        elif push_type is priority is topic is None:
            push.kind = self._usual_kind(payload)
        else:
            push.kind = self._kind(payload, push_type, priority, topic)
        if push.metadata is not None and push.kind.push_type != b"mdm":
            payload = _merged(payload, push.metadata)
        push.body = encode(payload)
        if len(push.body) > MAX_BODY_BYTES:
            raise InvalidMessage("payload-too-large", f"the payload has {len(push.body)} bytes")
        push.id = derived_id(origin)
        expiration_s = push.expires_ms // 1000 if push.expires_ms else None
        if expiration is not None:
            expiration_s = self._expiration_s(expiration, expiration_s)
        if channel is None:
            push.path = b"/3/device/" + push.token.encode()
            push.literals = self._literals(push, collapse_id, expiration_s)
        else:
            push.path = b"/4/broadcasts/apps/" + push.kind.topic
            push.literals = _broadcast_literals(push, expiration_s)
            if collapse_id:
                self._left_out("collapse_id", "is not for broadcasts")
        return push

    def _content(self, payload: Json) -> bytes:
        """What a device is shown; b"" where that is nothing to compare."""
        if isinstance(payload, str):
            return payload.encode()
        aps = payload.get("aps") if isinstance(payload, dict) else None
        if aps is None:
            _seldom.warning((self._app, "aps"), "a push without aps is not checked for duplicates", game=self._app)
            return b""
        return canonical(aps)

    def _broadcast(self, push_type: Json, priority: Json, topic: Json) -> SharedHeaders:
        """Raises ``InvalidMessage`` if the app's bundle id is unknown."""
        if push_type and str(push_type).lower() != _BROADCAST_TYPE:
            self._left_out("push_type", "is not that of a broadcast")
        topic, own_topic = self._chosen_topic(topic)
        topic = topic.removesuffix(TOPIC_SUFFIX[_BROADCAST_TYPE])
        if not topic:
            raise InvalidMessage("missing-topic", "a broadcast needs the bundle id of its app")
        # Apple wants a priority, and takes it for 10 where a push to a device has none
        given = self._priority(priority, _BROADCAST_TYPE) or b"10"
        push_type = _BROADCAST_TYPE.encode()
        return SharedHeaders(topic.encode(), push_type, given, own_topic, own_type=False, broadcast=True, of_app=False)

    def _usual_kind(self, payload: Json) -> SharedHeaders:
        push_type = _push_type(self._topic, payload)
        try:
            return self._usual[push_type]
        except KeyError:
            kind = self._usual[push_type] = self._kind(payload, None, None, None)
            return kind

    def _kind(self, payload: Json, push_type: Json, priority: Json, topic: Json) -> SharedHeaders:
        topic, own_topic = self._chosen_topic(topic)
        own_type = False
        push_type = _trimmed(push_type)
        if isinstance(push_type, str) and _PUSH_TYPE.fullmatch(push_type):
            push_type = push_type.lower()
        else:
            if push_type is not None and push_type != "":
                self._left_out("push_type", "is not one of Apple's")
            push_type, own_type = _push_type(topic, payload), True
        suffix, of_app = TOPIC_SUFFIX.get(push_type), own_topic
        if suffix is not None and own_topic and topic and not topic.endswith(suffix):
            topic += suffix
            of_app = False
        given = self._priority(priority, push_type)
        return SharedHeaders(topic.encode(), push_type.encode(), given, own_topic, own_type, False, of_app)

    def _chosen_topic(self, topic: Json) -> tuple[str, bool]:
        topic = _trimmed(topic)
        if topic is None or topic == "":
            return self._topic, True
        if isinstance(topic, str) and _TOPIC_CHARACTERS.issuperset(topic) and len(topic) <= _MAX_TOPIC_CHARACTERS:
            return topic, topic == self._topic
        self._left_out("topic", "is not a bundle identifier")
        return self._topic, True

    def _priority(self, priority: Json, push_type: str) -> bytes:
        priority = _trimmed(priority)
        if priority is not None and priority != "":
            # bool is an int, and 1.0 equals 1: neither is a priority.
            known = priority.lower() if isinstance(priority, str) else priority
            if type(known) in (int, str) and known in _PRIORITIES:
                return _PRIORITIES[known]
            self._left_out("priority", "is not 1, 5, 10, normal or high")
        return b"5" if push_type == "background" else b""

    def _expiration_s(self, expiration: Json, otherwise: int | None) -> int | None:
        if isinstance(expiration, str | float) and (plain := _WHOLE_NUMBER.fullmatch(str(expiration))):
            expiration = int(plain[1])
        if type(expiration) is int and 0 <= expiration <= _MAX_EXPIRATION_S:
            return expiration
        self._left_out("expiration", "is not a number of seconds")
        return otherwise

    def _literals(self, push: ApnsPush, collapse_id: Json, expiration_s: int | None) -> bytes:
        """The header fields that differ from push to push."""
        literals = _APNS_ID + push.id.encode()
        if expiration_s is not None:
            literals += literal_field(b"apns-expiration", b"%d" % expiration_s)
        if collapse_id is None or collapse_id == "":
            return literals
        if type(collapse_id) is int:
            collapse_id = str(collapse_id)
        if not isinstance(collapse_id, str) or not collapse_id.isprintable():
            self._left_out("collapse_id", "is not text without control characters")
            return literals
        value = collapse_id.encode()
        if len(value) > _MAX_COLLAPSE_ID_BYTES:
            self._left_out("collapse_id", "is too long")
            return literals
        return literals + literal_field(b"apns-collapse-id", value)

    def _left_out(self, field: str, why: str) -> None:
        _seldom.warning((self._app, field), f"{field} {why}; the push is sent without it", game=self._app, field=field)


def _trimmed(value: Json) -> Json:
    return value.strip() if isinstance(value, str) else value


def _channel_id(value: Json) -> str:
    """Raises ``InvalidMessage``."""
    if not isinstance(value, str) or CHANNEL_ID.fullmatch(value) is None:
        raise InvalidMessage("bad-channel-id", "channel_id is not base64")
    return value


def _broadcast_literals(push: ApnsPush, expiration_s: int | None) -> bytes:
    """Apple requires an expiration; every channel accepts 0: one attempt, nothing stored."""
    return (
        literal_field(b"apns-request-id", push.id.encode())
        + literal_field(b"apns-channel-id", push.token.encode())
        + literal_field(b"apns-expiration", b"%d" % (expiration_s or 0))
    )


def _fields(value: bytes | None) -> list[Json]:
    """The known fields, whatever the case of their names: of several the last that is not null, ``metadata`` merged."""
    found: list[Json] = [None] * len(_FIELDS)
    for name, field in decode_object(value).items():
        place = _PLACES.get(name)
        if place is None:
            place = _PLACES.get(name.lower())
        if place is None or field is None:
            continue
        before = found[place]
        if before is not None and place == _METADATA and isinstance(before, dict) and isinstance(field, dict):
            field = {**before, **field}
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


def _push_type(topic: str, payload: Json) -> str:
    """What a push without a type is: Apple asks that the type fits the topic and the payload."""
    if topic.endswith(_SUFFIXES):
        return next(push_type for suffix, push_type in _TYPE_OF_SUFFIX.items() if topic.endswith(suffix))
    if not isinstance(payload, dict):
        return "mdm" if topic.startswith(_MDM_TOPICS) else "alert"
    if payload.get("mdm") is not None or topic.startswith(_MDM_TOPICS):
        return "mdm"
    aps = payload.get("aps")
    if not isinstance(aps, dict):
        return "alert"
    if aps.get("content-state") is not None:
        return "liveactivity"
    silent = aps.get("content-available")
    shown = aps.get("alert") is not None or aps.get("badge") is not None or aps.get("sound") is not None
    return "background" if (silent is True or silent == 1) and not shown else "alert"


def has_usual_type(push: ApnsPush) -> bool:
    """Whether the push has the type that it would have without one."""
    payload = orjson.loads(push.body)
    return push.kind.push_type.decode() == _push_type(push.kind.topic.decode(), payload)


#: An id always has 36 characters, so that all but the id itself is the same in every request.
_APNS_ID = literal_field(b"apns-id", b"0" * 36)[:-36]
