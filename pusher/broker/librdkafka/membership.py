"""The partitions that one member of a group owns, through rebalances, and where each begins.

With the classic protocol a rebalance revokes all partitions and assigns the new ones; partitions that stay continue
where they were. With the other protocols it revokes only partitions that leave and assigns only new ones. A new
partition is not read until ``open`` knows its start and, if nothing was committed for it, has committed it.

The library calls the listeners in its reading thread, while the consuming greenlet waits for that thread; what they
decide is decided in the hub.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import gevent
from confluent_kafka import Consumer, KafkaException, TopicPartition

from pusher.broker.failing import Failing
from pusher.broker.interface import LEFT_OUT
from pusher.broker.librdkafka.client import LibrdkafkaClient, Topics, read_from, store
from pusher.broker.librdkafka.native import ThreadResult, in_hub
from pusher.broker.offsets import Assignment, Commit
from pusher.broker.offsets import TopicPartition as Key
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)


class Membership:
    """The partitions of a consumer. ``client`` may be replaced after ``give_up``."""

    def __init__(
        self, assignment: Assignment, group: str, offset_reset: str, client: LibrdkafkaClient, *, incremental: bool
    ) -> None:
        self.assignment = assignment
        self.client = client
        #: How often a position was out of range, by topic.
        self.out_of_range: Counter[str] = Counter()
        #: Messages that a new group left out because it began at the end, by topic.
        self.start_skipped: Counter[str] = Counter()
        #: Assigned partitions whose start is not known yet; they are not read.
        self.unopened: set[Key] = set()
        #: Partitions that are paused.
        self.held: set[Key] = set()
        #: Whether partitions without a commit are later ones, which begin at the earliest offset.
        self.begun = False
        #: Whether there is a share of the partitions, and no rebalance that takes all of them is going on.
        self.joined = False
        #: Partitions that are left alone for a while.
        self.failing = Failing()
        self._group, self._offset_reset, self._incremental = group, offset_reset, incremental

    def subscribe(self, topics: list[str]) -> None:
        """Becomes a member for these topics, which exist. Raises KafkaException."""
        hub = gevent.get_hub()

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            keys = _keys(partitions)
            kept = in_hub(hub, self._assigned, keys)
            # Those that come begin with ``open``.
            read_from(consumer, {} if self._incremental else kept, add=self._incremental)

        def revoked(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            keys = _keys(partitions)
            due = in_hub(hub, self._suspend, keys)
            stored = ThreadResult().run(store, (consumer, due))
            read = in_hub(hub, self._revoked, keys, due, stored)
            self._give_back(consumer, read)

        def lost(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            keys = _keys(partitions)
            read = in_hub(hub, self._lost, keys)
            self._give_back(consumer, read)

        self.client.subscribe(topics, assigned, revoked, lost)

    def _give_back(self, consumer: Consumer, keys: Iterable[Key]) -> None:
        if self._incremental:
            consumer.incremental_unassign([TopicPartition(*key) for key in keys])
        else:
            consumer.unassign()

    # --- rebalances, in the hub

    def _assigned(self, keys: set[Key]) -> dict[Key, int]:
        """A rebalance ends; returns where those begin that were ours before."""
        trackers = self.assignment.trackers
        if self._incremental:
            self.unopened |= keys - trackers.keys()
            new = len(keys)
        else:
            self.failing.forget(trackers.keys() - keys)
            self.assignment.drop(trackers.keys() - keys)
            self.assignment.keep(trackers)
            self.unopened = keys - trackers.keys()
            self.held.clear()  # an assignment lets all go on
            new = len(self.unopened)
        self.joined = True
        log.info("partitions", group=self._group, kept=len(trackers), new=new)
        return {key: tracker.next_offset for key, tracker in trackers.items()}

    def _suspend(self, keys: set[Key]) -> dict[Key, Commit]:
        """A rebalance begins, or revokes partitions; returns the commits to make before."""
        self.assignment.suspend(keys)
        self.unopened -= keys
        return self.assignment.due()

    def _revoked(self, keys: set[Key], due: dict[Key, Commit], stored: ThreadResult) -> set[Key]:
        """The commits were made, or failed; returns which of these partitions were read."""
        try:
            failed = stored.get()
        except KafkaException as error:
            log.warning("commit before a rebalance failed, some messages may repeat", group=self._group, error=error)
        else:
            self.assignment.confirm({key: commit for key, commit in due.items() if key not in failed})
        read = keys & self.assignment.trackers.keys()
        if self._incremental:
            self._drop(read)
        else:
            self.joined = False
        return read

    def _lost(self, keys: set[Key]) -> set[Key]:
        """The group has removed this member: another member already owns these partitions."""
        read = keys & self.assignment.trackers.keys()
        self._drop(read)
        self.unopened -= keys
        self.joined = False
        log.warning("the group has removed this member", group=self._group, partitions=len(keys))
        return read

    def _drop(self, keys: set[Key]) -> None:
        self.failing.forget(keys)
        self.assignment.drop(keys)
        self.held -= keys

    def give_up(self) -> None:
        """Nothing is ours any more."""
        self.assignment.drop(list(self.assignment.trackers))
        self.unopened.clear()
        self.held.clear()
        self.joined = False

    # --- commits

    def commit(self) -> None:
        """Commits what is finished; a failure is logged, and the commit is due again. May wait some 3 s."""
        due = self.assignment.due()
        if not due:
            return
        try:
            failed = self._store(due)
        except (KafkaException, OSError) as error:
            _seldom.warning(("commit", self._group), "commit failed, retrying", group=self._group, error=error)
        else:
            self.assignment.confirm({key: commit for key, commit in due.items() if key not in failed})

    def _store(self, commits: Mapping[Key, Commit]) -> set[Key]:
        """Commits; returns the partitions for which that failed."""
        failed = self.client.commit(commits)
        for key, reason in failed.items():
            self.note_failure(key, reason)
        return set(failed)

    # --- partitions that fail, or are to rest

    def note_failure(self, key: Key, reason: str) -> None:
        """A partition cannot be read now: only this partition is not read for a while."""
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
    def to_open(self) -> set[Key]:
        """Assigned partitions whose start can be looked for now."""
        return self.unopened - self.failing.waiting(time.monotonic()) if self.unopened else set()

    def hold(self, held: set[Key]) -> None:
        """Pauses these partitions, and no others that are open."""
        if held != self.held:
            self.client.hold(held - self.held, (self.held - held) & self.assignment.trackers.keys())
            self.held = held

    # --- start positions

    def open(self, topics: Iterable[str], named: Topics) -> None:
        """Lets partitions begin whose start is known; those that the group never read get it committed first.

        ``topics``: all that are subscribed; ``named``: all that the settings name, wanted now or not, for a group that
        has committed in any of them is not new. May wait some 9 s; raises KafkaException or ``OSError``, and then is to
        be called again.
        """
        keys = self.to_open
        others = set() if self.begun else {Key(topic, number) for topic in named for number in named[topic]}
        committed, failed = self.client.committed(keys | others)
        for key in keys & failed.keys():
            self.note_failure(key, failed[key])
        keys -= failed.keys()
        starts: dict[Key, Commit] = {}
        if not self.begun and not committed:
            # Those of other members too, for which the group would not be new any more.
            present = {key for key in others if key.topic in set(topics)} - failed.keys()
            latest = self._offset_reset == "latest"
            starts = self._starts(keys | present, self.client.ends if latest else self.client.starts)
            skipped = self._left_out(starts) if latest else Counter()
        else:
            starts = self._starts(keys - committed.keys(), self.client.starts)
            skipped = Counter()
        denied = self._store(starts)
        self.begun = True
        self._tell(skipped)
        found = committed | {key: start for key, start in starts.items() if key not in denied}
        self._begin({key: found[key] for key in keys & found.keys()})

    def _starts(self, keys: set[Key], ask: Callable[[Iterable[Key]], dict[Key, int]]) -> dict[Key, Commit]:
        return {key: Commit(offset, "") for key, offset in ask(keys).items()}

    def _left_out(self, starts: Mapping[Key, Commit]) -> Counter[str]:
        """How many offsets lie before the starts, by topic."""
        skipped: Counter[str] = Counter()
        for key, first in self.client.starts(starts).items():
            skipped[key.topic] += starts[key].offset - first
        return +skipped

    def _tell(self, skipped: Counter[str]) -> None:
        self.start_skipped += skipped
        for topic, number in sorted(skipped.items()):
            log.warning(LEFT_OUT, group=self._group, topic=topic, messages=number)

    def _begin(self, starts: Mapping[Key, Commit]) -> None:
        """These are read from now on, unless a rebalance has taken them meanwhile."""
        begun = {}
        for key, start in starts.items():
            if key in self.unopened:
                self.unopened.discard(key)
                tracker = self.assignment.assign(key, *start)
                tracker.confirm(start)
                begun[key] = tracker.next_offset
        if begun:
            self._place(begun)

    def _place(self, starts: Mapping[Key, int]) -> None:
        """Lets the library read these from these offsets, and all others from where they are."""
        if self._incremental:
            self.client.change(lambda consumer: read_from(consumer, starts, add=True))
        else:
            where = {key: tracker.next_offset for key, tracker in self.assignment.trackers.items()} | dict(starts)
            self.client.change(lambda consumer: read_from(consumer, where, add=False))
            self.held.clear()  # an assignment lets all go on

    def restart(self, keys: set[Key]) -> None:
        """Continues at the earliest offset, because the position is not in the log (any more). Raises as ``open``."""
        trackers = self.assignment.trackers
        ends = self.client.ends(keys)
        # What was told of an assignment that is over: where the present one begins is in the log.
        starts = self.client.starts(keys)
        starts = {key: at for key, at in starts.items() if not at <= trackers[key].next_offset <= ends[key]}
        if not starts:
            return
        for key, start in starts.items():
            position = trackers[key].next_offset
            where = {"topic": key.topic, "partition": key.partition, "offset": position, "earliest": start}
            log.error("offset out of range, continuing at the earliest offset", group=self._group, **where)
            self.out_of_range[key.topic] += 1
            if start < position:
                self.assignment.assign(key, start)
            else:  # the next assignment is to begin there as well
                self.assignment.trackers[key].pass_to(start)
        if self._incremental:
            again = [TopicPartition(*key) for key in starts]
            self.client.change(lambda consumer: consumer.incremental_unassign(again))
            self.held -= starts.keys()
        self._place(starts)


def _keys(partitions: Iterable[TopicPartition]) -> set[Key]:
    return {Key(each.topic, each.partition) for each in partitions}
