"""The partitions that one member of a group owns, through rebalances, and where each begins.

When a rebalance begins, all partitions are suspended and finished offsets are committed. When it ends, partitions that
stay continue where they were; new ones are paused until ``open`` knows their start and, if nothing was committed for
them, has committed it. Positions are always set explicitly, because the library keeps its own through a rebalance.

The listener is called in the library's I/O greenlet, while the consuming greenlet waits in the library's poll; all else
runs in the consuming greenlet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import FencedInstanceIdError, TopicAuthorizationFailedError
from kafka.structs import OffsetAndMetadata

from pusher.broker.failing import Failing
from pusher.broker.interface import LEFT_OUT
from pusher.broker.kafka.client import Consumer, Partition
from pusher.broker.offsets import Assignment, Commit, TopicPartition
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: The longest wait of a commit, and of each question about offsets.
ANSWER_MS = 3000


class Share(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the library is untyped
    """The partitions of a consumer, and its rebalance listener. ``consumer`` may be replaced after ``give_up``."""

    def __init__(self, assignment: Assignment, group: str, offset_reset: str, consumer: Consumer) -> None:
        self.assignment = assignment
        self.consumer = consumer
        #: How often a position was out of range, by topic.
        self.out_of_range: Counter[str] = Counter()
        #: Messages that a new group left out because it began at the end, by topic.
        self.start_skipped: Counter[str] = Counter()
        #: Assigned partitions whose start is not known yet; they are paused.
        self.unopened: set[TopicPartition] = set()
        #: Opened partitions that are paused.
        self.held: set[TopicPartition] = set()
        #: Whether partitions without a commit are later ones, which begin at the earliest offset.
        self.begun = False
        #: Partitions that are left alone for a while.
        self.failing = Failing()
        self._group, self._offset_reset = group, offset_reset

    def commit(self) -> None:
        """Commits what is finished; a failure is logged, and the commit is due again. May wait some 3 s."""
        due = self.assignment.due()
        if not due:
            return
        try:
            denied = self._store(due)
        except Exception as error:  # noqa: BLE001  # what ended the I/O greenlet comes out here too; poll deals with it
            self.consumer.fenced |= isinstance(error, FencedInstanceIdError)
            _seldom.warning(("commit", self._group), "commit failed, retrying", group=self._group, error=error)
        else:
            self.assignment.confirm({key: commit for key, commit in due.items() if key.topic not in denied})

    def _store(self, commits: dict[TopicPartition, Commit]) -> set[str]:
        """Commits; returns the topics for which we have no right to. The brokers store what others have."""
        try:
            self.consumer.commit(_offsets(commits), timeout_ms=ANSWER_MS)
        except TopicAuthorizationFailedError as error:
            denied = {str(topic) for topic in error.args[0]}
            for key in commits:
                if key.topic in denied:
                    self.note_failure(key, error)
            return denied
        return set()

    def note_failure(self, key: TopicPartition, error: Exception) -> None:
        """A partition cannot be read now: only this partition is not read for a while."""
        denied = isinstance(error, TopicAuthorizationFailedError)
        reason = "not authorized to read it" if denied else str(error)
        if self.failing.note(key, reason, time.monotonic()):
            where = {"topic": key.topic, "partition": key.partition}
            log.error("partition cannot be read, retrying with pauses", group=self._group, **where, reason=reason)

    @property
    def obstacle(self) -> str:
        """Why partitions are not read; "" when all are."""
        if any(key not in self.failing for key in self.unopened):
            return "waiting for the start of its partitions"
        return self.failing.reason

    @property
    def to_open(self) -> set[TopicPartition]:
        """Assigned partitions whose start can be looked for now."""
        return self.unopened - self.failing.waiting(time.monotonic()) if self.unopened else set()

    def give_up(self) -> None:
        """Nothing is ours any more."""
        self.assignment.drop(list(self.assignment.trackers))
        self.unopened.clear()
        self.held.clear()

    def hold(self, held: set[TopicPartition]) -> None:
        """Pauses these partitions, and no others that are open."""
        if held != self.held:
            self.consumer.pause(*_partitions(held - self.held))
            self.consumer.resume(*_partitions((self.held - held) & self.assignment.trackers.keys()))
            self.held = held

    # --- rebalances

    async def on_partitions_revoked(self, partitions: Iterable[Partition]) -> None:
        """A rebalance begins: these partitions may go to another member."""
        self.assignment.suspend(TopicPartition(*partition) for partition in partitions)
        self.unopened.clear()
        due = self.assignment.due()
        if not due:
            return
        try:
            await self.consumer.commit_within(_offsets(due), ANSWER_MS)
        except Exception as error:  # noqa: BLE001  # what leaves a listener makes the library revoke for ever
            log.warning("commit before a rebalance failed, some messages may repeat", group=self._group, error=error)
        else:
            self.assignment.confirm(due)

    async def on_partitions_assigned(self, partitions: Iterable[Partition]) -> None:
        """A rebalance ends: this member owns exactly these partitions."""
        assigned = {TopicPartition(*partition) for partition in partitions}
        trackers = self.assignment.trackers
        self.failing.forget(trackers.keys() - assigned)
        self.assignment.drop(trackers.keys() - assigned)
        self.assignment.keep(trackers)
        for key, tracker in trackers.items():
            self.consumer.seek(Partition(*key), tracker.next_offset)
        self.unopened = assigned - trackers.keys()
        self.held &= trackers.keys()
        self.consumer.pause(*_partitions(self.unopened))
        for partition in _partitions(self.unopened):
            # Any position keeps the library from choosing one itself.
            self.consumer.seek(partition, 0)
        log.info("partitions", group=self._group, kept=len(trackers), new=len(self.unopened))

    async def on_partitions_lost(self, partitions: Iterable[Partition]) -> None:
        """The group has removed this member: another member already owns these partitions."""
        lost = {TopicPartition(*partition) for partition in partitions}
        self.assignment.drop(lost)
        self.unopened -= lost
        self.held -= lost
        log.warning("the group has removed this member", group=self._group, partitions=len(lost))

    # --- start positions

    def open(self, topics: Iterable[str], named: Iterable[str]) -> None:
        """Lets partitions begin whose start is known; those that the group never read get it committed first.

        ``topics``: all that are subscribed; ``named``: all that the settings name, wanted now or not, for a group that
        has committed in any of them is not new. May wait some 9 s; raises KafkaError, and then is to be called again.
        """
        keys = self.to_open
        present = set() if self.begun else self._present(topics)
        others = set() if self.begun else self._present(named)
        committed = self.consumer.committed_offsets(keys | present | others, ANSWER_MS)
        for key in keys & committed.keys():
            self._begin(key, committed[key].offset, committed[key].metadata)
        starts: dict[TopicPartition, Commit] = {}
        skipped: Counter[str] = Counter()
        if not self.begun and not committed:
            starts = self._starts(keys | present, self._offset_reset)
            skipped = self._left_out(starts) if self._offset_reset == "latest" else Counter()
        elif missing := keys - committed.keys():
            starts = self._starts(missing, "earliest")
        denied = self._store(starts) if starts else set()
        self.begun = True
        self.start_skipped += skipped
        for topic, number in sorted(skipped.items()):
            log.warning(LEFT_OUT, group=self._group, topic=topic, messages=number)
        for key in {key for key in keys & starts.keys() if key.topic not in denied}:
            self._begin(key, *starts[key])

    def _starts(self, keys: Iterable[TopicPartition], reset: str) -> dict[TopicPartition, Commit]:
        ask = self.consumer.end_offsets if reset == "latest" else self.consumer.beginning_offsets
        found = ask(_partitions(keys), timeout_ms=ANSWER_MS)
        return {TopicPartition(*partition): Commit(offset, "") for partition, offset in found.items()}

    def _left_out(self, starts: dict[TopicPartition, Commit]) -> Counter[str]:
        """How many offsets lie before the starts, by topic."""
        skipped: Counter[str] = Counter()
        for key, first in self._starts(starts, "earliest").items():
            skipped[key.topic] += starts[key].offset - first.offset
        return +skipped

    def _present(self, topics: Iterable[str]) -> set[TopicPartition]:
        cluster = self.consumer.cluster
        return {
            TopicPartition(topic, number) for topic in topics for number in cluster.partitions_for_topic(topic) or ()
        }

    def _begin(self, key: TopicPartition, offset: int, metadata: str) -> None:
        tracker = self.assignment.assign(key, offset, metadata)
        tracker.confirm(Commit(offset, metadata))
        self.unopened.discard(key)
        self.consumer.seek(Partition(*key), offset)
        self.consumer.resume(Partition(*key))

    def restart(self, partitions: Iterable[Partition]) -> None:
        """Continues at the earliest offset, because the position is not in the log (any more)."""
        for key, start in self._starts((TopicPartition(*partition) for partition in partitions), "earliest").items():
            position = self.assignment.trackers[key].next_offset
            where = {"topic": key.topic, "partition": key.partition, "offset": position, "earliest": start.offset}
            log.error("offset out of range, continuing at the earliest offset", group=self._group, **where)
            self.out_of_range[key.topic] += 1
            if start.offset < position:
                self.assignment.assign(key, start.offset)
            self.consumer.seek(Partition(*key), start.offset)


def _partitions(keys: Iterable[TopicPartition]) -> list[Partition]:
    """The library's own named tuples: it insists on them."""
    return [Partition(*key) for key in keys]


def _offsets(commits: dict[TopicPartition, Commit]) -> dict[Partition, OffsetAndMetadata]:
    """Commits without a leader epoch, which says that it is not known: the positions are our own, not the library's."""
    return {Partition(*key): OffsetAndMetadata(offset, metadata, -1) for key, (offset, metadata) in commits.items()}
