"""What FCM refuses, and with which error.

Sources: FCM HTTP v1 reference, "projects.messages" and "ErrorCode"; Google API design guide, "Errors"; the wordings are
those seen in Google's answers. As there, a request is first read by its schema (all violations at once, without FCM's
own error code), then checked for sense (the first error, with the code).

Rule: nothing here does I/O.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
MESSAGE_BYTES = 4096
TOPIC_MESSAGE_BYTES = 2048
MAX_TTL_S = 28 * 24 * 3600
MAX_CONDITION_TOPICS = 5

TOKEN = re.compile(r"[0-9A-Za-z_:.~%-]{1,4096}\Z")
TOPIC = re.compile(r"[0-9A-Za-z_.~%-]{1,900}\Z")
IN_TOPICS = re.compile(r"'[^']+' in topics")
COLOR = re.compile(r"#[0-9A-Fa-f]{6}\Z")
DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s\Z")
INTEGER = re.compile(r"-?[0-9]{1,10}\Z")
#: Reference of HTTP v1, "Message.data"; users report that "collapse_key" is refused too (PyFCM issue 103).
RESERVED_KEYS = {"from", "message_type", "collapse_key"}
RESERVED_PREFIXES = ("google", "gcm")
#: What Apple's devices show of ``aps``.
SHOWN = {"alert", "badge", "sound"}
INVALID_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105  # Google's words


class ErrorLook(NamedTuple):
    """How an error looks: HTTP status, canonical code, words, and whether FCM's own code is told."""

    status: int
    rpc_status: str
    message: str
    detailed: bool = True


