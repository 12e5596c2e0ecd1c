"""A push on its way, and what every kind of push request has in common: JSON, names without case, expiry, its id."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, TypeAlias

import orjson

from pusher.broker.interface import Record
from pusher.broker.offsets import Tracker

#: Header of a replayed record: ``topic/partition/offset/timestamp`` of the record that was sent first.
ORIGIN_HEADER = "pusher-origin"
#: Header of a record in an invalid topic, and of what is replayed from there.
SOURCE_TOPIC_HEADER = "source-topic"
#: Far above what a provider takes (4 to 5 KiB); what is larger is not worth a connection's window.
MAX_BODY_BYTES = 65_536
MAX_TOKEN_CHARACTERS = 4_096
#: Objects and arrays within one another: what has more could overflow the stack of whoever writes it again.
MAX_DEPTH = 400
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
#: An integer that may exceed 64 bits: orjson would make a float of it. The two below find the few messages that have
#: so many digits in a row, at a quarter of the expression's cost.
_LONG_NUMBER = re.compile(rb"[:\[,]\s*-?\d{19}").search
_DIGITS_TO_ZEROS = bytes(0x30 if chr(octet).isdigit() and octet < 0x80 else 0x20 for octet in range(256))
_MANY_DIGITS = b"0" * 19
#: The hash of the namespace, to go on from.
_NAMESPACE = hashlib.sha1(hashlib.sha1(b"pusher", usedforsecurity=False).digest()[:16], usedforsecurity=False)
#: The digit of a UUID that holds its variant, by the digit it takes the place of.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

#: What JSON decodes to.
Json: TypeAlias = Any


class InvalidMessage(Exception):
    """A message that can never be sent. ``reason`` is the metric's tag, ``detail`` a line for the operator."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Push:
    """One push request between its record and its outcome. Providers add what they send."""

    __slots__ = (
        "attempts",
        "expires_ms",
        "finished",
        "first_sent_at",
        "free_resends",
        "id",
        "metadata",
        "offset",
        "timestamp_ms",
        "token",
        "tracker",
        "ttl_s",
    )

    def __init__(self, record: Record, tracker: Tracker) -> None:
        self.tracker = tracker
        self.offset = record.offset
        #: When the producer handed it to the broker, milliseconds since the epoch.
        self.timestamp_ms = record.timestamp
        self.id = ""
        self.token = ""
        #: Milliseconds since the epoch; 0: never.
        self.expires_ms = 0
        #: Seconds after the first send beyond which a retry is worth nothing; None: no such limit.
        self.ttl_s: float | None = None
        #: What the producer attached for the feedback.
        self.metadata: dict[str, Json] | None = None
        #: Sends that were written to a provider's connection.
        self.attempts = 0
        #: Monotonic seconds of the first of them; 0.0 before it.
        self.first_sent_at = 0.0
        #: Sends in a row that the provider surely did not process.
        self.free_resends = 0
        self.finished = False


def decode_object(value: bytes | None) -> dict[str, Json]:
    """The JSON object in a record; numbers keep their exact value. Raises ``InvalidMessage``."""
    if value is None:
        raise InvalidMessage("not-json", "the record has no value")
    try:
        long = _MANY_DIGITS in value.translate(_DIGITS_TO_ZEROS) and _LONG_NUMBER(value)
        decoded = _decode_unusual(value) if long else orjson.loads(value)
    except orjson.JSONDecodeError:
        decoded = _decode_unusual(value)
    if not isinstance(decoded, dict):
        raise InvalidMessage("not-an-object", f"the message is a JSON {type(decoded).__name__}, not an object")
    # Few messages have brackets enough to be nested too deeply; only those are looked through.
    if len(value) > 2 * MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH and _is_deep(decoded):
        raise InvalidMessage("too-deep", f"the message is nested deeper than {MAX_DEPTH} levels")
    return decoded


def _is_deep(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [child for children in inner for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def encode(value: Json) -> bytes:
    """Compact JSON in UTF-8. Raises ``InvalidMessage`` for what is nested too deeply."""
    try:
        # A copy: orjson leaves its result in the 4 KiB that it began with.
        return b"%b" % orjson.dumps(value)
    except TypeError:
        # Integers above 64 bits, which orjson refuses.
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except RecursionError:
            raise InvalidMessage("too-deep", "JSON is nested too deeply") from None


def decode_metadata(value: Json) -> dict[str, Json] | None:
    """The field ``metadata``. Raises ``InvalidMessage``."""
    if value is None or isinstance(value, dict):
        return value
    raise InvalidMessage("bad-metadata", "metadata is not an object")


def decode_expiry(value: Json) -> int:
    """The field ``push_expiry``: milliseconds since the epoch, 0: never. Raises ``InvalidMessage``."""
    if value is None:
        return 0
    if type(value) is not int:
        raise InvalidMessage("bad-expiry", "push_expiry is not an integer")
    return max(value, 0)


def decode_token(value: Json, field: str) -> str:
    """A device token: RFC 3986's unreserved characters only. Raises ``InvalidMessage``."""
    if value is None or value == "":
        raise InvalidMessage("missing-token", f"{field} is missing")
    if not isinstance(value, str):
        raise InvalidMessage("bad-token", f"{field} is not a string")
    # Nearly all tokens are letters and digits, which is known at half the cost.
    good = (value.isascii() and value.isalnum()) or _UNRESERVED.issuperset(value)
    if len(value) > MAX_TOKEN_CHARACTERS or not good:
        raise InvalidMessage("bad-token", f"{field} has characters that no token has, or too many")
    return value


def merge(metadata: dict[str, Json], into: dict[str, Json]) -> None:
    """Sets each key of ``metadata`` unless it has a value that is not null there."""
    for key, value in metadata.items():
        if into.get(key) is None:
            into[key] = value


def origin(record: Record) -> str:
    """``topic/partition/offset/timestamp`` of the record sent first: a replayed one keeps that of its source."""
    for name, value in record.headers or ():
        if name == ORIGIN_HEADER and value:
            return value.decode("utf-8", "replace")
    return f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"


def derived_id(source: str) -> str:
    """The UUID (RFC 9562, version 5) of a push, the same whenever the same record is sent."""
    named = _NAMESPACE.copy()
    named.update(source.encode())
    digest = named.hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"


def _decode_unusual(value: bytes) -> Json:
    """What orjson refuses or would change: integers above 64 bits are right, the rest is wrong and gets said so."""
    try:
        decoded = json.loads(value, parse_float=_finite, parse_constant=_refuse_constant)
        encode(decoded)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("not-json", f"not JSON: {_one_line(error)}") from None
    return decoded


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number out of range")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
