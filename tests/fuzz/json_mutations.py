"""Changes to JSON texts that leave them JSON: what random octets seldom do."""

from __future__ import annotations

import json
import random
from typing import Any

Json = Any

VALUES: tuple[Json, ...] = (
    None, True, False, 0, 1, -1, 5, 10, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 1.5, -0.0, 1e300, "", "1", "x",
    "a\r\nb", "\0", "\x7f", "\u2028", "\ufffe", "\ud800", "é\U0001f600", "[1,2]", "[", "100s", "/topics/a", "token",
    [], [1, "x"], {}, {"a": 1}, {"M": None}, {"M": 1},
)  # fmt: skip
NAMES = (
    "DeviceToken", "Payload", "metadata", "push_expiry", "collapse_id", "push_type", "priority", "topic", "aps", "M",
    "channel_id", "expiration", "mutable_content", "sound", "click_action", "subtitle", "body_loc_key", "apns",
    "to", "message_id", "data", "notification", "condition", "android", "ttl", "time_to_live", "dry_run", "badge",
    "body_loc_args", "content_available", "image", "Reason", "Sent", "error", "from", "message_type",
    "registration_id", "control_type", "reason", "timestamp", "status", "details", "@type", "errorCode",
    "access_token", "expires_in", "ApnsID", "Err", "Key",
)  # fmt: skip
DEPTHS = (100, 250, 260, 500, 900, 1_020)


def mutate_after_octet(data: bytes, source: random.Random) -> bytes:
    """The first octet is a choice, JSON follows."""
    return data[:1] + mutate(data[1:], source)


def mutate(data: bytes, source: random.Random) -> bytes:
    """What is no JSON, or too deep for Python, stays as it is."""
    try:
        return _mutated(json.loads(data), source)
    except (ValueError, RecursionError):
        return data


def _mutated(value: Json, source: random.Random) -> bytes:
    holder: Json = {"": value}
    places = [(holder, ""), *_places(value)]
    where, key = source.choice(places)
    action = source.randrange(7)
    if action == 0:
        where[key] = source.choice(VALUES)
    elif action == 1 and isinstance(where[key], dict):
        where[key][source.choice(NAMES)] = source.choice(VALUES)
    elif action == 2:
        where[key] = _copy(places, source)
    elif action == 3 and len(places) > 1 and isinstance(where, dict) and key:
        name = source.choice((key.upper(), key.lower(), key.title(), source.choice(NAMES)))
        where[name] = where.pop(key)
    elif action == 4 and isinstance(where[key], str):
        where[key] = where[key] * source.choice((2, 50, 2_000))
    elif action == 5:
        return _nested(holder, where, key, source)
    elif isinstance(where, dict) and len(where) > 1:
        del where[key]
    return _text(holder[""])


def _copy(places: list[tuple[Json, Json]], source: random.Random) -> Json:
    where, key = source.choice(places)
    return json.loads(json.dumps(where[key]))


def _places(value: Json) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def _nested(holder: Json, where: Json, key: Json, source: random.Random) -> bytes:
    """By text, for Python's own encoder gives up early."""
    depth = source.choice(DEPTHS)
    opening, closing = source.choice(((b"[", b"]"), (b'{"a":', b"}")))
    where[key] = "@nested@"
    return _text(holder[""]).replace(b'"@nested@"', opening * depth + b"1" + closing * depth)


def _text(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