CODES = {
    "INVALID_ARGUMENT": ErrorLook(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "UNREGISTERED": ErrorLook(404, "NOT_FOUND", "Requested entity was not found."),
    "SENDER_ID_MISMATCH": ErrorLook(403, "PERMISSION_DENIED", "SenderId mismatch"),
    "QUOTA_EXCEEDED": ErrorLook(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'API requests'."),
    "UNAVAILABLE": ErrorLook(503, "UNAVAILABLE", "The service is currently unavailable."),
    "INTERNAL": ErrorLook(500, "INTERNAL", "Internal error encountered."),
    "THIRD_PARTY_AUTH_ERROR": ErrorLook(401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
    "APNS_AUTH_ERROR": ErrorLook(401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
    "UNSPECIFIED_ERROR": ErrorLook(500, "INTERNAL", "Internal error encountered."),
    "UNAUTHENTICATED": ErrorLook(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential.",
        detailed=False,
    ),
    "PERMISSION_DENIED": ErrorLook(
        403,
        "PERMISSION_DENIED",
        "Permission 'cloudmessaging.messages.create' denied on resource (or it may not exist).",
        detailed=False,
    ),
    "NOT_FOUND": ErrorLook(404, "NOT_FOUND", "Requested entity was not found.", detailed=False),
    "RESOURCE_EXHAUSTED": ErrorLook(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted.", detailed=False),
}
#: The code a status has when a fault names none; other statuses come from a proxy, with a page instead of JSON.
USUAL_CODE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "SENDER_ID_MISMATCH",
    404: "UNREGISTERED",
    429: "QUOTA_EXCEEDED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class Violation(NamedTuple):
    """A field that is wrong."""

    field: str
    description: str


@dataclass(frozen=True)
class Refusal:
    """An error answer."""

    code: str
    message: str = ""
    violations: tuple[Violation, ...] = ()
    #: Whether FCM's own code is told; None: as usual for the code.
    detailed: bool | None = None

    @property
    def status(self) -> int:
        """Its HTTP status."""
        return CODES[self.code].status

    def body(self) -> bytes:
        """Its JSON."""
        return error_body(self.code, self.status, self.message, self.violations, self.detailed)


def error_body(
    code: str,
    status: int,
    message: str = "",
    violations: Sequence[Violation] = (),
    detailed: bool | None = None,
    over_quota: str = "",
) -> bytes:
    """The error's JSON as Google writes it; a code that is not in the table is told as FCM's own.

    ``over_quota``: whose quota is used up.
    """
    usual = CODES.get(code, ErrorLook(status, "UNKNOWN", "Unknown error."))
    details: list[dict[str, Any]] = []
    if usual.detailed if detailed is None else detailed:
        details.append({"@type": FCM_ERROR, "errorCode": code})
    if violations:
        details.append({"@type": BAD_REQUEST, "fieldViolations": [violation._asdict() for violation in violations]})
    if over_quota:
        violation = {"subject": over_quota, "description": usual.message}
        details.append({"@type": QUOTA_FAILURE, "violations": [violation]})
    error = {"code": status, "message": message or usual.message, "status": usual.rpc_status}
    return json.dumps({"error": error | ({"details": details} if details else {})}, indent=2).encode()


# ---- schema


class SchemaType(NamedTuple):
    """A type of the schema. `fields` are those of a message, `values` those of an enumeration."""

    name: str
    fields: Mapping[str, "SchemaType"] | None = None
    values: frozenset[str] = frozenset()
    repeated: bool = False


TEXT = SchemaType("TYPE_STRING")
FLAG = SchemaType("TYPE_BOOL")
INT32 = SchemaType("TYPE_INT32")
FLOAT = SchemaType("TYPE_FLOAT")
DURATION_KIND = SchemaType("type.googleapis.com/google.protobuf.Duration")
STRUCT = SchemaType("type.googleapis.com/google.protobuf.Struct")
MAP = SchemaType("map")


def _message(name: str, /, **fields: SchemaType) -> SchemaType:
    return SchemaType(f"type.googleapis.com/google.firebase.fcm.v1.{name}", fields)


def _enumeration(name: str, *values: str) -> SchemaType:
    return SchemaType(f"type.googleapis.com/google.firebase.fcm.v1.{name}", None, frozenset(values))


ANDROID_NOTIFICATION = _message(
    "AndroidNotification",
    title=TEXT,
    body=TEXT,
    icon=TEXT,
    color=TEXT,
    sound=TEXT,
    tag=TEXT,
    click_action=TEXT,
    body_loc_key=TEXT,
    body_loc_args=TEXT._replace(repeated=True),
    title_loc_key=TEXT,
    title_loc_args=TEXT._replace(repeated=True),
    channel_id=TEXT,
    ticker=TEXT,
    sticky=FLAG,
    event_time=TEXT,
    local_only=FLAG,
    notification_priority=_enumeration(
        "AndroidNotification.NotificationPriority",
        *(f"PRIORITY_{word}" for word in ("UNSPECIFIED", "MIN", "LOW", "DEFAULT", "HIGH", "MAX")),
    ),
    default_sound=FLAG,
    default_vibrate_timings=FLAG,
    default_light_settings=FLAG,
    vibrate_timings=DURATION_KIND._replace(repeated=True),
    visibility=_enumeration("AndroidNotification.Visibility", "VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"),
    notification_count=INT32,
    light_settings=_message(
        "LightSettings",
        color=_message("Color", red=FLOAT, green=FLOAT, blue=FLOAT, alpha=FLOAT),
        light_on_duration=DURATION_KIND,
        light_off_duration=DURATION_KIND,
    ),
    image=TEXT,
    proxy=_enumeration("AndroidNotification.Proxy", "PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
)
REQUEST = _message(
    "SendMessageRequest",
    validate_only=FLAG,
    message=_message(
        "Message",
        name=TEXT,
        data=MAP,
        notification=_message("Notification", title=TEXT, body=TEXT, image=TEXT),
        android=_message(
            "AndroidConfig",
            collapse_key=TEXT,
            priority=_enumeration("AndroidConfig.AndroidMessagePriority", "NORMAL", "HIGH", "normal", "high"),
            ttl=DURATION_KIND,
            restricted_package_name=TEXT,
            data=MAP,
            notification=ANDROID_NOTIFICATION,
            fcm_options=_message("AndroidFcmOptions", analytics_label=TEXT),
            direct_boot_ok=FLAG,
            bandwidth_constrained_ok=FLAG,
            restricted_satellite_ok=FLAG,
        ),
        webpush=_message(
            "WebpushConfig",
            headers=MAP,
            data=MAP,
            notification=STRUCT,
            fcm_options=_message("WebpushFcmOptions", link=TEXT, analytics_label=TEXT),
        ),
        apns=_message(
            "ApnsConfig",
            headers=MAP,
            payload=STRUCT,
            fcm_options=_message("ApnsFcmOptions", analytics_label=TEXT, image=TEXT),
            live_activity_token=TEXT,
        ),
        fcm_options=_message("FcmOptions", analytics_label=TEXT),
        token=TEXT,
        topic=TEXT,
        condition=TEXT,
    ),
)
TARGETS = ("token", "topic", "condition")


def read(body: bytes) -> tuple[dict[str, Any], Refusal | None]:
    """The request of a body, with field names in snake case, and what is wrong with it."""
    try:
        request = json.loads(body)
    except ValueError:
        return {}, Refusal("INVALID_ARGUMENT", "Invalid JSON payload received. Unexpected token.", detailed=False)
    if not isinstance(request, dict):
        return {}, Refusal("INVALID_ARGUMENT", "Invalid JSON payload received. Not an object.", detailed=False)
    request = _in_snake_case(request, REQUEST)
    violations = tuple(_violations(request, REQUEST, ""))
    if violations:
        message = "\n".join(violation.description for violation in violations)
        return request, Refusal("INVALID_ARGUMENT", message, violations, detailed=False)
    return request, _nonsense(request.get("message") or {})


def _in_snake_case(value: Any, kind: SchemaType) -> Any:
    """Field names may be written in both ways (proto3 JSON)."""
    if kind.fields is None or not isinstance(value, dict):
        return value
    found = {}
    for name, member in value.items():
        snake = re.sub(r"(?<=[a-z])[A-Z]", lambda match: "_" + match[0].lower(), name)
        name = snake if snake in kind.fields else name
        found[name] = _in_snake_case(member, kind.fields[name]) if name in kind.fields else member
    return found


def _violations(value: Any, kind: SchemaType, path: str) -> Iterator[Violation]:
    if value is None:
        return
    if kind.repeated:
        yield from _list_violations(value, kind, path)
    elif kind.fields is not None:
        yield from _message_violations(value, kind, path)
    elif kind is MAP:
        yield from _map_violations(value, path)
    elif not _is_of(value, kind):
        yield _invalid(path, kind, value)


def _list_violations(value: Any, kind: SchemaType, path: str) -> Iterator[Violation]:
    if not isinstance(value, list):
        yield _invalid(path, kind, value)
        return
    for index, item in enumerate(value):
        if not _is_of(item, kind):
            yield _invalid(f"{path}[{index}]", kind, item)


def _message_violations(value: Any, kind: SchemaType, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict) or kind.fields is None:
        yield _invalid(path, kind, value)
        return
    for name, member in value.items():
        if name not in kind.fields:
            at = f" at '{path}'" if path else ""
            words = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
            yield Violation(path, words)
        else:
            yield from _violations(member, kind.fields[name], f"{path}.{name}" if path else name)
    targets = [name for name in TARGETS if name in value] if path == "message" else []
    for name in targets[1:]:
        words = f"Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set '{name}'"
        yield Violation(path, words)


def _map_violations(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield _invalid(path, MAP, value)
        return
    for index, member in enumerate(value.values()):
        if not isinstance(member, str):
            yield _invalid(f"{path}[{index}].value", TEXT, member)


def _invalid(path: str, kind: SchemaType, value: Any) -> Violation:
    return Violation(path, f"Invalid value at '{path}' ({kind.name}), {json.dumps(value)[:200]}")


def _is_of(value: Any, kind: SchemaType) -> bool:
    if kind.values:
        return isinstance(value, str) and value in kind.values
    if kind.name == INT32.name:
        number = int(value) if isinstance(value, str) and INTEGER.match(value) else value
        return _is_number(number) and number == int(number) and -(2**31) <= number < 2**31
    if kind.name == FLOAT.name:
        return _is_number(value)
    if kind.name == DURATION_KIND.name:
        return isinstance(value, str) and DURATION.match(value) is not None
    return isinstance(value, {TEXT.name: str, FLAG.name: bool, STRUCT.name: dict}[kind.name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- sense


def _nonsense(message: dict[str, Any]) -> Refusal | None:
    for check in (_target, _data, _ttl, _color, _count, _for_apple, _size):
        refusal = check(message)
        if refusal is not None:
            return refusal
    return None


def _bad(message: str, field: str = "") -> Refusal:
    violations = (Violation(field, message),) if field else ()
    return Refusal("INVALID_ARGUMENT", message, violations)


def _target(message: dict[str, Any]) -> Refusal | None:
    token, topic, condition = (message.get(name) for name in TARGETS)
    if token is not None:
        return None if TOKEN.match(token) else Refusal("INVALID_ARGUMENT", INVALID_TOKEN)
    if topic is not None:
        return None if TOPIC.match(topic) else _bad("Malformed topic name", "message.topic")
    if condition is not None:
        topics = len(IN_TOPICS.findall(condition))
        return None if 0 < topics <= MAX_CONDITION_TOPICS else _bad("Invalid condition", "message.condition")
    return _bad("Recipient of the message is not set.")


def _data(message: dict[str, Any]) -> Refusal | None:
    for key in message.get("data") or {}:
        if key in RESERVED_KEYS or key.startswith(RESERVED_PREFIXES):
            return _bad(f"Invalid data payload key: {key}", "message.data")
    return None


def _ttl(message: dict[str, Any]) -> Refusal | None:
    ttl = (message.get("android") or {}).get("ttl")
    if ttl is None or 0 <= float(ttl[:-1]) <= MAX_TTL_S:
        return None
    return _bad("Invalid value for ttl: it is not within 0 and 2419200 seconds", "message.android.ttl")


def _android_notification(message: dict[str, Any]) -> dict[str, Any]:
    notification: dict[str, Any] = (message.get("android") or {}).get("notification") or {}
    return notification


def _color(message: dict[str, Any]) -> Refusal | None:
    color = _android_notification(message).get("color")
    if color is None or COLOR.match(color):
        return None
    return _bad("Invalid color in the notification: it is not #RRGGBB", "message.android.notification.color")


def _count(message: dict[str, Any]) -> Refusal | None:
    count = _android_notification(message).get("notification_count")
    if count is None or int(count) >= 0:
        return None
    return _bad("notification_count is negative", "message.android.notification.notification_count")


def _for_apple(message: dict[str, Any]) -> Refusal | None:
    """Reference, "Message.data": to Apple's devices data alone may have no priority but 5."""
    apns = message.get("apns") or {}
    aps = (apns.get("payload") or {}).get("aps")
    shown = bool(message.get("notification")) or (isinstance(aps, dict) and not SHOWN.isdisjoint(aps))
    headers = {name.lower(): value for name, value in (apns.get("headers") or {}).items()}
    if shown or headers.get("apns-priority", "5") == "5":
        return None
    return _bad("Invalid apns-priority: a message with data alone has 5", "message.apns.headers")


def _size(message: dict[str, Any]) -> Refusal | None:
    """What a device gets: the data and what is shown, as far as Android is concerned."""
    android = message.get("android") or {}
    shown = (message.get("notification") or {}) | (android.get("notification") or {})
    data = (message.get("data") or {}) | (android.get("data") or {})
    size = sum(len(key.encode()) + len(value.encode()) for key, value in data.items())
    size += sum(len(value.encode()) for value in shown.values() if isinstance(value, str))
    limit = MESSAGE_BYTES if "token" in message else TOPIC_MESSAGE_BYTES
    return _bad("Android message is too big", "message") if size > limit else None
