"""A push request for FCM HTTP v1: the same Kafka message as for XMPP, made into the body of ``messages:send``.

Sources: FCM HTTP v1 reference, "projects.messages"; "Migrate from legacy FCM APIs to HTTP v1"; for Apple's devices the
legacy "XMPP protocol reference", keys of iOS. Fields that v1 has and XMPP had not (``condition``, ``android``,
``apns``, ``webpush``, ``fcm_options``) are taken over as they are; where a member of ``android`` or ``apns`` is also
mapped from an older field, the one given there wins.

Rule: what v1 has no place for is reported in ``FcmPush.left_out``, never lost in silence; whether a value is one that
Google accepts, Google decides.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import orjson

from pusher.providers.google.request import FLAG, MESSAGE, OBJECT, TEXT, FieldType, LeftOut, read
from pusher.push.fields import MAX_BODY_BYTES, InvalidMessage, Json, encode
from pusher.push.push import Push

#: What FCM takes besides XMPP's fields.
FIELDS: Mapping[str, FieldType] = {
    **MESSAGE,
    "direct_boot_ok": FLAG,
    "restricted_package_name": TEXT,
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
#: ``aps.alert`` of Apple's, by the names of ``notification``.
_IN_ALERT = {
    "title": "title",
    "subtitle": "subtitle",
    "body": "body",
    "title_loc_key": "title-loc-key",
    "title_loc_args": "title-loc-args",
    "body_loc_key": "loc-key",
    "body_loc_args": "loc-args",
}
#: Without these FCM makes the alert itself, of ``message.notification``.
_IN_ALERT_ALONE = _IN_ALERT.keys() - set(_FOR_ALL)
_SHOWN_BY_APPLE = _IN_ALERT.keys() | {"sound", "badge"}
_APNS_PRIORITIES = {"high": "10", "normal": "5"}
_ARGUMENTS = ("body_loc_args", "title_loc_args")
_MAX_COUNT = 2**31 - 1
#: FCM reference, AndroidConfig.ttl: four weeks at most, which is what a message without one has.
_MAX_TTL_S = 2_419_200
#: FCM reference, AndroidNotification.color.
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
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

    def __init__(self, app: str, clock: Callable[[], float] = time.time, *, compares: bool = False) -> None:
        self._left_out, self._clock, self._compares = LeftOut(app, "FCM HTTP v1"), clock, compares

    def __call__(self, value: bytes | None, origin: str) -> FcmPush:
        """Raises ``InvalidMessage``."""
        push = parse(value, origin, self._clock, compares=self._compares)
        if push.left_out:
            self._left_out.warn(push.left_out)
        return push


def parse(
    value: bytes | None, origin: str, clock: Callable[[], float] = time.time, *, compares: bool = False
) -> FcmPush:
    """The push that a record asks for; ``clock`` gives Unix time. Never waits; raises ``InvalidMessage``."""
    push = FcmPush()
    fields, unknown = read(push, value, origin, FIELDS, compares=compares)
    request, left_out = build(fields, clock())
    push.ttl_s = _ttl_s(request["message"].get("android", {}).get("ttl"))
    push.left_out = (*unknown, *left_out)
    push.body = encode(request)
    if len(push.body) > MAX_BODY_BYTES:
        raise InvalidMessage("payload-too-large", f"the message has {len(push.body)} bytes")
    return push


def build(fields: Mapping[str, Json], now_s: float) -> tuple[dict[str, Json], list[str]]:
    """The body of ``messages:send`` from a message's fields (``FIELDS``), and the names of what has no place in it.

    ``now_s`` is Unix time. Raises ``InvalidMessage``.
    """
    left_out = [name for name in _WITHOUT_PLACE if name in fields]
    fields = _without_refused(fields, left_out)
    target, value = _target(fields)
    message: dict[str, Json] = {name: fields[name] for name in _TAKEN_OVER if name in fields}
    if "data" in fields:
        message["data"] = {name: _text(value) for name, value in fields["data"].items()}
    if "notification" in fields:
        message["notification"] = _shown_everywhere(fields["notification"])
    notification = _notification(fields, left_out)
    android = _android(fields, notification)
    apns = _for_apple_alone(fields, notification) if "apns" in fields else _apns(fields, notification, now_s)
    for name, mapped in (("android", android), ("apns", apns)):
        if mapped:
            message[name] = merged(mapped, message.get(name, {}))
    message = {name: part for name, part in message.items() if part}
    message[target] = value
    return ({"validate_only": True, "message": message} if fields.get("dry_run") else {"message": message}), left_out


def _without_refused(fields: Mapping[str, Json], left_out: list[str]) -> Mapping[str, Json]:
    """Without values for which Google would refuse the message: no optional field does that."""
    refused = []
    if "priority" in fields and fields["priority"].strip().lower() not in _APNS_PRIORITIES:
        refused.append("priority")
    if fields.get("time_to_live", 0) > _MAX_TTL_S:
        refused.append("time_to_live")
    left_out += refused
    return {name: value for name, value in fields.items() if name not in refused} if refused else fields


def _target(fields: Mapping[str, Json]) -> tuple[str, str]:
    to, condition = fields.get("to", ""), fields.get("condition", "")
    if condition:
        return "condition", condition
    if to.startswith(_TOPICS):
        return "topic", to.removeprefix(_TOPICS)
    return "token", to


def _notification(fields: Mapping[str, Json], left_out: list[str]) -> dict[str, Json]:
    """``notification`` with arguments as arrays of strings, and a badge that is a number."""
    notification = dict(fields.get("notification", {}))
    for name in _ARGUMENTS:
        if name in notification:
            notification[name] = arguments(notification[name])
    if "color" in notification and _COLOR.fullmatch(notification["color"]) is None:
        del notification["color"]
        left_out.append("notification.color")
    if "badge" in notification:
        notification["badge"] = _count(notification["badge"])
        if notification["badge"] is None:
            del notification["badge"]
            left_out.append("notification.badge")
    return notification


def _android(fields: Mapping[str, Json], notification: Mapping[str, Json]) -> dict[str, Json]:
    android: dict[str, Json] = {}
    if "time_to_live" in fields:
        android["ttl"] = f"{fields['time_to_live']}s"
    if "collapse_key" in fields:
        android["collapse_key"] = fields["collapse_key"]
    if "priority" in fields:
        android["priority"] = fields["priority"].strip().lower()
    for name in ("restricted_package_name", "direct_boot_ok"):
        if name in fields:
            android[name] = fields[name]
    shown = _shown_on_android(notification)
    if shown:
        android["notification"] = shown
    return android


def _ttl_s(text: Json) -> float | None:
    """A ``google.protobuf.Duration`` in JSON; None when it is none, which Google will say."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return float(match[1]) if match else None


