"""What is known about the messages of a range: which are finished, have a feedback, are invalid, or have a copy.

Memory is bounded by the range, whatever the other topics hold: an id costs about 125 bytes here, 160 after a failure,
and a range of more than ``MAX_MESSAGES`` is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pusher.broker.interface import Record
from pusher.broker.offsets import Commit, decode_ranges
from pusher.commands.replay.message import Key, key_of, origin_key_of, read_feedback
from pusher.errors import StartError
from pusher.push.origin import has_origin

MAX_MESSAGES = 5_000_000

#: What a message's number says in its low bits; above them stands when its last failure was fed back, in ms.
DELIVERED, FAILED, WANTED, DEAD, INVALID, COPIED, TAKEN = (1 << bit for bit in range(7))
_BITS = 7
_LAST_FAILURE = FAILED | WANTED | DEAD
_FACTS = (1 << _BITS) - 1


class Known:
    """Facts by the keys of messages. Facts of others are not kept."""

    def __init__(self) -> None:
        self._facts: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Adds a message of the range. Raises ``StartError`` if there are too many."""
        self._facts.setdefault(key, 0)
        if len(self._facts) > MAX_MESSAGES:
            raise StartError(f"more than {MAX_MESSAGES:,} messages: replay a shorter range")

    def of(self, key: Key) -> int:
        """All facts about a message."""
        return self._facts.get(key, 0) & _FACTS

    def mark(self, key: Key, fact: int) -> None:
        """One more fact."""
        if key in self._facts:
            self._facts[key] |= fact

    def mark_failure(self, key: Key, facts: int, time_ms: int) -> None:
        """A failure; the last one counts, whichever is read first."""
        found = self._facts.get(key)
        if found is not None and time_ms >= found >> _BITS:
            self._facts[key] = found & _FACTS & ~_LAST_FAILURE | FAILED | facts | max(0, time_ms) << _BITS

    # --- where facts come from

    def note_feedbacks(self, records: Iterable[Record], reasons: frozenset[str]) -> None:
        """Outcomes. Failures for one of ``reasons`` are WANTED, all where there are none."""
        for record in records:
            feedback = read_feedback(record.value)
            if feedback is None:
                continue
            key = key_of(feedback.id)
            if feedback.delivered:
                self.mark(key, DELIVERED)
            else:
                wanted = WANTED if not reasons or not reasons.isdisjoint(feedback.reasons) else 0
                self.mark_failure(key, wanted | (DEAD if feedback.dead else 0), record.timestamp)

    def note_copies(self, records: Iterable[Record], fact: int, finished: Finished) -> None:
        """Records that carry the origin of another: copies in a target topic, or what an invalid topic holds."""
        for record in records:
            if finished.has(record.partition, record.offset):
                continue
            if has_origin(record):
                self.mark(origin_key_of(record), fact)


class Finished:
    """The offsets that a group has finished in a topic; none without commits."""

    def __init__(self, commits: Mapping[int, Commit] | None = None) -> None:
        self._commits = commits or {}
        self._above = {p: set(decode_ranges(*commit)) for p, commit in self._commits.items()}

    def has(self, partition: int, offset: int) -> bool:
        """Whether the group is through with it."""
        commit = self._commits.get(partition)
        return commit is not None and (offset < commit.offset or offset in self._above[partition])

    @property
    def starts(self) -> dict[int, int]:
        """The lowest unfinished offset of each partition with a commit."""
        return {partition: commit.offset for partition, commit in self._commits.items()}
