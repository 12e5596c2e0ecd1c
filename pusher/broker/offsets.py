"""Which messages of a partition are finished, and what may therefore be committed.

Messages finish out of order; Kafka commits one number a partition.  A ``Tracker`` follows one partition during one
assignment to this process: ``admit`` takes records in, ``finish`` closes one, and the offset that may be committed is
the lowest unfinished one.  The commit's metadata string lists the offsets above it that are finished, as compact
ranges; the next owner of the partition skips them.

A tracker object *is* the generation: a push holds the tracker it came from, a new assignment makes a new tracker, and
a late answer finishes an offset of a tracker that is no longer committed.  Pure: no I/O, never waits.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

#: What a broker stores beside an offset (Kafka's offset.metadata.max.bytes).
MAX_METADATA_BYTES = 4096
_FORMAT = "pusher1:"
#: More finished offsets are damaged text, which must not make us fill the memory: a partition runs ahead by
#: ``queue.maxUncommitted``, a million at most, and what was fetched with the last of them.
_MAX_FINISHED = 2_000_000
_MAX_OFFSET = 2**63 - 1
_RANGE = re.compile(r"([0-9a-z]{1,13})\.([0-9a-z]{1,13})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class TopicPartition(NamedTuple):
    """The key of a partition. Equal to kafka-python's own named tuple of the same name."""

    topic: str
    partition: int


class HasOffset(Protocol):
    """What ``Tracker.admit`` needs to know about a record."""

    @property
    def offset(self) -> int:
        """Its offset in its partition."""
        ...


R = TypeVar("R", bound=HasOffset)


class Commit(NamedTuple):
    """What to commit for a partition: the lowest unfinished offset and the ranges finished above it."""

    offset: int
    metadata: str


class State(enum.Enum):
    """Whether pushes of a partition may be sent."""

    ACTIVE = "active"
    #: A rebalance is going on: what is not sent yet waits for its result.
    SUSPENDED = "suspended"
    #: Another process owns the partition: what is not sent yet is dropped, late answers touch no offset.
    GONE = "gone"


class Tracker:
    """One partition during one assignment."""

    __slots__ = ("_committed", "_done", "_next", "_open", "_passed_over", "fits", "key", "state")

    def __init__(self, key: TopicPartition, offset: int, metadata: str = "") -> None:
        self.key = key
        self.state = State.ACTIVE
        #: False while the finished ranges need more than MAX_METADATA_BYTES.
        self.fits = True
        self._next = offset
        self._open: deque[int] = deque()
        self._done = set(decode_ranges(offset, metadata))
        self._committed: Commit | None = None
        self._passed_over = 0

    @property
    def low(self) -> int:
        """The lowest unfinished offset, which is committed and at which a new owner starts."""
        return self._open[0] if self._open else self._next

    @property
    def span(self) -> int:
        """How far the partition was read ahead of its lowest unfinished message, in offsets."""
        return self._next - self.low

    @property
    def next_offset(self) -> int:
        """Where reading continues: after the last admitted offset and the finished offsets directly above it."""
        return self._next

    @property
    def unfinished(self) -> int:
        """How many admitted messages are not finished."""
        done = self._done
        return sum(1 for offset in self._open if offset not in done)

    def admit(self, records: Sequence[R]) -> Sequence[R]:
        """Takes records in, ascending by offset; returns those that are neither finished nor admitted before."""
        if not records:
            return records
        if records[0].offset < self._next:
            records = [record for record in records if record.offset >= self._next]
            if not records:
                return records
        self._open.extend([record.offset for record in records])
        self._next = records[-1].offset + 1
        if not self._done:
            return records
        done = self._done
        fresh = [record for record in records if record.offset not in done]
        self._passed_over += len(records) - len(fresh)
        self._advance()
        return fresh

    def take_passed_over(self) -> int:
        """How many records, since the last call, were passed over because an earlier owner had finished them."""
        number, self._passed_over = self._passed_over, 0
        return number

    def pass_to(self, offset: int) -> None:
        """Nothing is left to read below ``offset``: what was not admitted is no message (a transaction's marker)."""
        if offset > self._next:
            self._next = offset
            self._advance()

    def finish(self, offset: int) -> None:
        """Closes an admitted message. Called once for each."""
        self._done.add(offset)
        if self._open and self._open[0] == offset:
            self._advance()

    def finish_many(self, offsets: Iterable[int]) -> None:
        """Closes admitted messages. Called once for each."""
        self._done.update(offsets)
        self._advance()

    def due(self) -> Commit | None:
        """What to commit now; None when nothing changed since the commit last confirmed."""
        low = self.low
        if not self._open:
            # What an earlier owner finished and this one passed over is not met again.
            self._done = {offset for offset in self._done if offset > low}
        metadata, self.fits = _encode(low, self._finished())
        commit = Commit(low, metadata)
        return None if commit == self._committed else commit

    def confirm(self, commit: Commit) -> None:
        """The broker has stored this commit."""
        self._committed = commit

    def _finished(self) -> Iterator[tuple[int, int]]:
        """Half-open ranges above the lowest unfinished offset that hold no unfinished message, ascending.

        Offsets between admitted messages count: they are transactions' markers, aborted or compacted away.
        """
        done = self._done
        first = self.low + 1
        for offset in self._open:
            if offset not in done:
                if offset > first:
                    yield first, offset
                first = offset + 1
        beyond = list(_ranges(sorted(offset for offset in done if offset >= self._next)))
        if self._open and first < self._next:
            end = self._next
            if beyond and beyond[0][0] == end:
                end = beyond.pop(0)[1]
            yield first, end
        yield from beyond

    def _advance(self) -> None:
        pending, done = self._open, self._done
        while pending and pending[0] in done:
            done.remove(pending.popleft())
        if not pending:
            # What an earlier owner finished just here is passed over: a commit's ranges lie above its offset.
            while self._next in done:
                done.remove(self._next)
                self._next += 1


