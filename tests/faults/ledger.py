"""Every message of a run, what was expected of it, and what came of it.

A message carries its number in `metadata.number`, so that each feedback can be told whose it is, whatever else went
wrong. The rules: each message that can be sent has a feedback of the expected class; all feedbacks of a message have
the same id, and no two messages share one; an expired message has none; an invalid one has a record in the invalid
topic. Repeats of a feedback are allowed, and counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DELIVERED, REJECTED, FAILED, EXPIRED, INVALID = "delivered", "rejected", "failed", "expired", "invalid"
#: Any outcome that has a feedback.
FED_BACK = "fed back"
#: Ended without a trace in Kafka.
NO_TRACE = "no trace"
#: Delivered, or kept back by a limit without a trace.
LIMITED = "limited"
_FAILED_STATUS = (0, 429, 500, 502, 503, 504)
_FAILED_ERRORS = (
    "DEVICE_MESSAGE_RATE_EXCEEDED",
    "INTERNAL_SERVER_ERROR",
    "SERVICE_UNAVAILABLE",
    "ConnectionError",
    "Timeout",
)
_NUMBER_DIGITS = 60
#: Messages whose stories are told.
_STORIES = 5


class Position(NamedTuple):
    """Where a message stands in Kafka."""

    topic: str
    partition: int
    offset: int


class Feedback(NamedTuple):
    """What a feedback says."""

    id: str
    kind: str
    status: int
    reason: str


@dataclass
class Message:
    """One message of the run."""

    number: int
    expected: str
    position: Position
    feedbacks: list[Feedback] = field(default_factory=list)
    #: Records about it in invalid topics: the header `error`.
    invalid: list[str] = field(default_factory=list)

    def complaint(self) -> str:
        """What is wrong with it; "" when nothing is."""
        kinds = {feedback.kind for feedback in self.feedbacks}
        if len({feedback.id for feedback in self.feedbacks}) > 1:
            return "its feedbacks have different ids"
        if self.expected in (EXPIRED, INVALID, NO_TRACE) and kinds:
            return f"{self.expected}, and has a feedback"
        if self.expected == INVALID:
            return "" if self.invalid else "not in the invalid topic"
        if self.expected in (EXPIRED, NO_TRACE, LIMITED):
            kinds -= {DELIVERED} if self.expected == LIMITED else set()
            return "in the invalid topic" if self.invalid else f"{kinds}" if kinds else ""
        if not kinds:
            return "no feedback"
        return "" if self.expected == FED_BACK or kinds == {self.expected} else f"expected to be {self.expected}"


def of_apple(record: dict[str, Any]) -> Feedback:
    status = record["StatusCode"]
    kind = DELIVERED if record["Sent"] else FAILED if status in _FAILED_STATUS else REJECTED
    return Feedback(record["ApnsID"], kind, status, record["Reason"])


def of_google(record: dict[str, Any]) -> Feedback:
    error = record.get("error", "")
    kind = DELIVERED if record["message_type"] == "ack" else FAILED if error in _FAILED_ERRORS else REJECTED
    return Feedback(record["message_id"], kind, 0, error)


class Counts(NamedTuple):
    """All feedbacks, repeats too."""

    delivered: int
    not_delivered: int


class Verdict(NamedTuple):
    """What became of a run."""

    messages: int
    #: Messages by the class of their outcome.
    outcomes: Counter[str]
    #: Messages without what they should have.
    missing: int
    #: Feedbacks beyond the first of each message, and how many of them are not equal in id.
    repeats: int
    distinct_ids: int
    #: Messages with a feedback at least.
    fed_back: int
    complaints: list[str]

    @property
    def good(self) -> bool:
        return not self.complaints

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.outcomes[kind]:,} {kind}" for kind in sorted(self.outcomes))
        head = (
            f"{self.messages:,} messages: {kinds}; {self.missing:,} missing, {self.repeats:,} repeats, "
            f"{self.distinct_ids:,} distinct ids"
        )
        return "\n".join([head, *self.complaints])


class Ledger:
    """Compares what was produced with what came back."""

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        self._at: dict[Position, Message] = {}
        #: Messages that should have a feedback or an invalid record and have none yet.
        self.waiting = 0
        #: Messages without a feedback that may remain so, because of a limit.
        self.kept_back = 0
        self.strangers: list[str] = []

    @property
    def settled(self) -> int:
        """Messages that have what was waited for."""
        return len(self.messages) - self.waiting - self.kept_back

    def ends(self) -> dict[tuple[str, int], int]:
        """The offset after the last message, by topic and partition."""
        found: dict[tuple[str, int], int] = {}
        for topic, partition, offset in self._at:
            found[topic, partition] = max(found.get((topic, partition), 0), offset + 1)
        return found

    def produced(self, number: int, expected: str, position: Position) -> None:
        message = self.messages[number] = self._at[position] = Message(number, expected, position)
        if message.expected == LIMITED:
            self.kept_back += 1
        elif message.expected not in (EXPIRED, NO_TRACE):
            self.waiting += 1

    def fed_back(self, record: dict[str, Any]) -> None:
        """A feedback, decoded."""
        message = self.messages.get(record["metadata"].get("number", _number_in_token(record)))
        if message is None:
            self.strangers.append(f"a feedback of no message: {record}")
            return
        if not message.feedbacks and message.expected == LIMITED:
            self.kept_back -= 1
        elif not message.feedbacks and message.expected not in (EXPIRED, INVALID, NO_TRACE):
            self.waiting -= 1
        message.feedbacks.append(of_google(record) if "message_type" in record else of_apple(record))

    def found_invalid(self, headers: dict[str, bytes]) -> None:
        """A record in an invalid topic."""
        position = Position(
            headers["source-topic"].decode(), int(headers["source-partition"]), int(headers["source-offset"])
        )
        message = self._at.get(position)
        if message is None:
            self.strangers.append(f"an invalid record of no message: {position}")
            return
        if not message.invalid and message.expected == INVALID:
            self.waiting -= 1
        message.invalid.append(headers["error"].decode())

    def counts(self) -> Counts:
        feedbacks = [feedback for message in self.messages.values() for feedback in message.feedbacks]
        delivered = sum(1 for feedback in feedbacks if feedback.kind == DELIVERED)
        return Counts(delivered, len(feedbacks) - delivered)

    def verdict(self, tell: dict[str, str] | None = None, requests: list[tuple[str, str, int, str]] = []) -> Verdict:  # noqa: B006
        """The comparison. `tell` are logs by name, `requests` what the provider saw, for stories of what is wrong."""
        outcomes: Counter[str] = Counter()
        wrong: list[tuple[Message, str]] = []
        ids: Counter[str] = Counter()
        for message in self.messages.values():
            complaint = message.complaint()
            if complaint:
                wrong.append((message, complaint))
            ids.update({feedback.id for feedback in message.feedbacks})
            outcomes[message.feedbacks[-1].kind if message.feedbacks else message.expected] += 1
        complaints = [
            f"message {message.number}: {complaint}\n" + story(message, tell or {}, requests)
            for message, complaint in wrong[:_STORIES]
        ]
        complaints += [f"... and {len(wrong) - _STORIES} more"] if len(wrong) > _STORIES else []
        complaints += [f"{n} messages share the id {id_}" for id_, n in ids.items() if n > 1][:_STORIES]
        complaints += self.strangers[:_STORIES]
        feedbacks = sum(len(message.feedbacks) for message in self.messages.values())
        fed_back = sum(1 for message in self.messages.values() if message.feedbacks)
        return Verdict(len(self.messages), outcomes, self.waiting, feedbacks - fed_back, len(ids), fed_back, complaints)


def story(message: Message, logs: dict[str, str], requests: list[tuple[str, str, int, str]]) -> str:
    """All that is known of a message."""
    topic, partition, offset = message.position
    lines = [f"  expected {message.expected}; {topic}/{partition}/{offset}"]
    lines += [f"  feedback {feedback}" for feedback in message.feedbacks]
    lines += [f"  invalid: {error}" for error in message.invalid]
    ids = {feedback.id for feedback in message.feedbacks}
    token = token_of(message.number)
    lines += [f"  provider saw {entry}" for entry in requests if entry[0] in ids or entry[1].endswith(token)]
    marks = (f"topic={topic} partition={partition} offset={offset}\n", f"{topic}/{partition}/{offset}/")
    for name, text in logs.items():
        lines += [f"  {name}: {line}" for line in text.splitlines() if any(mark.strip() in line for mark in marks)]
    return "\n".join(lines)


def token_of(number: int) -> str:
    """The end of the device token of a message: its number."""
    return f"{number:0{_NUMBER_DIGITS}x}"


def _number_in_token(record: dict[str, Any]) -> int:
    """Of a feedback without the producer's metadata."""
    return int((record.get("DeviceToken") or record["from"])[-_NUMBER_DIGITS:], 16)
