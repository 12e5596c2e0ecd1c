"""The account of a stream of messages that is too long to keep: a byte a message, whatever comes back of it.

Numbers run from 0 without gaps. The low four bits of a message's byte count its feedbacks (15 and more are one), the
high ones say which classes of outcome they told.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import orjson

from tests.faults.ledger import DELIVERED, FAILED, REJECTED, of_apple, of_google

_NUMBER = re.compile(rb'"number":(\d+)')
_SENT_AT = re.compile(rb'"at":(\d+)')
_MOST = 0x0F
_BITS = {DELIVERED: 0x10, REJECTED: 0x20, FAILED: 0x40}
_KINDS = {bit: kind for kind, bit in _BITS.items()}


class Told(NamedTuple):
    """What one feedback says."""

    number: int
    kind: str
    #: When its message was written (ms since the epoch).
    sent_ms: int


def read_feedback(value: bytes) -> Told:
    """Looks for the few members that count; only what was not delivered is decoded. ValueError for anything else."""
    number, sent_at = _NUMBER.search(value), _SENT_AT.search(value)
    if number is None or sent_at is None:
        raise ValueError(f"a feedback of no message: {value!r}")
    return Told(int(number[1]), _kind(value), int(sent_at[1]))


def _kind(value: bytes) -> str:
    if value.startswith(b'{"Sent":true,') or b'"message_type":"ack"' in value:
        return DELIVERED
    record = orjson.loads(value)
    return (of_google(record) if "message_type" in record else of_apple(record)).kind


class Totals(NamedTuple):
    """How an account stands."""

    messages: int
    #: Messages without a feedback.
    missing: int
    #: Feedbacks beyond the first of each message.
    repeats: int
    #: Messages whose feedbacks do not agree.
    mixed: int
    #: Messages by the class of their outcome.
    outcomes: dict[str, int]
    #: Messages to dead tokens that were delivered, and to living ones that were refused.
    wrong: int

    @property
    def good(self) -> bool:
        return not (self.missing or self.mixed or self.wrong)


class Account:
    """Of one stream. Every `dead_every`-th message goes to a dead token and has to be rejected."""

    def __init__(self, dead_every: int) -> None:
        self._dead_every = dead_every
        self._seen = bytearray()
        #: Messages that have a feedback, and feedbacks in all.
        self.settled = self.feedbacks = 0

    @property
    def produced(self) -> int:
        return len(self._seen)

    def produce(self) -> int:
        """The number of the next message."""
        self._seen.append(0)
        return len(self._seen) - 1

    def is_dead(self, number: int) -> bool:
        """Whether the message goes to a dead token."""
        return number % self._dead_every == self._dead_every - 1

    def settle(self, number: int, kind: str) -> None:
        """Notes a feedback. ValueError for a number that was never produced."""
        if number >= len(self._seen):
            raise ValueError(f"a feedback of a message that was never produced: {number}")
        before = self._seen[number]
        self._seen[number] = min((before & _MOST) + 1, _MOST) | (before & ~_MOST) | _BITS[kind]
        self.feedbacks += 1
        self.settled += not before

    def totals(self) -> Totals:
        """Looks at all of it: some 50 ms a million messages."""
        dead = Counter(self._seen[self._dead_every - 1 :: self._dead_every])
        every = Counter(self._seen)
        outcomes: Counter[str] = Counter()
        for byte, count in every.items():
            if (kind := _KINDS.get(byte & ~_MOST)) is not None:
                outcomes[kind] += count
        living = every - dead
        return Totals(
            messages=self.produced,
            missing=every[0],
            repeats=self.feedbacks - self.settled,
            mixed=sum(count for byte, count in every.items() if byte and byte & ~_MOST not in _KINDS),
            outcomes=dict(outcomes),
            wrong=_with(dead, DELIVERED) + _with(living, REJECTED),
        )

    def missing(self, most: int = 5) -> list[int]:
        """The first numbers without a feedback."""
        found: list[int] = []
        at = self._seen.find(0)
        while at >= 0 and len(found) < most:
            found.append(at)
            at = self._seen.find(0, at + 1)
        return found


def _with(bytes_: Counter[int], kind: str) -> int:
    return sum(count for byte, count in bytes_.items() if byte & _BITS[kind])
