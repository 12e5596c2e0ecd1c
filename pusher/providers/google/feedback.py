"""The feedback record of pushes to Google, in field order.

Written by hand as bytes where the values need no escaping: one is made for every push.
"""

from __future__ import annotations

from collections.abc import Mapping

from pusher.push.feedback import SentFrom, metadata_of, sorted_json
from pusher.push.fields import Json, encode
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push


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
    metadata = metadata_of(origin, push, outcome, user_metadata)
    if outcome.provider_id:
        metadata["fcmName"] = outcome.provider_id
    head = encode(answer)[:-1] + f',"timestamp":{now_s},"metadata":'.encode()
    return head + sorted_json(metadata) + b"}"


def upstream_feedback(origin: SentFrom, message: Mapping[str, Json], now_s: int) -> bytes:
    """A message from Google that answers no push: a receipt, or a device's message.

    An ``error`` is not taken over: it would be read as the end of a token.
    """
    fields = {name: message.get(name) or "" for name in ("from", "message_id", "message_type", "category")}
    data = {"data": message["data"]} if message.get("data") is not None else {}
    metadata = dict(sorted(origin._asdict().items()))
    return encode({**fields, **data, "timestamp": now_s, "metadata": metadata})
