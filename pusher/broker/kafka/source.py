"""One member of a consumer group: which topics it reads, how far ahead it reads, and how it stays alive.

Everything is decided in ``poll``, in the consuming greenlet; a rebalance runs inside the library's own poll and only
marks (``share``). Rules that keep a member alive: while a rebalance is in progress, each poll continues it first, and a
member that cannot join its group is created again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

import gevent
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import FencedInstanceIdError, KafkaError, LogTruncationError, OffsetOutOfRangeError

from pusher.broker.access import Access
from pusher.broker.chosen import ChosenTopics
from pusher.broker.fenced import FENCED, Fenced
from pusher.broker.interface import Delivery, IsFull, Record, Wanted
from pusher.broker.kafka.access import KafkaLogin, member_settings
from pusher.broker.kafka.client import Consumer, Partition, connection
from pusher.broker.kafka.share import ANSWER_MS, Share
from pusher.broker.offsets import Assignment, TopicPartition
from pusher.broker.pace import ReadPace
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: A poll that may take part in a rebalance lasts at least this long.
_REBALANCE_POLL_MS = 1000
#: While some partitions are held, polls are this short, so that they are resumed soon after there is room.
_HELD_POLL_MS = 20
#: While all are held, nothing is polled, and whether there is room is looked at as often as this.
_HELD_PAUSE_S = 0.01
#: How long brokers may keep a fetch of all partitions: a record ends the wait at once, so that only the number of
#: fetches changes.
_FETCH_WAIT_MS = 1000
#: Pause after an error, so that errors do not turn into a busy loop.
_ERROR_PAUSE_S = 0.2
#: A rebalance waits this long for a member that does not come, after a broker's restart perhaps for what this one was
#: before; it must be longer than any pause between two polls, some 12 s while positions are looked up in an outage.
_REBALANCE_TIMEOUT_MS = 20_000
#: A member that polls but cannot join for this long, always for the same reason, is created again. The broker may
#: answer at the end of a rebalance's time only; to give up before leaves a member behind that the next one waits for.
_REJOIN_LIMIT_S = 1.5 * _REBALANCE_TIMEOUT_MS / 1000
#: Being without a coordinator or a share of the partitions for less than this is ordinary.
_TROUBLE_S = 5.0
#: The library parses as many records at a time, some 8 ms of work.
_MAX_RECORDS = 1000
#: Bytes of one answer to a fetch, of all partitions together: some thousands of requests. It is in memory several times
#: while it is read.
_FETCH_MAX_BYTES = 512 * 1024


class Trouble:
    """For how long nothing could be consumed, and for how long by one and the same reason."""

    def __init__(self, now: float) -> None:
        self._reason = ""
        self._began = self._changed = self._now = now

    def note(self, reason: str, now: float) -> None:
        """Notes the reason why the member cannot work at ``now`` (monotonic s); "" if it can."""
        self._now = now
        if reason != self._reason:
            self._reason, self._changed = reason, now
        if not reason:
            self._began = self._changed = now

    @property
    def lasts_s(self) -> float:
        """Seconds since there was no trouble."""
        return self._now - self._began

    @property
    def unchanged_s(self) -> float:
        """Since the reason became what it is."""
        return self._now - self._changed


class KafkaSource:
    """A ``Source`` over Kafka. The constructor does not wait for a broker.

    ``topics``: names, or regular expressions that begin with ``^`` and match from the start of a name. Names that do
    not exist are waited for and never created. Metadata are fetched again every ``metadata_refresh_s``.
    """

    def __init__(  # noqa: PLR0913  # one argument a setting
        self,
        brokers: str,
        group: str,
        topics: Iterable[str],
        wanted: Wanted,
        *,
        session_timeout_ms: int = 6000,
        fetch_min_bytes: int = 1,
        fetch_wait_max_ms: int = 100,
        offset_reset: str = "latest",
        max_uncommitted: int = 10_000,
        metadata_refresh_s: float = 30.0,
        login: KafkaLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.assignment = Assignment()
        self._group, self._wanted = group, wanted
        self._chosen = ChosenTopics(topics)
        self._max_uncommitted = max_uncommitted
        self._clock = clock
        self._fetch_wait_ms = max(fetch_wait_max_ms, _FETCH_WAIT_MS if fetch_min_bytes == 1 else 0)
        self._pace = ReadPace()
        self._brokers, self._login = brokers, login or KafkaLogin(Access())
        self._settings = member_settings(self._login.access) | {
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "partition_assignment_strategy": (StickyPartitionAssignor, RangePartitionAssignor),
            "session_timeout_ms": session_timeout_ms,
            "heartbeat_interval_ms": max(1, min(1000, session_timeout_ms // 3)),
            "max_poll_interval_ms": max(_REBALANCE_TIMEOUT_MS, session_timeout_ms),
            "request_timeout_ms": 30_000 + fetch_wait_max_ms,
            "fetch_min_bytes": fetch_min_bytes,
            "fetch_max_wait_ms": fetch_wait_max_ms,
            "fetch_max_bytes": _FETCH_MAX_BYTES,
            "max_poll_records": _MAX_RECORDS,
            "metadata_max_age_ms": int(metadata_refresh_s * 1000),
        }
        #: None until metadata were looked at for the first time.
        self._subscribed: list[str] | None = None
        #: All topics that the settings name, wanted or not.
        self._matching: set[str] = set()
        self._error = ""
        self._fenced = Fenced(group, clock)
        self._consumer = self._new_consumer()
        self._share = Share(self.assignment, group, offset_reset, self._consumer)
        self._begin()

    # --- what the rest calls

    def poll(self, timeout_s: float, is_full: IsFull) -> list[Delivery]:
        """Records not handed on before. See ``Source``."""
        deadline = self._clock() + timeout_s
        if self._consumer.fenced:
            self._fenced.step_back()
            self._rebuild()
        self._error = FENCED if self._fenced.wait(timeout_s) else ""
        deliveries: list[Delivery] = []
        try:
            if not self._error:
                self._prepare()
                deliveries = self._admit(self._fetch(deadline, is_full))
        except (KafkaError, OSError) as error:
            self._fail(error)
        except Exception:
            log.exception("Kafka's client failed and is replaced", group=self._group)
            gevent.sleep(_ERROR_PAUSE_S)
            self._rebuild()
        self._watch()
        return deliveries

    def refresh(self) -> None:
        """Looks for topics again before the next poll. Never waits."""
        self._metadata_changed = True
        self._consumer.cluster.request_update()

    def commit(self) -> None:
        """Commits what is finished. See ``Source``."""
        self._share.commit()

    def close(self, *, commit: bool = True) -> None:
        """Commits, leaves the group and closes. See ``Source``."""
        if commit:
            self.commit()
        self._discard()

    def health(self) -> Health:
        """Ready while this member has its partitions and knows the group's coordinator. Never waits."""
        reason = self._obstacle()
        if not reason and not self._subscribed:
            return Health(ready=True, reason="no topic matches")
        return Health(ready=not reason, reason=reason)

    @property
    def out_of_range(self) -> Counter[str]:
        """How often a position of a topic was out of range."""
        return self._share.out_of_range

    @property
    def start_skipped(self) -> Counter[str]:
        """How many messages of a topic a new group left out."""
        return self._share.start_skipped

    def lag(self) -> dict[TopicPartition, int]:
        """See ``Source``; the end of a partition is the one in its last fetch. Never waits."""
        assigned = self._consumer.assignment()
        lags = {}
        for key, tracker in self.assignment.trackers.items():
            end = self._consumer.highwater(Partition(*key)) if key in assigned else None
            if end is not None:
                lags[key] = max(0, end - tracker.low)
        return lags

    # --- the member

    def _new_consumer(self) -> Consumer:
        consumer = Consumer(**connection(self._brokers, self._login), **self._settings)
        consumer.fetch_wait_ms = self._fetch_wait_ms
        self._login.attach(consumer)
        return consumer

    def _begin(self) -> None:
        self._consumer.cluster.add_listener(self._note_metadata)
        self._consumer.watch_all_topics()
        self._metadata_changed = self._metadata_known = False
        self._subscribed = None
        self._trouble = Trouble(self._clock())

    def _note_metadata(self, _cluster: object) -> None:
        # An answer without the topics would make a new group look as if all topics were later ones.
        if self._consumer.knows_all_topics:
            self._metadata_known = self._metadata_changed = True

    def _discard(self) -> None:
        """Gives up all partitions and closes the member."""
        self._share.give_up()
        try:
            with gevent.Timeout(2 * ANSWER_MS / 1000):
                self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001  # the member is given up in any case
            log.warning("Kafka's client did not leave the group in time", group=self._group, error=repr(error))

    def _rebuild(self) -> None:
        self._discard()
        self._consumer = self._share.consumer = self._new_consumer()
        self._begin()

    def _obstacle(self) -> str:
        """Why nothing can be consumed now; "" when it can."""
        if self._error:
            return self._error
        if self._subscribed is None:
            return self._consumer.connections.trouble or "waiting for Kafka's metadata"
        if not self._subscribed:
            return self._consumer.connections.isolated
        if not self._consumer.coordinator_known:
            return self._consumer.connections.trouble or "no connection to the coordinator of the group"
        if not self._consumer.joined:
            return "joining the group"
        return self._share.obstacle

    def _watch(self) -> None:
        reason = self._obstacle()
        now = self._clock()
        self._trouble.note(reason, now)
        if self._trouble.unchanged_s > _REJOIN_LIMIT_S and not self._consumer.joined:
            log.error("could not join the consumer group, starting again", group=self._group, reason=reason)
            self._rebuild()
        elif self._trouble.lasts_s > _TROUBLE_S:
            _seldom.warning(("trouble", self._group), "not consuming", group=self._group, reason=reason)

    def _fail(self, error: Exception) -> None:
        self._consumer.fenced |= isinstance(error, FencedInstanceIdError)
        self._error = str(error) or repr(error)
        gevent.sleep(_ERROR_PAUSE_S)

    # --- topics

    def _prepare(self) -> None:
        if self._metadata_changed and self._metadata_known:
            self._choose_topics()
        if self._share.to_open and self._consumer.joined:
            try:
                self._share.open(self._subscribed or (), self._matching)
            except (KafkaError, OSError) as error:  # others go on
                self._fail(error)

    def _choose_topics(self) -> None:
        self._metadata_changed = False
        present = self._consumer.cluster.topics()
        self._matching = {topic for topic in present if topic in self._chosen}
        topics = sorted(topic for topic in self._matching if self._wanted(topic))
        if topics == self._subscribed:
            return
        log.info("topics", group=self._group, topics=" ".join(topics) or "none")
        if topics:
            self._consumer.subscribe_to(topics, self._share)
        elif self._subscribed:
            self.commit()
            self._consumer.unsubscribe()
            self._consumer.watch_all_topics()
            self._share.give_up()
        else:
            self._share.begun = True
        self._subscribed = topics

    # --- reading

    def _fetch(self, deadline: float, is_full: IsFull) -> dict[Partition, list[Record]]:
        consumer = self._consumer
        records: dict[Partition, list[Record]] = {}
        while not records:
            remaining_ms = (deadline - self._clock()) * 1000
            if not self._subscribed:
                gevent.sleep(min(_ERROR_PAUSE_S, max(0.0, remaining_ms / 1000)))
            elif not (consumer.joined and consumer.coordinator_known):
                consumer.rejoin(max(_REBALANCE_POLL_MS, remaining_ms))
                break
            else:
                records = self._fetch_joined(max(0.0, remaining_ms), is_full)
            if remaining_ms <= 0 or (self._metadata_changed and self._metadata_known):
                break
        return records

    def _fetch_joined(self, timeout_ms: float, is_full: IsFull) -> dict[Partition, list[Record]]:
        room = self._hold(is_full)
        full = self._share.held - self._share.failing.waiting(time.monotonic())
        if room == 0 and timeout_ms > 0:
            gevent.sleep(_HELD_PAUSE_S if full else min(_ERROR_PAUSE_S, timeout_ms / 1000))
            return {}
        if full:
            timeout_ms = min(timeout_ms, _HELD_POLL_MS)
        limit = max(1, room)
        wait_s = self._pace.wait_s(self._clock())
        if wait_s > 0:
            gevent.sleep(wait_s)
        self._consumer.partial = bool(self._share.held or self._share.unopened)
        records = self._read(timeout_ms, limit)
        number = sum(map(len, records.values()))
        if number:
            self._pace.note(number, self._clock(), more=number >= limit)
        return records

    def _read(self, timeout_ms: float, limit: int) -> dict[Partition, list[Record]]:
        records: dict[Partition, list[Record]] = {}
        try:
            records = self._consumer.read(timeout_ms, limit)
        except OffsetOutOfRangeError as error:
            self._share.restart(error.args[0])
        except LogTruncationError as error:
            self._share.restart(error.divergent_offsets)
        for key, failure in self._consumer.failed().items():
            self._share.note_failure(key, failure)
        return records

    def _hold(self, is_full: IsFull) -> int:
        """Pauses and resumes partitions; returns how many records may be read from the others, 0 if there are none."""
        rooms = self.assignment.rooms(is_full, self._max_uncommitted)
        for key in self._share.failing.waiting(time.monotonic()):
            rooms.pop(key, None)
        self._share.hold(self.assignment.trackers.keys() - rooms.keys())
        return min(_MAX_RECORDS, min(rooms.values(), default=0))

    def _admit(self, batch: dict[Partition, list[Record]]) -> list[Delivery]:
        deliveries = []
        for partition, records in batch.items():
            tracker = self.assignment.trackers[TopicPartition(*partition)]
            self._share.failing.forget([tracker.key])
            fresh = tracker.admit(records)
            if fresh:
                deliveries.append(Delivery(tracker, fresh))
        for key, offset in self._consumer.skipped().items():
            if key in self.assignment.trackers and key not in self._share.unopened:
                self.assignment.trackers[key].pass_to(offset)
        return deliveries
