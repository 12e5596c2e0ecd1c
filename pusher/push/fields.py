"""The JSON of a push request and its fields: what every provider's requests have in common. Never waits.

The case of field names does not matter. If a field is given twice, the last value that is not null counts; several
``metadata`` are merged. Numbers keep their text exactly. Bytes that are not UTF-8, and an unpaired surrogate (a text
that a producer has cut inside of an emoji), become U+FFFD.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

import orjson

#: Far above what a provider takes (4 to 5 KiB); what is larger is not worth a connection's window.
MAX_BODY_BYTES = 65_536
MAX_TOKEN_CHARACTERS = 4_096
#: Objects and arrays within one another: orjson writes 254 of them, and what is merged adds some.
MAX_DEPTH = 240
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
#: A value is judged before it is decoded: as large as Kafka takes by default, and some.
MAX_MESSAGE_BYTES = 1_100_000
#: Numbers of which orjson would make others: fractions, exponents, and integers that may exceed 64 bits.
_BLANKS = b" \t\r\n"
_INEXACT_NUMBER = re.compile(rb"[:\[,]\s*-?(?:\d+[.eE]|\d{19})").search
_NAMES = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:').findall
_METADATA = "metadata"

#: What JSON decodes to.
Json: TypeAlias = Any


class InvalidMessage(Exception):
    """A message that can never be sent. ``reason`` is the metric's tag, ``detail`` a line for the operator."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def decode_object(value: bytes | None) -> dict[str, Json]:
    """The JSON object in a record. Raises ``InvalidMessage``."""
    if value is None:
        raise InvalidMessage("not-json", "the record has no value")
    if len(value) > MAX_MESSAGE_BYTES:
        raise InvalidMessage("too-large", f"the message has {len(value)} bytes, {MAX_MESSAGE_BYTES} at most")
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError:
        decoded = _decode_exactly(value)
        _refuse_depth(value, decoded)
    else:
        _refuse_depth(value, decoded)
        # What comes out as it went in has lost nothing; of the rest only what looks unusual is read exactly.
        written = orjson.dumps(decoded)
        if written != value and not _differ_in_blanks_alone(written, value) and _is_unusual(value):
            decoded = _decode_exactly(value)
    if not isinstance(decoded, dict):
        raise InvalidMessage("not-an-object", f"the message is a JSON {type(decoded).__name__}, not an object")
    return decoded


def _differ_in_blanks_alone(one: bytes, other: bytes) -> bool:
    """Blanks in strings go too, in both alike. Costs half a microsecond."""
    return one.translate(None, _BLANKS) == other.translate(None, _BLANKS)


def _refuse_depth(value: bytes, decoded: Json) -> None:
    # Few messages have brackets enough to be nested too deeply; only those are looked through.
    if len(value) > 2 * MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH and _is_deep(decoded):
        raise InvalidMessage("too-deep", f"the message is nested deeper than {MAX_DEPTH} levels")


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
    except TypeError as error:
        raise InvalidMessage("too-deep", f"JSON is nested too deeply: {_one_line(error)}") from None


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
        raise InvalidMessage(
            "bad-token", f"{field} has too many characters, or characters that are not allowed in a token"
        )
    return value


def merge(metadata: dict[str, Json], into: dict[str, Json]) -> None:
    """Sets each key of ``metadata`` unless it has a value that is not null there."""
    for key, value in metadata.items():
        if into.get(key) is None:
            into[key] = value


def _is_unusual(value: bytes) -> bool:
    """Whether numbers or names may have been lost in decoding. Costs some 10 microseconds."""
    if _INEXACT_NUMBER(value):
        return True
    names = _NAMES(value)
    return len({name.lower() for name in names}) < len(names)


def _decode_exactly(value: bytes) -> Json:
    """Slowly: numbers keep their text, duplicates are seen, cut characters are repaired."""
    text = value.decode("utf-8", "replace")
    outermost: list[tuple[str, Json]] = []

    def note(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        nonlocal outermost
        outermost = pairs  # the last object that ends is the one around all others
        return dict(pairs)

    try:
        decoded = json.loads(
            text, parse_float=_exactly, parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=note
        )
        if isinstance(decoded, dict):
            decoded = _without_duplicates(outermost)
        if "\\u" in text:
            decoded = _repaired(decoded, MAX_DEPTH)
    except RecursionError:
        raise InvalidMessage("too-deep", f"the message is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidMessage("not-json", f"not JSON: {_one_line(error)}") from None
    return decoded


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Of the outermost fields: the last one that is not null holds, in its place; of ``metadata`` all are merged."""
    fields: dict[str, Json] = {}
    for name, value in pairs:
        before = fields.get(name)
        if value is None and before is not None:
            continue
        if name.lower() == _METADATA and isinstance(value, dict) and isinstance(before, dict):
            value = {**before, **value}
        fields.pop(name, None)
        fields[name] = value
    return fields


def _repaired(value: Json, depth: int) -> Json:
    """Halves of characters become U+FFFD: they cannot be encoded."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not depth:
        raise InvalidMessage("too-deep", f"the message is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_repaired(name, depth): _repaired(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_repaired(one, depth - 1) for one in value]
    return value


def _exactly(text: str) -> Json:
    return orjson.Fragment(text.encode())


def _integer(text: str) -> Json:
    return int(text) if len(text) < 19 else _exactly(text)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
