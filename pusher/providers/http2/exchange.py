"""One request and its end.

Every exchange handed to the engine ends exactly once, and `end` says how much is known about its fate: that is what
decides whether sending it again is free (`UNPROCESSED`), a further attempt (`RESET`, `LOST`, `TIMEOUT`) or pointless.
"""

import enum
from collections.abc import Sequence
from typing import Any

from pusher.providers.http2.header_block import Fields, refuse_line_breaks


class End(enum.IntEnum):
    """How an exchange ended."""

    OPEN = 0
    """It has not ended."""
    RESPONSE = 1
    """The peer answered: `status`, `headers` and `body_in` are set."""
    UNPROCESSED = 2
    """Certainly not processed: never written, above GOAWAY's last stream, or REFUSED_STREAM. It may be sent again."""
    RESET = 3
    """The peer reset the stream, or answered what is no HTTP: its fate is unknown, `error_code` says why."""
    LOST = 4
    """The connection was lost after the request was written: its fate is unknown."""
    TIMEOUT = 5
    """We gave up waiting and cancelled the stream: its fate is unknown."""


class Exchange:
    """A request and its end. `path` and the header section in `literals` (made by `literal_field`) go before `body`.

    `subject` is whatever the sender attached. The engine sets the rest: `sent_at` (monotonic seconds) is when the
    request was queued, then when its HEADERS were handed to TLS; `headers` is filled whenever the header block was
    decoded, which is always so when the status is neither 200 nor, 429 apart, 4xx; `body_in` is cut at
    `connection.MAX_BODY` octets. Raises ValueError for a path with CR, LF or NUL.
    """

    __slots__ = (
        "body",
        "body_in",
        "end",
        "error_code",
        "fields",
        "headers",
        "literals",
        "path",
        "sent_at",
        "status",
        "stream_id",
        "subject",
    )

    def __init__(self, subject: Any, fields: Fields, path: bytes, literals: bytes, body: bytes) -> None:
        refuse_line_breaks(path)
        self.subject = subject
        self.fields = fields
        self.path = path
        self.literals = literals
        self.body = body
        self.stream_id = 0
        self.sent_at = 0.0
        self.end = End.OPEN
        self.status = 0
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.body_in = b""
        self.error_code = 0

    def header(self, name: bytes) -> bytes | None:
        """The first response header of that (lower-case) name."""
        return next((value for known, value in self.headers if known == name), None)

    def __repr__(self) -> str:
        return f"<Exchange {self.stream_id} {self.end.name} status={self.status}>"
