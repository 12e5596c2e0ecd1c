"""A push: what its provider sends, and its position in its source."""

from __future__ import annotations

import hashlib

from pusher.broker.offsets import Tracker
from pusher.push.fields import Json

#: The hash of the namespace, to go on from.
_NAMESPACE = hashlib.sha1(hashlib.sha1(b"pusher", usedforsecurity=False).digest()[:16], usedforsecurity=False)
#: The digit of a UUID that holds its variant, by the digit it takes the place of.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Push:
    """One push request between its parser and its outcome. Providers add what they send."""

    __slots__ = (
        "admitted",
        "attempts",
        "content",
        "expires_ms",
        "finished",
        "first_sent_at",
        "free_resends",
        "id",
        "in_outage",
        "metadata",
        "offset",
        "timestamp_ms",
        "token",
        "tracker",
        "ttl_s",
        "uncounted",
        "untold",
    )

    #: Where it stands in its source. The pipeline sets these three: a parser knows no broker.
    tracker: Tracker
    offset: int
    #: When the producer handed it to the broker, milliseconds since the epoch.
    timestamp_ms: int
    #: Feedback reporters that have not stored its outcome. The lane sets it when the push ends.
    untold: int
    #: Set where pushes are limited: what is compared to find duplicates, and that this one was counted already.
    content: bytes
    admitted: bool

    def __init__(self) -> None:
        self.id = ""
        self.token = ""
        #: Milliseconds since the epoch; 0: never.
        self.expires_ms = 0
        #: Seconds after the first send beyond which a retry is worth nothing; None: no such limit.
        self.ttl_s: float | None = None
        #: What the producer attached for the feedback.
        self.metadata: dict[str, Json] | None = None
        #: Sends that were written to a provider's connection.
        self.attempts = 0
        #: Monotonic seconds of the first of them; 0.0 before it.
        self.first_sent_at = 0.0
        #: Attempts in a row that the provider certainly did not process.
        self.free_resends = 0
        #: Sends that an outage of the provider has undone, and whether it waits for the end of one.
        self.uncounted = 0
        self.in_outage = False
        self.finished = False


def derived_id(source: str) -> str:
    """The UUID (RFC 9562, version 5) of a push, the same whenever the same record is sent."""
    named = _NAMESPACE.copy()
    named.update(source.encode())
    digest = named.hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"
