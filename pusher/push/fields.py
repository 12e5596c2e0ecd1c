"""The JSON of a push request and its fields: what every provider's requests have in common. Never waits.

Names of fields are matched without regard to case.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeAlias

import orjson

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

#: What JSON decodes to.
Json: TypeAlias = Any


class InvalidMessage(Exception):
    """A message that can never be sent. ``reason`` is the metric's tag, ``detail`` a line for the operator."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


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
