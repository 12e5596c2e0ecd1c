"""Writes records to Kafka until they are stored or refused for good.

``publish`` passes a record to the library at once if the topic's partitions are known. Otherwise, and after a temporary
failure, records wait in the topic's own queue. The one greenlet of this module looks topics up and sends the waiting
records. The look-up creates topics if the brokers allow that.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from kafka import errors as kafka_errors

from pusher.broker.access import Access
from pusher.broker.interface import Done, Failed, Header, PublishError, RecordTooLarge, TopicRefused, log_failure
from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.kafka.client import Partition, connection
from pusher.broker.kafka.producer import CoalescingClient, Errors, Producer
from pusher.broker.unstored import Unstored
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

_BATCH_BYTES = 131_072
#: A larger request is not made, whatever a topic allows; the broker's own default is the same.
_MAX_REQUEST_BYTES = 1_048_576
#: Records in a row that go to one partition: few and full batches.
_RUN = 200
#: What a waiting record takes beside its value and headers, in bytes.
_OVERHEAD_BYTES = 500
#: Pause before a failed record is sent again, and between two look-ups.
_PAUSE_S = 1.0
#: A gap between two answers longer than this means that the brokers were away.
_AWAY_S = 5.0
#: Records that are handed to the library before others get their turn: some 5 ms of work.
_SLICE = 250
#: Without an acknowledgement for this long the publisher is not ready.
_SLOW_S = 10.0

#: Errors that do not pass, and what they mean here. All others are retried for ever.
_REFUSALS: dict[type[Exception], type[PublishError]] = {
    kafka_errors.MessageSizeTooLargeError: RecordTooLarge,
    kafka_errors.RecordListTooLargeError: RecordTooLarge,
    kafka_errors.TopicAuthorizationFailedError: TopicRefused,
    kafka_errors.ClusterAuthorizationFailedError: TopicRefused,
    kafka_errors.InvalidTopicError: TopicRefused,
    kafka_errors.InvalidRecordError: TopicRefused,
    kafka_errors.PolicyViolationError: TopicRefused,
}


#: What errors mean whose own words do not say it.
_MEANINGS: dict[type[Exception], str] = {
    kafka_errors.InvalidTimestampError: (
        "the clocks of this machine and of the brokers differ too much (the topic's message.timestamp.*.max.ms)"
    ),
    kafka_errors.InvalidRecordError: (
        "the brokers refuse the record: a compacted topic (cleanup.policy) needs records with a key"
    ),
}


def meaning(error: Exception) -> str:
    """The meaning of a refusal by the brokers, for an operator."""
    found = _MEANINGS.get(type(error))
    return f"{found}: {error}" if found else str(error)


class KafkaPublisher:
    """A ``Publisher`` over Kafka. The constructor does not wait for a broker.

    ``buffer_kib`` of records that are not stored make it ``full``. ``topic_wait_s`` is how long a topic that does not
    exist may take to appear once the brokers were asked for it.
    """

    def __init__(
        self,
        brokers: str,
        *,
        linger_ms: int = 20,
        buffer_kib: int = 32_768,
        compression: str = "none",
        topic_wait_s: float = 10.0,
        failed: Failed = log_failure,
        login: KafkaLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers, self._clock = brokers, clock
        login = login or KafkaLogin(Access())
        self._unstored, self._topic_wait_s = Unstored(buffer_kib, failed), topic_wait_s
        self._stored_at = clock()
        self._error = ""
        #: Each topic with its partitions and what waits for them.
        self._routes: dict[str, _Route] = {}
        #: Records that failed and when they are due again, in order.
        self._failed: deque[tuple[float, _Outgoing]] = deque()
        self._work = Event()
        self._answers = _Answers()
        self._closed = False
        self._producer = Producer(
            **connection(brokers, login),
            kafka_client=CoalescingClient,
            acks="all",
            enable_idempotence=False,  # its fatal errors would end the producer; feedbacks are at least once anyway
            linger_ms=linger_ms,
            batch_size=_BATCH_BYTES,
            compression_type=None if compression == "none" else compression,
            max_request_size=_MAX_REQUEST_BYTES,
        )
        login.attach(self._producer)
        self._producer.cluster.add_listener(self._note_metadata)
        self._producer.cluster.request_update()
        self._unstored.start("publisher", self._run)

    # --- what the rest calls

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        """Queues a record. See ``Publisher``."""
        record = _Outgoing(self, topic, value, list(headers), done)
        if not self._unstored.count:
            self._stored_at = self._clock()
        self._unstored.add(record)
        self._send(record)

    @property
    def pending(self) -> int:
        """Records that are neither stored nor refused."""
        return self._unstored.count

    @property
    def full(self) -> bool:
        """Whether consuming should pause."""
        return self._unstored.full

    def flush(self, timeout_s: float) -> int:
        """Waits until all is stored or refused, up to ``timeout_s``; returns the number of records left."""
        return self._unstored.wait(timeout_s)

    def close(self) -> None:
        """Gives up what is left, without telling. May wait some 2 s; never raises."""
        self._closed = True
        self._unstored.stop()
        try:
            self._producer.end(_PAUSE_S)
        except Exception:
            log.exception("Kafka's producer did not close")
        self._unstored.give_up()

    def health(self) -> Health:
        """Not ready without a broker, or while records wait without an acknowledgement. Never waits."""
        if not self._producer.cluster.brokers():
            why = self._producer.connections.trouble or f"no connection to Kafka at {self._brokers}"
            return Health(ready=False, reason=why)
        silent_s = self._clock() - self._stored_at
        if self._unstored.count and silent_s > _SLOW_S:
            return Health(ready=False, reason=f"nothing stored for {silent_s:.0f} s: {self._why_silent()}")
        return Health(ready=True)

    def _why_silent(self) -> str:
        return self._producer.connections.trouble or self._error or self._unstored.failure or "no answer"

    # --- ways of a record

    def _send(self, record: _Outgoing) -> None:
        route = self._routes.get(record.topic)
        if route is None:
            route = self._routes[record.topic] = _Route(record.topic)
        partition = None if route.waiting else route.partition(self._producer.cluster)
        if partition is None:
            route.waiting.append(record)
            self._work.set()
        elif record.size > _MAX_REQUEST_BYTES:
            error = RecordTooLarge(f"{record.topic}: {len(record.value)} bytes")
            gevent.get_hub().loop.run_callback(self._unstored.end, record, error)
        else:
            self._producer.append(partition, record, self._ended)

    def _ended(self, records: list[_Outgoing], errors: Errors) -> None:
        """A batch was stored, or the library gave it up. Called in its own greenlet."""
        if errors is not None:
            for index, record in enumerate(records):
                self._fail(record, errors(index))
            return
        self._stored_at = self._clock()
        self._error = ""
        end = self._unstored.end
        for record in records:
            end(record, None)

    def split_ended(self, record: _Outgoing, index: int, errors: Errors) -> None:
        """The same for one record of a batch that was split."""
        self._ended([record], None if errors is None else lambda _: errors(index))

    def _fail(self, record: _Outgoing, error: Exception) -> None:
        """The library gave a record up: it ends if that will not pass, else it is sent again after a pause."""
        refusal = _REFUSALS.get(type(error))
        if refusal is not None:
            self._unstored.end(record, refusal(f"{record.topic}: {meaning(error)}"))
        elif not self._closed:
            self._error = meaning(error)
            _seldom.warning(record.topic, "publishing failed, retrying", topic=record.topic, error=self._error)
            self._failed.append((self._clock() + _PAUSE_S, record))
            self._work.set()

    # --- its own greenlet

    def _run(self) -> None:
        while True:
            self._work.wait(_PAUSE_S if self._failed or self._waiting() else None)
            self._work.clear()
            try:
                for route in self._waiting():
                    self._look_up(route)
                while self._failed and self._failed[0][0] <= self._clock():
                    self._send(self._failed.popleft()[1])
            except kafka_errors.KafkaError as error:
                self._error = str(error)
                _seldom.warning("look-up", "looking up topics failed, retrying", error=error)
                gevent.sleep(_PAUSE_S)

    def _waiting(self) -> list[_Route]:
        return [route for route in self._routes.values() if route.waiting]

    def _note_metadata(self, _cluster: object) -> None:
        self._answers.note(self._clock())
        for route in self._routes.values():
            route.left = 0  # its partition may be gone
        self._work.set()

    def _look_up(self, route: _Route) -> None:
        cluster = self._producer.cluster
        if cluster.available_partitions_for_topic(route.topic):
            self._release(route)
            return
        try:
            cluster.add_topic(route.topic)
        except (TypeError, ValueError) as error:
            self._refuse(route, str(error))
            return
        if route.topic in cluster.unauthorized_topics:
            self._refuse(route, "not authorized")
        elif self._answers.without(route, self._clock()) >= self._topic_wait_s:
            self._refuse(route, "does not exist and was not created")
        elif self._clock() >= route.ask_at:
            route.ask_at = self._clock() + _PAUSE_S
            cluster.request_update()

    def _release(self, route: _Route) -> None:
        route.missing_since = None
        records, route.waiting = route.waiting, deque()
        while records:
            for _ in range(min(_SLICE, len(records))):
                self._send(records.popleft())
            gevent.sleep(0)

    def _refuse(self, route: _Route, reason: str) -> None:
        del self._routes[route.topic]
        self._producer.forget_topic(route.topic)
        for record in route.waiting:
            self._unstored.end(record, TopicRefused(f"{route.topic}: {reason}"))


class _Outgoing:
    """A record on its way."""

    __slots__ = ("done", "headers", "publisher", "size", "topic", "value")

    def __init__(self, publisher: KafkaPublisher, topic: str, value: bytes, headers: list[Header], done: Done) -> None:
        self.publisher, self.topic, self.value, self.headers, self.done = publisher, topic, value, headers, done
        self.size = len(value) + _OVERHEAD_BYTES
        for name, content in headers:
            self.size += len(name) + len(content)

    def rebind(self, produce_future: Any, index: int) -> None:
        """The library has split this record's batch, which was too large."""
        produce_future.add_callback(lambda result: self.publisher.split_ended(self, index, result[2]))


