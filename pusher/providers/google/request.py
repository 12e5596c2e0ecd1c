"""A push request for Google, checked field by field: the JSON object of a Kafka message, for XMPP and for FCM HTTP v1.

The fields and their order are those of Google's "XMPP protocol reference" (legacy), which FCM maps. Names are matched
without regard to case and underscores (``time_to_live``, ``timeToLive``), the keys in ``data`` excepted; null is as
good as absent.

Rule: what the push is about (``to``, ``data``, ``notification``, ``metadata``, ``push_expiry``) refuses it when it has
a wrong kind. Any other field of a wrong kind is taken where its meaning is plain, and else left out; fields that are
unknown are left out as well. What is left out is named, never dropped in silence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pusher.push.fields import (
    MAX_TOKEN_CHARACTERS,
    InvalidMessage,
    Json,
    decode_expiry,
    decode_metadata,
    decode_object,
    merge,
)
from pusher.push.limits.content import canonical
from pusher.push.push import Push, derived_id
from pusher.telemetry.log import few, logger

_few = few(logger(__name__))

#: Google's tokens have a colon in them, and a legacy target may be ``/topics/name`` with percent-encoded characters.
_TOKEN = re.compile(r"[A-Za-z0-9._~:/%-]+")
_MAX_MESSAGE_ID_CHARACTERS = 1_024
_WHOLE_NUMBER = re.compile(r"\s*([0-9]{1,9})(?:\.0*)?\s*s?\s*")
#: Of a message with very many unknown fields, so many are named, each with so many characters.
_MAX_NAMED, _MAX_NAME_CHARACTERS = 20, 100


class FieldType(NamedTuple):
    """The kind of a field's value."""

    types: frozenset[type]
    words: str
    #: A further condition.
    holds: Callable[[Json], bool] | None = None
    #: What a value of another kind plainly means; None: nothing, it is left out.
    meant: Callable[[Json], Json | None] | None = None
    #: The push is refused where it has another kind.
    needed: bool = False


# bool is an int to Python, but not to JSON, and not in these sets
_NUMBERS = frozenset((int, float))
_TEXT_OR_NUMBER = _NUMBERS | {str}


def _is_arguments(value: Json) -> bool:
    return isinstance(value, str) or all(type(item) in _TEXT_OR_NUMBER for item in value)


def _number_as_text(value: Json) -> str | None:
    return str(value) if type(value) in _NUMBERS else None


def _flag(value: Json) -> bool | None:
    word = str(value).strip().lower() if type(value) in _TEXT_OR_NUMBER else None
    return True if word in ("true", "1") else False if word in ("false", "0") else None


def _seconds(value: Json) -> int | None:
    match = _WHOLE_NUMBER.fullmatch(str(value)) if type(value) in _TEXT_OR_NUMBER else None
    return int(match[1]) if match else None


def _priority(value: Json) -> str | None:
    """Apple's numbers."""
    return {10: "high", 5: "normal"}.get(value) if type(value) in _NUMBERS else None


_STR = frozenset((str,))
TEXT = FieldType(_STR, "a string", meant=_number_as_text)
WORD = FieldType(_STR, "a string")
TARGET = FieldType(_STR, "a string", needed=True)
PRIORITY = FieldType(_STR, "a string", meant=_priority)
FLAG = FieldType(frozenset((bool,)), "a boolean", meant=_flag)
SECONDS = FieldType(frozenset((int,)), "a number of seconds", lambda value: value >= 0, _seconds)
OBJECT = FieldType(frozenset((dict,)), "an object", needed=True)
ARGUMENTS = FieldType(frozenset((str, list)), "a string or an array of strings", _is_arguments, _number_as_text)
BADGE = FieldType(_TEXT_OR_NUMBER, "a string or a number")
#: Checked where it is used.
ANY = FieldType(frozenset((str, int, float, bool, dict, list)), "")

