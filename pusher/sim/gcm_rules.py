"""What Google's XMPP connection server refuses, and with which error.

Sources: "XMPP protocol reference" (legacy), tables "Targets, options, and payload for downstream XMPP messages" and
"Downstream message error response codes"; "Throttling and scaling" for the rate of a device. Fields that the first
table does not have are ignored. Tokens are not checked for their form: tests choose their own.

Rule: nothing here does I/O.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Of keys and values of ``data`` and ``notification``; half of it for topics.
MESSAGE_BYTES, TOPIC_MESSAGE_BYTES = 4_096, 2_048
MAX_TTL_S = 2_419_200
#: Of ``data``: these, and what begins with one of the others.
RESERVED_KEYS = frozenset(("from", "message_type", "collapse_key"))
RESERVED_BEGINNINGS = ("google", "gcm")
_MINUTE_S = 60.0

_KINDS: Mapping[str, tuple[type, str]] = {
    "to": (str, "String"),
    "condition": (str, "String"),
    "collapse_key": (str, "String"),
    "priority": (str, "String"),
    "content_available": (bool, "Boolean"),
    "mutable_content": (bool, "Boolean"),
    "time_to_live": (int, "Number"),
    "delivery_receipt_requested": (bool, "Boolean"),
    "dry_run": (bool, "Boolean"),
    "data": (dict, "Object"),
    "notification": (dict, "Object"),
}


class Nack(NamedTuple):
    """A nack: its error and the words with it."""

    error: str
    description: str


def refusal(message: Mapping[str, Any], size: int) -> Nack | None:
    """Why a message of ``size`` octets of JSON is refused; None: it is not."""
    for name, (kind, word) in _KINDS.items():
        value = message.get(name)
        if value is not None and type(value) is not kind:
            return _invalid(f'JSON_TYPE_ERROR : Field "{name}" must be a JSON {word}: {value}')
    return _target(message) or _time_to_live(message) or _data(message) or _size(message, size)


def acknowledgement_fault(message: Mapping[str, Any]) -> Nack | None:
    """Why the acknowledgement of a message from a device is refused."""
    if isinstance(message.get("to"), str) and isinstance(message.get("message_id"), str):
        return None
    return Nack("BAD_ACK", "The ack message is malformed")


def _invalid(description: str) -> Nack:
    return Nack("INVALID_JSON", f"InvalidJson: {description}"[:500])


def _target(message: Mapping[str, Any]) -> Nack | None:
    to, condition = message.get("to"), message.get("condition")
    if to and condition:
        return _invalid('Must use either "to" or "condition", not both')
    return None if to or condition else _invalid("MissingRegistration : Missing registration token")


def _time_to_live(message: Mapping[str, Any]) -> Nack | None:
    seconds = message.get("time_to_live")
    if seconds is None or 0 <= seconds <= MAX_TTL_S:
        return None
    return _invalid(f"InvalidTtl : time_to_live must be between 0 and {MAX_TTL_S}: {seconds}")


def _data(message: Mapping[str, Any]) -> Nack | None:
    for key in message.get("data") or ():
        if key in RESERVED_KEYS or key.startswith(RESERVED_BEGINNINGS):
            return _invalid(f"InvalidDataKey : {key}")
    return None


def _size(message: Mapping[str, Any], size: int) -> Nack | None:
    most = TOPIC_MESSAGE_BYTES if "condition" in message or message["to"].startswith("/topics/") else MESSAGE_BYTES
    if size <= most:
        return None
    parts = (message.get("data"), message.get("notification"))
    payload = sum(len(json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode()) for part in parts if part)
    return _invalid(f"MessageTooBig : {payload} bytes") if payload > most else None


class DeviceRate:
    """The most messages that a device may get in any minute; 0: any number."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._sent: dict[str, deque[float]] = {}

    def takes(self, token: str, now_s: float) -> bool:
        """Whether one more may go to the device; counts it then."""
        if not self.per_minute:
            return True
        sent = self._sent.setdefault(token, deque())
        while sent and now_s - sent[0] >= _MINUTE_S:
            sent.popleft()
        if len(sent) >= self.per_minute:
            return False
        sent.append(now_s)
        return True
