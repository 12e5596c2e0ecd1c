"""A push request for FCM HTTP v1: the same Kafka message as for XMPP, made into the body of ``messages:send``.

Sources: FCM HTTP v1 reference, "projects.messages"; "Migrate from legacy FCM APIs to HTTP v1". Fields that v1 has and
XMPP had not (``condition``, ``android``, ``apns``, ``webpush``, ``fcm_options``) are taken over as they are; where a
member of ``android`` or ``apns`` is also mapped from an older field, the one given there wins.

Rule: what v1 has no place for is reported in ``FcmPush.left_out``, never lost in silence; whether a value is one that
Google accepts, Google decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from pusher.providers.google.request import MESSAGE, OBJECT, Kind, LeftOut, read
from pusher.push.fields import MAX_BODY_BYTES, InvalidMessage, Json, encode
from pusher.push.push import Push

#: What FCM takes besides XMPP's fields.
FIELDS: Mapping[str, Kind] = {
    **MESSAGE,
    "android": OBJECT,
    "apns": OBJECT,
    "webpush": OBJECT,
    "fcm_options": OBJECT,
}
_TAKEN_OVER = ("android", "apns", "webpush", "fcm_options")
_TOPICS = "/topics/"
#: These have no successor: v1 answers with a name of its own, and reports deliveries through BigQuery only.
_WITHOUT_PLACE = ("message_type", "delivery_receipt_requested")
#: ``message.notification``, for all platforms.
_FOR_ALL = ("title", "body")
#: ``message.android.notification``, under the same names.
_FOR_ANDROID = {
    "title",
    "body",
    "icon",
    "color",
    "sound",
    "tag",
    "click_action",
    "body_loc_key",
    "body_loc_args",
    "title_loc_key",
    "title_loc_args",
}
_ARGUMENTS = ("body_loc_args", "title_loc_args")
_MAX_COUNT = 2**31 - 1
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)s")


class FcmPush(Push):
    """A push for Google over HTTP v1. ``token`` is its target: a device token, ``/topics/name``, or a condition."""

    __slots__ = ("body", "left_out", "refused_token")

    body: bytes
    #: Fields that could not be mapped.
    left_out: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        #: The access token with which it was refused: it is sent again with one other.
        self.refused_token = ""


class FcmParser:
    """Makes pushes from the requests of one app. Never waits."""

    def __init__(self, app: str) -> None:
        self._left_out = LeftOut(app, "FCM HTTP v1")

    def __call__(self, value: bytes | None, origin: str) -> FcmPush:
        """Raises ``InvalidMessage``."""
        push = parse(value, origin)
        if push.left_out:
            self._left_out.warn(push.left_out)
        return push


def parse(value: bytes | None, origin: str) -> FcmPush:
    """The push that a record asks for. Never waits; raises ``InvalidMessage``."""
    push = FcmPush()
    fields, unknown = read(push, value, origin, FIELDS)
    request, left_out = build(fields)
    push.ttl_s = _ttl_s(request["message"].get("android", {}).get("ttl"))
    push.left_out = (*unknown, *left_out)
    push.body = encode(request)
    if len(push.body) > MAX_BODY_BYTES:
        raise InvalidMessage("payload-too-large", f"the message has {len(push.body)} bytes")
    return push


def build(fields: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """The body of ``messages:send`` from a message's fields (``FIELDS``), and the names of what has no place in it.

    Raises ``InvalidMessage``.
    """
    left_out = [name for name in _WITHOUT_PLACE if name in fields]
    target, value = _target(fields)
    message: dict[str, Json] = {name: fields[name] for name in _TAKEN_OVER if name in fields}
    if "data" in fields:
        message["data"] = {name: _text(value) for name, value in fields["data"].items()}
    if "notification" in fields:
        message["notification"] = _shown_everywhere(fields["notification"])
    for name, mapped in (("android", _android(fields, left_out)), ("apns", _apns(fields))):
        if mapped:
            message[name] = merged(mapped, message.get(name, {}))
    message = {name: part for name, part in message.items() if part}
    message[target] = value
    return ({"validate_only": True, "message": message} if fields.get("dry_run") else {"message": message}), left_out


def _target(fields: Mapping[str, Json]) -> tuple[str, str]:
    to, condition = fields.get("to", ""), fields.get("condition", "")
    if condition:
        return "condition", condition
    if to.startswith(_TOPICS):
        return "topic", to.removeprefix(_TOPICS)
    return "token", to


def _android(fields: Mapping[str, Json], left_out: list[str]) -> dict[str, Json]:
    android: dict[str, Json] = {}
    if "time_to_live" in fields:
        android["ttl"] = f"{fields['time_to_live']}s"
    if "collapse_key" in fields:
        android["collapse_key"] = fields["collapse_key"]
    if "priority" in fields:
        android["priority"] = fields["priority"].lower()
    shown = _shown_on_android(fields.get("notification", {}), left_out)
    if shown:
        android["notification"] = shown
    return android


def _ttl_s(text: Json) -> float | None:
    """A ``google.protobuf.Duration`` in JSON; None when it is none, which Google will say."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return float(match[1]) if match else None


def _apns(fields: Mapping[str, Json]) -> dict[str, Json]:
    # They have always been for iOS alone, whatever their place.
    flags = ("content_available", "mutable_content")
    aps: dict[str, Json] = {name.replace("_", "-"): 1 for name in flags if fields.get(name)}
    notification = fields.get("notification", {})
    if "subtitle" in notification:
        # FCM has it for Apple alone, where an alert of its own takes the place of title and body
        aps["alert"] = {name: notification[name] for name in ("title", "subtitle", "body") if name in notification}
    return {"payload": {"aps": aps}} if aps else {}


def _shown_everywhere(notification: Mapping[str, Json]) -> dict[str, Json]:
    shown = {name: notification[name] for name in _FOR_ALL if name in notification}
    image = notification.get("image") or notification.get("image_url")
    return {**shown, "image": image} if image else shown


def _shown_on_android(notification: Mapping[str, Json], left_out: list[str]) -> dict[str, Json]:
    shown = {name: value for name, value in notification.items() if name in _FOR_ANDROID}
    for name in _ARGUMENTS:
        if name in shown:
            shown[name] = arguments(shown[name])
    if "android_channel_id" in notification:
        shown["channel_id"] = notification["android_channel_id"]
    if "badge" in notification:
        count = _count(notification["badge"])
        if count is None:
            left_out.append("notification.badge")
        else:
            shown["notification_count"] = count
    return shown


def arguments(value: Json) -> list[str]:
    """The arguments of a localized text: an array, the text of a JSON array (as XMPP wanted it), or one argument."""
    if isinstance(value, str):
        value = _array_in(value)
    return [_text(item) for item in value]


def _array_in(text: str) -> list[Json]:
    try:
        decoded = orjson.loads(text) if text.lstrip().startswith("[") else None
    except orjson.JSONDecodeError:
        decoded = None
    return decoded if isinstance(decoded, list) else [text]


def _count(badge: Json) -> int | None:
    """A badge as a number of notifications; None when it is none."""
    if isinstance(badge, str):
        badge = int(badge) if badge.isascii() and badge.isdigit() and len(badge) <= 10 else None
    if badge is None or badge != int(badge) or not 0 <= badge <= _MAX_COUNT:
        return None
    return int(badge)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else encode(value).decode()


def merged(mapped: dict[str, Json], given: Mapping[str, Json]) -> dict[str, Json]:
    """Both objects in one, down to their members; where both say something ``given`` wins."""
    result = dict(mapped)
    for name, value in given.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