#: In the order in which XMPP sends them.
MESSAGE: Mapping[str, FieldType] = {
    "to": TARGET,
    "condition": WORD,
    "message_id": TEXT,
    "message_type": TEXT,
    "collapse_key": TEXT,
    "priority": PRIORITY,
    "content_available": FLAG,
    "mutable_content": FLAG,
    "time_to_live": SECONDS,
    "delivery_receipt_requested": FLAG,
    "dry_run": FLAG,
    "data": OBJECT,
    "notification": OBJECT,
    # these two are for pusher alone
    "metadata": ANY,
    "push_expiry": ANY,
}
NOTIFICATION: Mapping[str, FieldType] = {
    "title": TEXT,
    "subtitle": TEXT,
    "body": TEXT,
    "android_channel_id": TEXT,
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
#: Of a notification, what makes it another one.
_COMPARED = (
    "title",
    "body",
    "sound",
    "click_action",
    "body_loc_key",
    "body_loc_args",
    "title_loc_key",
    "title_loc_args",
    "image_url",
    "icon",
    "tag",
    "color",
    "badge",
)
#: Other names of fields, without underscores.
_ALIASES = {"validateonly": "dry_run"}
#: Keys of ``data`` that Google refuses ("XMPP protocol reference" and FCM HTTP v1, ``data``), and beginnings of them.
_RESERVED, _RESERVED_BEGINNINGS = frozenset(("from", "message_type", "collapse_key")), ("google", "gcm")


def read(
    push: Push, value: bytes | None, origin: str, kinds: Mapping[str, FieldType] = MESSAGE, *, compares: bool = False
) -> tuple[dict[str, Json], list[str]]:
    """Sets the push's id, token, expiry, metadata and, where it ``compares``, content.

    Returns Google's fields without empty ones, and what is left out.

    ``message_id`` is always there, and ``to`` or ``condition``. Metadata is merged into ``data``, but for keys that
    Google reserves. Raises ``InvalidMessage``.
    """
    left_out: list[str] = []
    message = _fields(decode_object(value), kinds, left_out)
    push.metadata = decode_metadata(message.pop("metadata", None))
    push.expires_ms = decode_expiry(message.pop("push_expiry", None))
    push.token = _target(message, left_out)
    push.id = message["message_id"] = _message_id(message, left_out) or derived_id(origin)
    if compares:
        push.content = _content(message)
    if push.metadata:
        data = message["data"] = message.get("data") or {}
        merge(_for_data(push.metadata), data)
    notification = message.get("notification")
    if notification:
        message["notification"] = _without_empty(_fields(notification, NOTIFICATION, left_out, "notification."))
    return _without_empty(message), left_out


def _content(message: Mapping[str, Json]) -> bytes:
    """The content for the device, with the notification's members in the order of the Go program."""
    parts = []
    if message.get("data") is not None:
        parts.append(b'"data":' + canonical(message["data"]))
    given = message.get("notification")
    if given is not None:
        fields = _fields(given, NOTIFICATION, [])
        shown = [b"%b:%b" % (canonical(name), canonical(fields[name])) for name in _COMPARED if fields.get(name)]
        parts.append(b'"notification":{%b}' % b",".join(shown))
    return b"{%b}" % b",".join(parts)


def _for_data(metadata: dict[str, Json]) -> dict[str, Json]:
    reserved = [key for key in metadata if key in _RESERVED or key.startswith(_RESERVED_BEGINNINGS)]
    return {key: value for key, value in metadata.items() if key not in reserved} if reserved else metadata


def _fields(
    given: dict[str, Json], kinds: Mapping[str, FieldType], left_out: list[str], path: str = ""
) -> dict[str, Json]:
    """The known fields; of several spellings the last one holds that is not null, of ``metadata`` all are merged."""
    found: dict[str, Json] = {}
    for spelling, value in given.items():
        name, kind = spelling, kinds.get(spelling)
        if kind is None:
            name = _known(spelling, kinds)
            if not name:
                if len(left_out) < _MAX_NAMED:
                    left_out.append(f"{path}{spelling[:_MAX_NAME_CHARACTERS]}")
                continue
            kind = kinds[name]
        if value is not None and (type(value) not in kind.types or (kind.holds and not kind.holds(value))):
            value = _meant(value, kind, name, path)
            if value is None:
                left_out.append(path + name)
        found[name] = _both(name, found[name], value) if name in found else value
    return found


def _known(spelling: str, kinds: Mapping[str, FieldType]) -> str:
    """The name of a field that is spelled differently; "" if there is none."""
    plain = spelling.replace("_", "").lower()
    alias = _ALIASES.get(plain, "")
    if alias in kinds:
        return alias
    return next((name for name in kinds if name.replace("_", "") == plain), "")


def _meant(value: Json, kind: FieldType, name: str, path: str) -> Json | None:
    """The clear meaning of a value of a wrong type; None if it has none. Raises ``InvalidMessage``."""
    if kind.needed:
        raise InvalidMessage(f"bad-{name.replace('_', '-')}", f"{path}{name} is not {kind.words}")
    return kind.meant(value) if kind.meant is not None else None


def _both(name: str, before: Json, value: Json) -> Json:
    """The value that counts of a field that is given twice."""
    if name == "metadata" and isinstance(before, dict) and isinstance(value, dict):
        return before | value
    return before if value is None else value


def _target(message: dict[str, Json], left_out: list[str]) -> str:
    """The token; or the condition, which the original did not know: beside a token it is left out."""
    to, condition = message.get("to"), message.get("condition")
    if condition and to:
        del message["condition"]
        left_out.append("condition")
    elif condition:
        return str(condition)
    return _token(to)


def _token(value: Json) -> str:
    if not value:
        raise InvalidMessage("missing-token", "to is missing")
    if len(value) > MAX_TOKEN_CHARACTERS or _TOKEN.fullmatch(value) is None:
        raise InvalidMessage("bad-token", "to has too many characters, or characters that are not allowed in a token")
    return str(value)


def _message_id(message: Mapping[str, Json], left_out: list[str]) -> str:
    """It becomes an XML attribute, in which control characters are not allowed and white space does not survive."""
    value = message.get("message_id") or ""
    if len(value) > _MAX_MESSAGE_ID_CHARACTERS or not value.isprintable():
        left_out.append("message_id")
        return ""
    return str(value)


def _without_empty(fields: dict[str, Json]) -> dict[str, Json]:
    # 0 says something: a time to live of none, a badge to be cleared
    return {name: value for name, value in fields.items() if value or type(value) in _NUMBERS}


class LeftOut:
    """Warns of the fields that are left out of an app's messages: once a minute each, and of few in all."""

    _PERIOD_S = 60.0
    _MAX_REMEMBERED = 1_000

    def __init__(self, app: str, way: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._way, self._clock = app, way, clock
        self._told: set[str] = set()
        self._since = clock()

    def warn(self, fields: Iterable[str]) -> None:
        """Never waits."""
        now = self._clock()
        if now - self._since >= self._PERIOD_S:
            self._since, self._told = now, set()
        for field in fields:
            if field in self._told:
                continue
            if len(self._told) < self._MAX_REMEMBERED:
                self._told.add(field)
            text = f"{self._way} does not support a field or its value; the push is sent without it"
            _few.warning((self._app, "left out"), text, game=self._app, field=field)