def _for_apple_alone(fields: Mapping[str, Json], notification: Mapping[str, Json]) -> dict[str, Json]:
    """What is for Apple's devices whatever its place, for a message that has a block of its own for them."""
    aps = _flags(fields)
    if "subtitle" in notification:
        aps["alert"] = {name: notification[name] for name in ("title", "subtitle", "body") if name in notification}
    return {"payload": {"aps": aps}} if aps else {}


def _apns(fields: Mapping[str, Json], notification: Mapping[str, Json], now_s: float) -> dict[str, Json]:
    """The ``aps`` for Apple's devices; FCM adds the alert from a plain title and body."""
    aps = _flags(fields)
    if not _IN_ALERT_ALONE.isdisjoint(notification):
        aps["alert"] = {key: notification[name] for name, key in _IN_ALERT.items() if name in notification}
    for name, key in (("sound", "sound"), ("badge", "badge"), ("click_action", "category")):
        if name in notification:
            aps[key] = notification[name]
    headers = _apns_headers(fields, not _SHOWN_BY_APPLE.isdisjoint(notification), now_s)
    return {**({"headers": headers} if headers else {}), **({"payload": {"aps": aps}} if aps else {})}


def _flags(fields: Mapping[str, Json]) -> dict[str, Json]:
    return {name.replace("_", "-"): 1 for name in ("content_available", "mutable_content") if fields.get(name)}


def _apns_headers(fields: Mapping[str, Json], shown: bool, now_s: float) -> dict[str, str]:
    headers: dict[str, str] = {}
    if "time_to_live" in fields:
        ttl_s = fields["time_to_live"]
        headers["apns-expiration"] = str(int(now_s) + ttl_s) if ttl_s else "0"
    if fields.get("content_available") and not shown:
        headers["apns-push-type"] = "background"
    # FCM reference, Message.data: to Apple's devices data alone has no priority but 5
    priority = _APNS_PRIORITIES.get(fields.get("priority", "").strip().lower(), "")
    if "apns-push-type" in headers or (priority and not shown):
        priority = "5"
    if priority:
        headers["apns-priority"] = priority
    return headers


def _shown_everywhere(notification: Mapping[str, Json]) -> dict[str, Json]:
    shown = {name: notification[name] for name in _FOR_ALL if name in notification}
    image = notification.get("image") or notification.get("image_url")
    return {**shown, "image": image} if image else shown


def _shown_on_android(notification: Mapping[str, Json]) -> dict[str, Json]:
    shown = {name: value for name, value in notification.items() if name in _FOR_ANDROID}
    if "android_channel_id" in notification:
        shown["channel_id"] = notification["android_channel_id"]
    if "badge" in notification:
        shown["notification_count"] = notification["badge"]
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
