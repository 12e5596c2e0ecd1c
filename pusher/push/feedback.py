"""The feedback record, which consumers of outcomes read. Its topic is in ``topics``.

A provider may have its own form of feedback; ``plain_feedback`` serves all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from pusher.push.fields import Json, encode
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push

#: What only the sender says: a producer's member of that name goes to the device, but not into the feedback.
_OURS = frozenset({"deleteToken", "unregisteredAt", "timestamp", "Reason"})


class SentFrom(NamedTuple):
    """The fields about the sender in every feedback of an app."""

    game: str
    platform: str
    hostname: str


def plain_feedback(origin: SentFrom, push: Push, outcome: Outcome, now_s: int, *, user_metadata: bool = True) -> bytes:
    """The outcome of a push to a provider without a form of its own; ``reason`` and what follows only where set."""
    fields: dict[str, Json] = {"id": push.id, "token": push.token, "delivered": outcome.kind is Kind.DELIVERED}
    told = {
        "reason": outcome.reason,
        "description": outcome.description,
        "status": outcome.status,
        "providerId": outcome.provider_id,
    }
    fields |= {name: value for name, value in told.items() if value}
    metadata = metadata_of(origin, push, outcome, user_metadata)
    return encode({**fields, "timestamp": now_s, "metadata": dict(sorted(metadata.items()))})


def metadata_of(origin: SentFrom, push: Push, outcome: Outcome, user_metadata: bool) -> dict[str, Json]:
    """The metadata of an outcome: the producer's metadata, if wanted, and what the sender adds."""
    metadata = dict(push.metadata) if push.metadata and user_metadata else {}
    if not _OURS.isdisjoint(metadata):
        metadata = {name: value for name, value in metadata.items() if name not in _OURS}
    metadata["game"], metadata["platform"], metadata["hostname"] = origin
    if outcome.delete_token:
        metadata["deleteToken"] = True
    return metadata


def sorted_json(metadata: Mapping[str, Json]) -> bytes:
    """Compact JSON, the names in order."""
    try:
        return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Integers above 64 bits.
        return encode(dict(sorted(metadata.items())))
