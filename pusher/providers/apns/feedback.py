"""The feedback record of pushes to Apple, in field order.

Written by hand as bytes where the values need no escaping: one is made for every push.
"""

from __future__ import annotations

from pusher.push.feedback import SentFrom, metadata_of, sorted_json
from pusher.push.fields import encode
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push


def apns_feedback(origin: SentFrom, push: Push, outcome: Outcome, now_s: int, *, user_metadata: bool = True) -> bytes:
    """The outcome of a push to Apple: Sent, StatusCode, Reason, ApnsID, Err, DeviceToken, timestamp, metadata."""
    metadata = metadata_of(origin, push, outcome, user_metadata)
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
    return head + tail + sorted_json(metadata) + b"}"
