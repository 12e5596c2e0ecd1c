"""Writes records to Kafka through librdkafka until they are stored or refused for good.

The library keeps its records and retries them by itself, without end. The one greenlet of this module creates the
producer, reads the library's reports while records are on their way, and resends records that the library gave up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gevent
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from gevent.event import Event

from pusher.broker.access import Access
from pusher.broker.interface import Done, Failed, Header, PublishError, RecordTooLarge, TopicRefused, log_failure
from pusher.broker.librdkafka.access import LibrdkafkaLogin, connection, same_but_credentials
from pusher.broker.librdkafka.native import Threads
from pusher.broker.librdkafka.troubles import BrokerTroubles
from pusher.broker.unstored import Unstored
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

_BATCH_BYTES = 131_072
#: A larger record is not sent, whatever a topic allows; the broker's own default is about the same.
_MAX_RECORD_BYTES = 1_048_576
#: What a waiting record takes beside its value and headers, in bytes.
_OVERHEAD_BYTES = 500
#: Between two looks at the library's reports while records are under way, and while none are.
_REPORTS_S = 0.04
_IDLE_S = 1.0
#: Pause before a failed record is sent again, and between two looks for brokers.
_PAUSE_S = 1.0
_PROBE_S = 3.0
#: Records that are ended before others get their turn: some 5 ms of work.
_SLICE = 250
#: Without an acknowledgement for this long the publisher is not ready.
_SLOW_S = 10.0

#: Errors that do not pass, and what they mean here. All others are retried for ever.
_REFUSALS: dict[int, type[PublishError]] = {
    KafkaError.MSG_SIZE_TOO_LARGE: RecordTooLarge,
    KafkaError.RECORD_LIST_TOO_LARGE: RecordTooLarge,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: TopicRefused,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: TopicRefused,
    KafkaError.TOPIC_EXCEPTION: TopicRefused,
    KafkaError.INVALID_RECORD: TopicRefused,
    KafkaError.POLICY_VIOLATION: TopicRefused,
}
#: A topic that does not exist, or is just being made.
_MISSING = {KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}  # noqa: SLF001  # the library's own name
#: What errors mean whose own words do not say it.
_MEANINGS: dict[int, str] = {
    KafkaError.INVALID_TIMESTAMP: (
        "the clocks of this machine and of the brokers differ too much (the topic's message.timestamp.*.max.ms)"
    ),
    KafkaError.INVALID_RECORD: (
        "the brokers refuse the record: a compacted topic (cleanup.policy) needs records with a key"
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "not authorized",
}


def meaning(error: KafkaError) -> str:
    """The meaning of a refusal by the brokers, for an operator."""
    found = "does not exist and was not created" if error.code() in _MISSING else _MEANINGS.get(error.code())
    return f"{found}: {error.str()}" if found else str(error.str())


class LibrdkafkaPublisher:
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
        login: LibrdkafkaLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers, self._clock = brokers, clock
        self._login = login or LibrdkafkaLogin(Access())
        self._unstored, self._topic_wait_s = Unstored(buffer_kib, failed), topic_wait_s
        self._stored_at = clock()
        self._error = ""
        self._troubles = BrokerTroubles()
        self._conf = {
            "acks": "all",
            "linger.ms": linger_ms,
            "batch.size": _BATCH_BYTES,
            "compression.type": compression,
            "message.max.bytes": _MAX_RECORD_BYTES,
            # Nothing is ever given up for its age, nor refused for want of room: ``full`` is what holds others up.
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": 2_147_483_647,
            # Only brokers that answer say that a topic is missing: that is counted here.
            "topic.metadata.propagation.max.ms": round(_PAUSE_S * 1000),
            "allow.auto.create.topics": True,
        }
        self._threads = Threads(2)
        self._settings = self._login.settings
        #: None before it is made; those that were replaced and still have records under way.
        self._producer: Producer | None = None
        self._replaced: list[Producer] = []
        #: Sends each record in a batch of its own, once a batch was refused for its size. None before.
        self._single: Producer | None = None
        #: What waits for the producer, what the library reported, what failed and when it is due again.
        self._waiting: deque[_Outgoing] = deque()
        self._reports: deque[_Outgoing] = deque()
        self._failed: deque[tuple[float, _Outgoing]] = deque()
        self._work = Event()
        self._probe_at = 0.0
        self._closed = False
        self._login.attach(self)
        self._unstored.start("publisher", self._run)

    # --- what the rest calls

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        """Queues a record. See ``Publisher``."""
        record = _Outgoing(self._reports, topic, value, headers, done)
        if not self._unstored.count:
            self._work.set()
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
        producers = [producer for producer in (self._producer, self._single, *self._replaced) if producer is not None]
        self._producer = self._single = None
        try:
            for producer in producers:
                self._threads.call_within(_PAUSE_S, partial(_end, producer))
        except Exception:
            log.exception("Kafka's producer did not close")
        self._threads.close()
        self._unstored.give_up()

    def health(self) -> Health:
        """Not ready without a broker, or while records wait without an acknowledgement. Never waits."""
        if self._troubles.down:
            why = self._troubles.text or f"no connection to Kafka at {self._brokers}"
            return Health(ready=False, reason=why)
        silent_s = self._clock() - self._stored_at
        if self._unstored.count and silent_s > _SLOW_S:
            why = self._troubles.text or self._error or self._unstored.failure or "no answer"
            return Health(ready=False, reason=f"nothing stored for {silent_s:.0f} s: {why}")
        return Health(ready=True)

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections use these settings; existing connections continue."""
        producer, username = self._producer, settings["conf"].get("sasl.username")
        if not same_but_credentials(self._settings, settings):
            if producer is not None:
                self._replaced.append(producer)
            self._producer = self._single = None
        elif username:
            for each in filter(None, (producer, self._single)):
                each.set_sasl_credentials(username, settings["conf"]["sasl.password"])
        self._settings = settings
        self._work.set()

    # --- ways of a record

    def _send(self, record: _Outgoing) -> None:
        producer = self._single if record.alone else self._producer
        if producer is None:
            self._waiting.append(record)
            self._work.set()
            return
        try:
            producer.produce(record.topic, record.value, headers=record.headers, on_delivery=record.reported)
        except KafkaException as error:
            record.error = error.args[0]
            self._reports.append(record)
        except BufferError:  # not with these settings
            self._failed.append((self._clock() + _PAUSE_S, record))

    def _end_reported(self) -> None:
        """Ends what the library has reported, in slices."""
        if any(record.error is None for record in self._reports):
            self._stored_at = self._clock()
            self._error = ""
        reports, end = self._reports, self._unstored.end
        for number in range(1, len(reports) + 1):
            record = reports.popleft()
            if record.error is None:
                end(record, None)
            else:
                self._end_or_retry(record, record.error)
            if not number % _SLICE:
                gevent.sleep(0)

    def _end_or_retry(self, record: _Outgoing, error: KafkaError) -> None:
        refusal = TopicRefused if self._is_missing(record, error) else _REFUSALS.get(error.code())
        if refusal is RecordTooLarge and not record.alone and record.size < _MAX_RECORD_BYTES:
            # The brokers refuse a batch for one record in it: each is to show whether it is the one.
            record.alone = True
            self._failed.append((self._clock(), record))
        elif refusal is not None:
            self._unstored.end(record, refusal(f"{record.topic}: {meaning(error)}"))
        else:
            self._error = meaning(error)
            _seldom.warning(record.topic, "publishing failed, retrying", topic=record.topic, error=self._error)
            self._failed.append((self._clock() + _PAUSE_S, record))

    def _is_missing(self, record: _Outgoing, error: KafkaError) -> bool:
        """Whether the record's topic has been missing for long enough."""
        if error.code() not in _MISSING:
            return False
        if record.missing_since is None:
            record.missing_since = self._clock()
        return self._clock() - record.missing_since >= self._topic_wait_s

    # --- its own greenlet

    def _run(self) -> None:
        while True:
            if self._unstored.count:
                gevent.sleep(_REPORTS_S)
            else:
                self._work.wait(_IDLE_S)
            self._work.clear()
            try:
                self._make_producers()
            except (KafkaException, OSError) as error:
                self._error = str(error)
                gevent.sleep(_PAUSE_S)
                continue
            for producer in filter(None, (self._producer, self._single, *self._replaced)):
                producer.poll(0)
            self._end_reported()
            self._send_again()
            if self._troubles.down and self._clock() >= self._probe_at:
                self._probe()

    def _make_producers(self) -> None:
        if self._producer is None:
            self._producer = self._make()
            self._probe_at = 0.0
        if self._single is None and any(record.alone for record in self._waiting):
            self._single = self._make({"batch.num.messages": 1, "linger.ms": 0})
        for producer in [each for each in self._replaced if not len(each)]:
            self._replaced.remove(producer)
            self._threads.call(_end, producer)
        waiting, self._waiting = self._waiting, deque()
        for record in waiting:
            self._send(record)

    def _make(self, conf: dict[str, Any] | None = None) -> Producer:
        """Waits for the first token, if there are tokens. Raises KafkaException."""
        settings = connection(self._brokers, self._settings, self._troubles) | self._conf | (conf or {})
        made: Producer = self._threads.call(Producer, settings)
        return made

    def _send_again(self) -> None:
        while self._failed and self._failed[0][0] <= self._clock():
            self._send(self._failed.popleft()[1])

    def _probe(self) -> None:
        """Checks whether a broker is reachable: the library reports when none is, but not when one is back."""
        producer = self._producer
        self._probe_at = self._clock() + _PROBE_S + _PAUSE_S

        def look() -> None:
            try:
                if producer is not None:
                    self._threads.call(lambda: producer.list_topics(timeout=_PROBE_S))
            except KafkaException:
                self._probe_at = self._clock() + _PAUSE_S
            else:
                self._troubles.clear()

        self._unstored.start("publisher's look for brokers", look)


def _end(producer: Producer) -> None:
    """Called in a thread."""
    producer.purge()
    producer.close()


class _Outgoing:
    """A record on its way."""

    __slots__ = ("alone", "done", "error", "headers", "missing_since", "reports", "size", "topic", "value")

    def __init__(
        self, reports: deque[_Outgoing], topic: str, value: bytes, headers: Sequence[Header], done: Done
    ) -> None:
        self.reports, self.topic, self.value, self.done = reports, topic, value, done
        self.headers: list[tuple[str, str | bytes | None]] | None = list(headers) or None
        #: Why the library gave it up.
        self.error: KafkaError | None = None
        #: When an answer first lacked the topic.
        self.missing_since: float | None = None
        #: Whether it is to be sent in a batch of its own.
        self.alone = False
        self.size = len(value) + _OVERHEAD_BYTES
        for name, content in headers:
            self.size += len(name) + len(content)

    def reported(self, error: KafkaError | None, _message: Message) -> None:
        """The library's ``on_delivery``: it has stored the record or given it up."""
        self.error = error
        self.reports.append(self)