class _Route:
    """The way to a topic: the partition in use, and the records that wait for one."""

    __slots__ = ("_number", "_partition", "ask_at", "left", "missing_since", "topic", "waiting")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.waiting: deque[_Outgoing] = deque()
        #: How many more records go to the present partition.
        self.left = 0
        self.ask_at = 0.0
        #: When an answer first lacked the topic.
        self.missing_since: float | None = None
        #: None before the first: processes begin anywhere, so that short runs do not all end in one partition.
        self._number: int | None = None
        self._partition = Partition(topic, 0)

    def partition(self, cluster: Any) -> Partition | None:
        """Where the next record goes; None while no partition with a leader is known."""
        if not self.left:
            partitions = sorted(cluster.available_partitions_for_topic(self.topic) or ())
            if not partitions:
                return None
            self._number = _following(partitions, self._number)
            self._partition = Partition(self.topic, self._number)
            self.left = _RUN
        self.left -= 1
        return self._partition


def _following(partitions: list[int], number: int | None) -> int:
    """The next partition after ``number``, all in turn; any for the first."""
    if number is None:
        return random.choice(partitions)
    return partitions[bisect_right(partitions, number) % len(partitions)]


class _Answers:
    """When the brokers answered with metadata: a topic is missing only while they answer."""

    def __init__(self) -> None:
        self._last = self._since = float("-inf")

    def note(self, now: float) -> None:
        """An answer has come."""
        if now - self._last > _AWAY_S:
            self._since = now
        self._last = now

    def without(self, route: _Route, now: float) -> float:
        """For how many seconds answers have lacked a topic that is looked up now and again."""
        if route.missing_since is None:
            route.missing_since = now
        return self._last - max(self._since, route.missing_since)
