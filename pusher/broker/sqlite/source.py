"""One member of a consumer group: which topics it owns, from which offset it reads, how far ahead.

Everything happens in ``poll``, in the consuming greenlet, which reads the file every few milliseconds and also renews
the leases there. Records are delivered only while the leases are certainly valid. A member whose topics are owned by
another process waits until their leases end.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import gevent

from pusher.broker.chosen import ChosenTopics
from pusher.broker.interface import LEFT_OUT, Delivery, IsFull, Wanted
from pusher.broker.offsets import Assignment, Commit, TopicPartition, Tracker
from pusher.broker.sqlite import group as membership
from pusher.broker.sqlite import topic_log
from pusher.broker.sqlite.store import Store, Unavailable
from pusher.broker.sqlite.topic_log import StoredRecord, Topic
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: How often the file is looked into for new records.
_LOOK_S = 0.02
#: Pause after an error, so that errors do not turn into a busy loop.
_ERROR_PAUSE_S = 0.2
#: How often a member that waits for others' leases looks at them.
_STANDBY_S = 1.0
#: A lease is prolonged after this share of its time.
_PROLONG = 0.25
#: One look reads as many records, some 2 ms of work, and bytes, of all topics together.
_MAX_RECORDS = 500
_MAX_BYTES = 4 * 1024 * 1024


class SqliteSource:
    """A ``Source`` over the embedded broker. The constructor does not open the file.

    ``topics``: names, or regular expressions that begin with ``^`` and match from the start of a name. Topics that
    others make are seen at once. A member that does not poll loses its topics after ``lease_s``.
    """

    def __init__(
        self,
        url: str,
        group: str,
        topics: Iterable[str],
        wanted: Wanted,
        *,
        offset_reset: str = "latest",
        max_uncommitted: int = 10_000,
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.assignment = Assignment()
        self.out_of_range: Counter[str] = Counter()
        self.start_skipped: Counter[str] = Counter()
        self._store = Store(url)
        self._member = membership.Member(group, f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}")
        topics = list(topics)
        self._chosen = ChosenTopics(topics)
        self._wanted, self._reset = wanted, offset_reset
        self._max_uncommitted, self._lease_s, self._clock = max_uncommitted, lease_s, clock
        #: The topics as they were at the last look.
        self._topics: dict[str, Topic] = {}
        #: The leases, by topic, and until when they surely hold.
        self._fences: dict[str, int] = {}
        self._lease_until = self._join_at = float("-inf")
        #: Wanted topics that other members own.
        self._others: dict[str, str] = {}
        self._error = "not open yet"
        self._closed = False

    # --- what the rest calls

    def poll(self, timeout_s: float, is_full: IsFull) -> list[Delivery]:
        """Records not handed on before. See ``Source``."""
        deadline = self._clock() + timeout_s
        try:
            while True:
                if self._clock() >= self._join_at:
                    self._join()
                deliveries = self._read(is_full)
                self._error = ""
                left_s = deadline - self._clock()
                if deliveries or left_s <= 0:
                    return deliveries
                gevent.sleep(min(_LOOK_S, left_s))
        except Unavailable as error:
            self._fail(error)
            gevent.sleep(min(_ERROR_PAUSE_S, max(0.0, deadline - self._clock())))
            return []

    def refresh(self) -> None:
        """Looks for topics again before the next poll. Never waits."""
        self._join_at = float("-inf")

    def commit(self) -> None:
        """Commits what is finished. See ``Source``."""
        due = self.assignment.due()
        if not due:
            return
        work = partial(membership.commit, member=self._member, fences=self._fences, commits=_by_topic(due))
        try:
            refused = self._store.run(work)
        except Unavailable as error:
            _seldom.warning(("commit", self._member.group), "commit failed, retrying", error=error)
            return
        self._lose(refused)
        self.assignment.confirm(due)

    def close(self, *, commit: bool = True) -> None:
        """Commits, gives its leases up and closes. See ``Source``."""
        if self._closed:
            return
        self._closed = True
        try:
            self._give_up(dict(self._fences), commit=commit)
        except Unavailable as error:
            log.warning("left the group without a commit", group=self._member.group, error=error)
        self.assignment.drop(list(self.assignment.trackers))
        self._store.close()

    def health(self) -> Health:
        """Ready while the file can be used, for a standby too. Never waits."""
        if self._error:
            return Health(ready=False, reason=self._error)
        if self._others and not self._fences:
            return Health(ready=True, reason=f"standby for {', '.join(sorted(set(self._others.values())))}")
        return Health(ready=True, reason="" if self._fences else "no topic matches")

    def lag(self) -> dict[TopicPartition, int]:
        """See ``Source``; the end of a topic is the one at the last poll. Never waits."""
        return {
            key: max(0, self._topics[key.topic].end - tracker.low)
            for key, tracker in self.assignment.trackers.items()
            if key.topic in self._topics
        }

    # --- the member

    def _join(self) -> None:
        """Prolongs its leases, takes free topics and gives up what is no longer wanted."""
        self._topics = self._store.run(topic_log.topics)
        wanted = {topic for topic in self._topics if topic in self._chosen and self._wanted(topic)}
        self._give_up({topic: fence for topic, fence in self._fences.items() if topic not in wanted})
        began = self._clock()
        share = self._store.run(
            partial(
                membership.join,
                member=self._member,
                wanted=wanted,
                held=self._fences,
                reset=self._reset,
                now_s=time.time(),
                lease_s=self._lease_s,
            )
        )
        self._reset = "earliest"
        self._lease_until = began + self._lease_s
        self._join_at = began + min(self._lease_s * _PROLONG, _STANDBY_S if share.others else self._lease_s)
        self._take(share)

    def _take(self, share: membership.Assigned) -> None:
        self._lose(self._fences.keys() - (share.fences.keys() - share.starts.keys()))
        self.assignment.keep(list(self.assignment.trackers))
        self._fences = share.fences
        for topic, start in share.starts.items():
            self.assignment.assign(TopicPartition(topic, 0), *start).confirm(start)
        for topic, number in sorted(share.left_out.items()):
            self.start_skipped[topic] += number
            log.warning(LEFT_OUT, group=self._member.group, topic=topic, messages=number)
        if share.starts:
            log.info("consuming", group=self._member.group, topics=" ".join(sorted(share.starts)))
        if share.others and share.others != self._others:
            owners = " ".join(sorted(set(share.others.values())))
            log.info("standby", group=self._member.group, topics=" ".join(sorted(share.others)), owner=owners)
        self._others = share.others

    def _give_up(self, fences: dict[str, int], *, commit: bool = True) -> None:
        if not fences:
            return
        due = {topic: found for topic, found in _by_topic(self.assignment.due()).items() if topic in fences}
        self.assignment.drop(TopicPartition(topic, 0) for topic in fences)
        self._fences = {topic: fence for topic, fence in self._fences.items() if topic not in fences}
        self._store.run(partial(membership.leave, member=self._member, fences=fences, commits=due if commit else {}))

    def _lose(self, topics: Iterable[str]) -> None:
        for topic in list(topics):
            self._fences.pop(topic, None)
            self.assignment.drop([TopicPartition(topic, 0)])
            log.warning("lease lost, another process may have taken over", group=self._member.group, topic=topic)

    def _fail(self, error: Unavailable) -> None:
        self._error = str(error)
        _seldom.warning(("poll", self._member.group), "not consuming", group=self._member.group, reason=error)
        if self._clock() >= self._lease_until:
            self._join_at = float("-inf")
            self.assignment.suspend(list(self.assignment.trackers))

    # --- reading

    def _read(self, is_full: IsFull) -> list[Delivery]:
        """Looks once; looks again at once as long as all that there was is finished already."""
        while True:
            look = self._store.run(partial(_look, places=self._places(is_full)))
            if look.topics.keys() != self._topics.keys():
                self._join_at = float("-inf")
            self._topics = look.topics
            if self._clock() >= self._lease_until:
                self._join_at = float("-inf")
                return []
            deliveries = [self._admit(topic, records) for topic, records in look.records.items()]
            fresh = [delivery for delivery in deliveries if delivery.records]
            if fresh or not any(look.records.values()):
                return fresh

    def _places(self, is_full: IsFull) -> dict[str, _Place]:
        """Where to read on in the topics that are not held, and how many records they may get."""
        rooms, trackers = self.assignment.rooms(is_full, self._max_uncommitted), self.assignment.trackers
        return {key.topic: _Place(trackers[key].next_offset, room) for key, room in rooms.items()}

    def _admit(self, topic: str, records: Sequence[StoredRecord]) -> Delivery:
        tracker = self.assignment.trackers[TopicPartition(topic, 0)]
        position = tracker.next_offset
        first = records[0].offset if records else min(position, self._topics[topic].end)
        if first != position:
            tracker = self._restart(tracker, first)
        return Delivery(tracker, tracker.admit(records))

    def _restart(self, tracker: Tracker, offset: int) -> Tracker:
        """Goes on elsewhere: records were removed, or the file was replaced by another one."""
        where = {"topic": tracker.key.topic, "offset": tracker.next_offset, "earliest": offset}
        log.error("offset out of range, continuing at the earliest offset", group=self._member.group, **where)
        self.out_of_range[tracker.key.topic] += 1
        return self.assignment.assign(tracker.key, offset) if offset < tracker.next_offset else tracker


class _Place(NamedTuple):
    offset: int
    room: int


class _Look(NamedTuple):
    topics: dict[str, Topic]
    #: Of the topics that do not end where they were read to.
    records: dict[str, list[StoredRecord]]


def _look(connection: sqlite3.Connection, places: Mapping[str, _Place]) -> _Look:
    """Reads from some topics; where a topic ends before the place it was read to, from its earliest record."""
    topics = topic_log.topics(connection)
    behind = [topic for topic in places if topic in topics and topics[topic].end != places[topic].offset]
    records = {}
    for topic in behind:
        offset, room = places[topic]
        offset = offset if offset < topics[topic].end else 0
        limit = min(room, max(1, _MAX_RECORDS // len(behind)))
        records[topic] = topic_log.read(connection, topic, topics[topic], offset, limit, _MAX_BYTES // len(behind))
    return _Look(topics, records)


def _by_topic(commits: Mapping[TopicPartition, Commit]) -> dict[str, Commit]:
    return {key.topic: commit for key, commit in commits.items()}
