"""What makes two pushes to a device the same: JSON as Go's encoding/json writes it, so that both programs agree.

Members are sorted, numbers are doubles, ``< > &`` and U+2028 and U+2029 are escaped.
"""

from __future__ import annotations

import re
from decimal import Decimal

import orjson

from pusher.push.fields import Json

_ESCAPED = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
#: Numbers that Go and orjson write differently, or that have more digits than a double.
_UNUSUAL_NUMBER = re.compile(rb"(?:^|[:\[,])-?(?:\d+[.eE]|\d{16})").search
#: Without any of these octets a text is as Go writes it, which is nearly always so.
_TELLTALE = b"<>&\xe20123456789"
_EXACT_BELOW = 2**53


def canonical(value: Json) -> bytes:
    """Compact JSON in UTF-8."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(text.translate(None, _TELLTALE)) == len(text):
        return text
    if _UNUSUAL_NUMBER(text):
        text = orjson.dumps(_as_doubles(orjson.loads(text)), option=orjson.OPT_SORT_KEYS)
    return _ESCAPED.sub(_escape, text)


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def _as_doubles(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _as_doubles(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_doubles(one) for one in value]
    if isinstance(value, float) or (type(value) is int and abs(value) >= _EXACT_BELOW):
        return orjson.Fragment(_double(float(value)))
    return value


def _double(value: float) -> str:
    """As Go writes a float64: shortest digits, with an exponent below 1e-6 and from 1e21 on."""
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    digits, _, exponent = repr(value).removesuffix(".0").partition("e")
    return f"{digits}e{exponent.replace('-0', '-')}"
