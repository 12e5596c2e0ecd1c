"""The feedback record: what consumers of outcomes read, in field order. Its topic is in ``topics``.

Written by hand as bytes where the values need no escaping: a feedback is made for every push.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from pusher.push.fields import Json, encode
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push

#: What only the sender says: a producer's member of that name goes to the device, but not into the feedback.
_OURS = ("deleteToken", "unregisteredAt", "timestamp", "Reason")


class SentFrom(NamedTuple):
    """What every feedback of an app says about where it was sent from."""

    game: str
    platform: str
    hostname: str


def apns_feedback(origin: SentFrom, push: Push, outcome: Outcome, now_s: int, *, user_metadata: bool = True) -> bytes:
    """The outcome of a push to Apple: Sent, StatusCode, Reason, ApnsID, Err, DeviceToken, timestamp, metadata."""
    metadata = _metadata(origin, push, outcome, user_metadata)
    metadata["deviceToken"] = push.token
    if outcome.provider_id:
        metadata["apnsUniqueId"] = outcome.provider_id
    if outcome.unregistered_at_ms:
        metadata["unregisteredAt"] = outcome.unregistered_at_ms
    if outcome.kind is Kind.DELIVERED:
        head = f'{{"Sent":true,"StatusCode":200,"Reason":"","ApnsID":"{push.id}","Err":null'.encode()
    else:
        head = encode(
            {
                "Sent": False,
                "StatusCode": outcome.status,
                "Reason": outcome.reason,
                "ApnsID": push.id,
                "Err": {"Key": outcome.key, "Description": outcome.description or outcome.reason},
            }
        )[:-1]
    tail = f',"DeviceToken":"{push.token}","timestamp":{now_s},"metadata":'.encode()
    return head + tail + _sorted(metadata) + b"}"


def google_feedback(origin: SentFrom, push: Push, outcome: Outcome, now_s: int, *, user_metadata: bool = True) -> bytes:
    """The outcome of a push to Google, one shape for XMPP and HTTP v1; ``error`` and what follows only where set."""
    answer: dict[str, Json] = {
        "from": push.token,
        "message_id": push.id,
        "message_type": "ack" if outcome.kind is Kind.DELIVERED else "nack",
    }
    if outcome.registration_id:
        answer["registration_id"] = outcome.registration_id
    if outcome.kind is not Kind.DELIVERED:
        answer["error"] = outcome.reason
        if outcome.description:
            answer["error_description"] = outcome.description
    answer["category"] = ""
    metadata = _metadata(origin, push, outcome, user_metadata)
    if outcome.provider_id:
        metadata["fcmName"] = outcome.provider_id
    head = encode(answer)[:-1] + f',"timestamp":{now_s},"metadata":'.encode()
    return head + _sorted(metadata) + b"}"


def upstream_feedback(origin: SentFrom, message: Mapping[str, Json], now_s: int) -> bytes:
    """What came from Google and answers no push: a receipt, or a device's message.

    An ``error`` is not taken over: it would be read as the end of a token.
    """
    fields = {name: message.get(name) or "" for name in ("from", "message_id", "message_type", "category")}
    data = {"data": message["data"]} if message.get("data") is not None else {}
    metadata = dict(sorted(origin._asdict().items()))
    return encode({**fields, **data, "timestamp": now_s, "metadata": metadata})


def _metadata(origin: SentFrom, push: Push, outcome: Outcome, user_metadata: bool) -> dict[str, Json]:
    metadata = dict(push.metadata) if push.metadata and user_metadata else {}
    for name in _OURS:
        metadata.pop(name, None)
    metadata["game"], metadata["platform"], metadata["hostname"] = origin
    if outcome.delete_token:
        metadata["deleteToken"] = True
    return metadata


def _sorted(metadata: Mapping[str, Json]) -> bytes:
    try:
        return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Integers above 64 bits.
        return encode(dict(sorted(metadata.items())))