class Assignment:
    """The partitions that this process owns, by key."""

    def __init__(self) -> None:
        self.trackers: dict[TopicPartition, Tracker] = {}

    def assign(self, key: TopicPartition, offset: int, metadata: str = "") -> Tracker:
        """A partition is ours from ``offset`` on; ``metadata`` is what its last commit carried."""
        self.drop([key])
        tracker = self.trackers[key] = Tracker(key, offset, metadata)
        return tracker

    def suspend(self, keys: Iterable[TopicPartition]) -> None:
        """A rebalance has begun: these may be given to another process."""
        self._mark(keys, State.SUSPENDED)

    def keep(self, keys: Iterable[TopicPartition]) -> None:
        """The rebalance has not moved these partitions: their state is kept."""
        self._mark(keys, State.ACTIVE)

    def drop(self, keys: Iterable[TopicPartition]) -> None:
        """These are no longer ours."""
        for key in keys:
            tracker = self.trackers.pop(key, None)
            if tracker is not None:
                tracker.state = State.GONE

    def rooms(self, is_full: Callable[[str], bool], furthest: int) -> dict[TopicPartition, int]:
        """How many records each partition may get; those left out wait: full, or ``furthest`` ahead of their commit."""
        full: dict[str, bool] = {}
        rooms = {}
        for key, tracker in self.trackers.items():
            if key.topic not in full:
                full[key.topic] = is_full(key.topic)
            room = furthest - tracker.span
            if room > 0 and tracker.fits and not full[key.topic]:
                rooms[key] = room
        return rooms

    def due(self) -> dict[TopicPartition, Commit]:
        """All commits that are due."""
        commits = {key: tracker.due() for key, tracker in self.trackers.items()}
        return {key: commit for key, commit in commits.items() if commit is not None}

    def confirm(self, commits: dict[TopicPartition, Commit]) -> None:
        """The broker has stored these commits."""
        for key, commit in commits.items():
            if key in self.trackers:
                self.trackers[key].confirm(commit)

    def _mark(self, keys: Iterable[TopicPartition], state: State) -> None:
        for key in keys:
            if key in self.trackers:
                self.trackers[key].state = state


def encode_ranges(low: int, done: Iterable[int]) -> tuple[str, bool]:
    """The finished offsets above ``low`` as text: gap and length of each range in base 36, lowest first.

    Returns the text, cut after the last range that fits into MAX_METADATA_BYTES, and whether all of them fitted.
    """
    return _encode(low, _ranges(sorted(offset for offset in done if offset > low)))


def _encode(low: int, ranges: Iterable[tuple[int, int]]) -> tuple[str, bool]:
    parts: list[str] = []
    size = len(_FORMAT)
    end = low
    for first, last in ranges:
        part = f"{_base36(first - end)}.{_base36(last - first)}"
        size += len(part) + 1
        if size > MAX_METADATA_BYTES:
            return _FORMAT + ",".join(parts), False
        parts.append(part)
        end = last
    return (_FORMAT + ",".join(parts) if parts else ""), True


def decode_ranges(low: int, metadata: str) -> Sequence[int]:
    """The offsets that ``encode_ranges`` wrote. Text that it cannot have written, another program's, means none."""
    if not metadata.startswith(_FORMAT):
        return []
    offsets: list[int] = []
    end = low
    for part in metadata[len(_FORMAT) :].split(","):
        found = _RANGE.fullmatch(part)
        gap, length = (int(found[1], 36), int(found[2], 36)) if found else (0, 0)
        first, end = end + gap, end + gap + length
        if not gap or not length or end > _MAX_OFFSET or len(offsets) + length > _MAX_FINISHED:
            return []
        offsets.extend(range(first, end))
    return offsets


def _ranges(offsets: list[int]) -> Iterable[tuple[int, int]]:
    """Half-open ranges of ascending offsets."""
    first = last = None
    for offset in offsets:
        if first is None or last is None:
            first, last = offset, offset + 1
        elif offset == last:
            last += 1
        else:
            yield first, last
            first, last = offset, offset + 1
    if first is not None and last is not None:
        yield first, last


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text
