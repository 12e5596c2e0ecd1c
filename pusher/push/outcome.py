"""The possible outcomes of a push."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    """consumed = delivered + rejected + failed + expired + invalid + limited."""

    #: The provider has accepted it.
    DELIVERED = "delivered"
    #: The provider has refused it for good.
    REJECTED = "rejected"
    #: No final answer could be had: connection errors, time-outs, or the last try ended in a retryable answer.
    FAILED = "failed"
    #: Its expiry passed before it was sent.
    EXPIRED = "expired"
    #: It can never be sent.
    INVALID = "invalid"
    #: Its device has had enough of them, or this one already.
    LIMITED = "limited"

    #: Each push is counted by its kind, and Enum's own hash is written in Python.
    __hash__ = object.__hash__


#: Outcomes without a feedback.
WITHOUT_FEEDBACK = frozenset((Kind.EXPIRED, Kind.INVALID, Kind.LIMITED))


class Outcome(NamedTuple):
    """The outcome of a push, with the provider's reason and pusher's key."""

    kind: Kind
    #: HTTP status; 0 where there was none.
    status: int = 0
    #: The provider's own word: Apple's reason, Google's error name.
    reason: str = ""
    #: The reason as consumers of feedbacks and metrics know it, e.g. ``bad-device-token``.
    key: str = ""
    #: Words for people.
    description: str = ""
    #: The token is dead and may be deleted.
    delete_token: bool = False
    #: Milliseconds since the epoch at which Apple learned that the token is dead; 0 where unknown.
    unregistered_at_ms: int = 0
    #: Further facts for the feedback, such as a canonical registration id.
    registration_id: str = ""
    #: The provider's own id of the push.
    provider_id: str = ""


DELIVERED = Outcome(Kind.DELIVERED, status=200)
EXPIRED = Outcome(Kind.EXPIRED, reason="expired", key="expired")
CONNECTION_ERROR = Outcome(Kind.FAILED, reason="ConnectionError", key="connection-error")
#: Our own fault.
INTERNAL_ERROR = Outcome(Kind.FAILED, reason="InternalError", key="internal-error")
RATE_LIMITED = Outcome(Kind.LIMITED, reason="RateLimit", key="rate-limit")
DUPLICATE = Outcome(Kind.LIMITED, reason="Duplicate", key="duplicate")
TIMEOUT = Outcome(Kind.FAILED, reason="Timeout", key="timeout")
