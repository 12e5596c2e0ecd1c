"""One member of a consumer group on librdkafka: which topics it reads, how far ahead, and what it delivers.

Everything is decided in ``poll``, in the consuming greenlet. A rebalance runs while it waits there (``membership``).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from confluent_kafka import KafkaError, KafkaException, Message

from pusher.broker.access import Access
from pusher.broker.chosen import ChosenTopics
from pusher.broker.fenced import FENCED, Fenced
from pusher.broker.interface import Delivery, IsFull, Wanted
from pusher.broker.librdkafka.access import LibrdkafkaLogin, consumer_settings
from pusher.broker.librdkafka.client import LibrdkafkaClient, Topics, denied
from pusher.broker.librdkafka.membership import Membership
from pusher.broker.librdkafka.records import ReceivedRecord, place
from pusher.broker.offsets import Assignment, TopicPartition
from pusher.broker.pace import ReadPace
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: The longest wait in the native thread: what is wanted may change meanwhile.
_WAIT_S = 0.5
#: While some partitions are held, waits are this short, so that they are resumed soon after there is room.
_HELD_WAIT_S = 0.02
#: Pause after an error, so that errors do not turn into a busy loop.
_ERROR_PAUSE_S = 0.2
#: Pause between two questions for the topics while no broker is connected.
_DOWN_PAUSE_S = 1.0
#: Being without a share of the partitions for less than this is ordinary.
_TROUBLE_S = 5.0
_MAX_RECORDS = 1000
#: A rebalance waits this long for a member that does not come; see the same of ``broker.kafka``.
_REBALANCE_TIMEOUT_MS = 20_000
#: What a batch may unpack to, and an answer may hold.
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_ASSIGNORS = {"classic": "range", "cooperative": "cooperative-sticky"}


class LibrdkafkaSource:
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
        login: LibrdkafkaLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.assignment = Assignment()
        self._group, self._wanted = group, wanted
        self._chosen = ChosenTopics(topics)
        self._max_uncommitted, self._metadata_refresh_s = max_uncommitted, metadata_refresh_s
        self._clock = clock
        self._brokers, self._login = brokers, login or LibrdkafkaLogin(Access())
        access = self._login.access
        self._conf: dict[str, Any] = consumer_settings(access) | {
            "group.id": group,
            "group.protocol": "consumer" if access.group_protocol == "consumer" else "classic",
            "group.instance.id": access.group_instance_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            # Shows that nothing is left to read, also behind a transaction's marker.
            "enable.partition.eof": True,
            "max.poll.interval.ms": max(_REBALANCE_TIMEOUT_MS, session_timeout_ms),
            "topic.metadata.refresh.interval.ms": round(metadata_refresh_s * 1000),
            "fetch.min.bytes": fetch_min_bytes,
            "fetch.wait.max.ms": fetch_wait_max_ms,
            "fetch.max.bytes": 1024 * 1024,
            "max.partition.fetch.bytes": 512 * 1024,
            "receive.message.max.bytes": _MAX_ANSWER_BYTES,
            # What is fetched ahead, and how soon more is fetched once there is room for it.
            "queued.min.messages": 4 * _MAX_RECORDS,
            "queued.max.messages.kbytes": 4096,
            "fetch.queue.backoff.ms": 10,
            "check.crcs": True,
        }
        if access.group_protocol in _ASSIGNORS:
            self._conf |= {
                "partition.assignment.strategy": _ASSIGNORS[access.group_protocol],
                "session.timeout.ms": session_timeout_ms,
                "heartbeat.interval.ms": max(1, min(1000, session_timeout_ms // 3)),
            }
        #: None until metadata were looked at for the first time.
        self._subscribed: list[str] | None = None
        #: All topics that the settings name, wanted or not.
        self._matching: Topics = {}
        self._look_at = clock()
        self._pace = ReadPace()
        self._error = ""
        self._fenced = Fenced(group, clock)
        self._well_at = clock()
        self._client = self._new_client()
        self._membership = Membership(
            self.assignment, group, offset_reset, self._client, incremental=access.group_protocol != "classic"
        )

    # --- what the rest calls

    def poll(self, timeout_s: float, is_full: IsFull) -> list[Delivery]:
        """Records not handed on before. See ``Source``."""
        deadline = self._clock() + timeout_s
        if self._client.troubles.fenced:
            self._fenced.step_back()
            self._rebuild()
        self._error = FENCED if self._fenced.wait(timeout_s) else ""
        deliveries: list[Delivery] = []
        try:
            if not self._error:
                self._prepare()
                deliveries = self._fetch(deadline, is_full)
        except (KafkaException, OSError) as error:
            self._fail(error)
        except Exception:
            log.exception("Kafka's client failed and is replaced", group=self._group)
            gevent.sleep(_ERROR_PAUSE_S)
            self._rebuild()
        self._watch()
        return deliveries

    def refresh(self) -> None:
        """Looks for topics again before the next poll. Never waits."""
        self._look_at = self._clock()

    def commit(self) -> None:
        """Commits what is finished. See ``Source``."""
        self._membership.commit()

    def close(self, *, commit: bool = True) -> None:
        """Commits, leaves the group and closes. See ``Source``."""
        if commit:
            self.commit()
        self._discard()

    def health(self) -> Health:
        """Ready while this member has its partitions and a broker is connected. Never waits."""
        reason = self._obstacle()
        if not reason and not self._subscribed:
            return Health(ready=True, reason="no topic matches")
        return Health(ready=not reason, reason=reason)

    @property
    def out_of_range(self) -> Counter[str]:
        """How often a position of a topic was out of range."""
        return self._membership.out_of_range

    @property
    def start_skipped(self) -> Counter[str]:
        """How many messages of a topic a new group left out."""
        return self._membership.start_skipped

    def lag(self) -> dict[TopicPartition, int]:
        """See ``Source``; the end of a partition is the one in its last fetch. Never waits."""
        ends = self._client.ends_known
        trackers = self.assignment.trackers
        return {
            key: max(ends[key], tracker.next_offset) - tracker.low for key, tracker in trackers.items() if key in ends
        }

    # --- the member

    def _new_client(self) -> LibrdkafkaClient:
        client = LibrdkafkaClient(self._brokers, self._login, self._conf)
        self._login.attach(client)
        return client

    def _discard(self) -> None:
        """Gives up all partitions and closes the member."""
        self._membership.give_up()
        try:
            self._client.close()
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001  # the member is given up in any case
            log.warning("Kafka's client did not leave the group in time", group=self._group, error=repr(error))

    def _rebuild(self) -> None:
        self._discard()
        self._client = self._membership.client = self._new_client()
        self._subscribed = None
        self._look_at = self._clock()

    def _obstacle(self) -> str:
        """Why nothing can be consumed now; "" when it can."""
        troubles = self._client.troubles
        if self._error:
            return troubles.text or self._error
        if self._subscribed is None or troubles.down:
            return troubles.text or "waiting for Kafka's metadata"
        if not self._subscribed:
            return ""
        if not self._membership.joined:
            return troubles.text or "joining the group"
        return self._membership.obstacle

    def _watch(self) -> None:
        now = self._clock()
        reason = self._obstacle()
        if not reason:
            self._well_at = now
        elif now - self._well_at > _TROUBLE_S:
            _seldom.warning(("trouble", self._group), "not consuming", group=self._group, reason=reason)

    def _fail(self, error: Exception) -> None:
        self._error = str(error) or repr(error)
        gevent.sleep(_ERROR_PAUSE_S)

    # --- topics

    def _prepare(self) -> None:
        if self._client.troubles.fatal:
            log.error("Kafka's client gave up and is replaced", reason=self._client.troubles.fatal)
            gevent.sleep(_ERROR_PAUSE_S)
            self._rebuild()
        elif self._client.outdated:
            log.info("new credentials for Kafka, a new member replaces this one", group=self._group)
            self.commit()
            self._rebuild()
        self._client.open()
        if self._clock() >= self._look_at or self._client.troubles.down:
            self._choose_topics()
        if self._membership.to_open and self._membership.joined:
            self._membership.open(self._subscribed or (), self._matching)

    def _choose_topics(self) -> None:
        self._look_at = self._clock() + _DOWN_PAUSE_S  # if this fails
        present = self._client.topics()
        self._look_at = self._clock() + self._metadata_refresh_s
        self._matching = {topic: present[topic] for topic in present if topic in self._chosen}
        topics = sorted(topic for topic in self._matching if self._wanted(topic))
        if topics == self._subscribed:
            return
        log.info("topics", group=self._group, topics=" ".join(topics) or "none")
        if topics:
            self._membership.subscribe(topics)
        elif self._subscribed:
            self.commit()
            self._client.unsubscribe()
            self._membership.give_up()
        else:
            self._membership.begun = True
        self._subscribed = topics

    # --- reading

    def _fetch(self, deadline: float, is_full: IsFull) -> list[Delivery]:
        deliveries: list[Delivery] = []
        while not deliveries:
            remaining_s = max(0.0, deadline - self._clock())
            if not self._subscribed:
                self._client.read(min(_ERROR_PAUSE_S, remaining_s), 1)  # brings nothing but what is in the way
            else:
                deliveries = self._read(min(_WAIT_S, remaining_s), is_full)
            if remaining_s <= 0 or self._clock() >= self._look_at or self._membership.to_open:
                break
        return deliveries

    def _read(self, wait_s: float, is_full: IsFull) -> list[Delivery]:
        room = self._hold(is_full)
        if self._membership.held - self._membership.failing.waiting(time.monotonic()):
            wait_s = min(wait_s, _HELD_WAIT_S)
        limit = max(1, room)
        pause_s = self._pace.wait_s(self._clock())
        if pause_s > 0:
            gevent.sleep(pause_s)
        messages = self._client.read(wait_s, limit, self.assignment.trackers)
        if not messages:
            return []
        self._pace.note(len(messages), self._clock(), more=len(messages) >= limit)
        return self._admit(messages)

    def _hold(self, is_full: IsFull) -> int:
        """Pauses and resumes partitions; returns how many records may be read from the others, 0 if there are none."""
        rooms = self.assignment.rooms(is_full, self._max_uncommitted)
        for key in self._membership.failing.waiting(time.monotonic()):
            rooms.pop(key, None)
        self._membership.hold(self.assignment.trackers.keys() - rooms.keys())
        return min(_MAX_RECORDS, min(rooms.values(), default=0))

    def _admit(self, messages: list[Message]) -> list[Delivery]:
        found: dict[TopicPartition, list[ReceivedRecord]] = defaultdict(list)
        ends: dict[TopicPartition, int] = {}
        lost_places: set[TopicPartition] = set()
        trackers = self.assignment.trackers
        for message in messages:
            key = place(message)
            error = message.error()
            if error is None:
                found[key].append(ReceivedRecord(key, message))
            elif key not in trackers:
                self._note(key, error)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # the library's own name
                ends[key] = self._client.ends_known[key] = message.offset() or 0
            elif error.code() in _OUT_OF_RANGE:
                lost_places.add(key)
            else:
                self._note(key, error)
        deliveries = []
        # What is no longer ours may lie in the library's queue from before.
        for key in found.keys() & trackers.keys():
            self._membership.failing.forget([key])
            fresh = trackers[key].admit(found[key])
            if fresh:
                deliveries.append(Delivery(trackers[key], fresh))
        for key, offset in ends.items():
            trackers[key].pass_to(offset)
        if lost_places:
            self._membership.restart(lost_places)
        return deliveries

    def _note(self, key: TopicPartition, error: KafkaError) -> None:
        """An error of a partition, or of all: those of connections come to the client's troubles as well."""
        if key in self.assignment.trackers:
            self._membership.note_failure(key, denied(error))
        elif error.code() == KafkaError._FATAL:  # noqa: SLF001
            self._client.troubles.note_fatal(error)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._look_at = min(self._look_at, self._clock() + _ERROR_PAUSE_S)


_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001
