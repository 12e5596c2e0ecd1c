"""The two ends of a soak: writes push requests at a rate, reads what comes back, and keeps an account of each app."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import gevent
from kafka import KafkaConsumer, TopicPartition

from pusher.broker.interface import PublishError
from pusher.broker.kafka.publisher import KafkaPublisher
from tests.faults.ledger import token_of
from tests.faults.soak.account import Account, read_feedback

PARTITIONS = 3
#: About 2 % of the tokens are dead.
DEAD_EVERY = 50
_TICK_S = 0.05
#: What was not written in time, because the broker was away, is left out beyond this.
_CATCH_UP_S = 1.0
#: While messages of this many seconds wait for their feedbacks nothing is written: the machine is too busy.
_MOST_WAITING_S = 5.0
_APPLE = (
    '{"DeviceToken":"%s","Payload":{"aps":{"alert":"message %d","badge":1,"sound":"default"}},'
    '"metadata":{"number":%d,"at":%d}}'
)
_GOOGLE = '{"to":"%s","notification":{"title":"hello","body":"message %d"},"metadata":{"number":%d,"at":%d}}'


class Stream:
    """The messages of one app on one platform."""

    def __init__(self, app: str, platform: str, rate_s: float) -> None:
        self.app, self.platform, self.rate_s = app, platform, rate_s
        self.account = Account(DEAD_EVERY)
        self.topic = f"push-{app}_{platform}-single"
        self.feedback_topic = f"push-{app}-{platform}-feedbacks"
        self.invalid_topic = f"push-{app}-{platform}-invalid"
        #: ms from writing a message to its feedback, since it was last asked.
        self._latencies_ms: list[int] = []
        self._form = _APPLE if platform == "apns" else _GOOGLE

    @property
    def name(self) -> str:
        return f"{self.app} ({self.platform})"

    def message(self, now_ms: int) -> bytes:
        """The next one."""
        number = self.account.produce()
        token = ("dead" if self.account.is_dead(number) else "0000") + token_of(number)
        return (self._form % (token, number, number, now_ms)).encode()

    def feed_back(self, value: bytes, time_ms: int) -> None:
        """Takes in a feedback and its timestamp."""
        told = read_feedback(value)
        self.account.settle(told.number, told.kind)
        self._latencies_ms.append(time_ms - told.sent_ms)

    def take_latencies(self) -> list[int]:
        """Sorted; those of the feedbacks since the last call."""
        taken, self._latencies_ms = self._latencies_ms, []
        return sorted(taken)


class Writer:
    """Writes all streams, each at its rate, from one greenlet."""

    def __init__(self, brokers: str, streams: Iterable[Stream]) -> None:
        self._publisher = KafkaPublisher(brokers, buffer_kib=262_144)
        self._due = dict.fromkeys(streams, 0.0)
        self._greenlet = gevent.Greenlet(self._run)
        #: What Kafka refused for good: should stay empty.
        self.refused: list[str] = []

    def start(self) -> gevent.Greenlet[[], None]:
        """The greenlet that writes."""
        self._greenlet.start()
        return self._greenlet

    def stop(self, timeout_s: float = 60) -> None:
        """Ceases to write, and waits until Kafka has it all."""
        self._greenlet.kill()
        self._publisher.flush(timeout_s)

    def close(self) -> None:
        self._publisher.close()

    def _run(self) -> None:
        before = time.monotonic()
        while True:
            gevent.sleep(_TICK_S)
            now = time.monotonic()
            if not self._publisher.full:
                self._write(min(now - before, _CATCH_UP_S))
            before = now

    def _write(self, seconds: float) -> None:
        now_ms = int(time.time() * 1000)
        for stream in self._due:
            if stream.account.produced - stream.account.settled > stream.rate_s * _MOST_WAITING_S:
                continue
            count, self._due[stream] = divmod(self._due[stream] + stream.rate_s * seconds, 1)
            for _ in range(int(count)):
                self._publisher.publish(stream.topic, stream.message(now_ms), self._done)

    def _done(self, error: PublishError | None) -> None:
        if error is not None:
            self.refused.append(str(error))


class Reader:
    """Reads feedbacks and invalid messages of all streams, from one greenlet, without belonging to a group."""

    def __init__(self, brokers: str, streams: Iterable[Stream]) -> None:
        self._streams = {stream.feedback_topic: stream for stream in streams}
        topics = [*self._streams, *(stream.invalid_topic for stream in streams)]
        self._greenlet = gevent.Greenlet(self._run)
        #: What should not be there: invalid messages, feedbacks of no message.
        self.strangers: list[str] = []
        self._consumer: Any = KafkaConsumer(
            bootstrap_servers=brokers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=2000,
            reconnect_backoff_max_ms=500,
        )
        self._consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)])

    def start(self) -> gevent.Greenlet[[], None]:
        """The greenlet that reads."""
        self._greenlet.start()
        return self._greenlet

    def close(self) -> None:
        self._greenlet.kill()
        self._consumer.close()

    def _run(self) -> None:
        while True:
            for partition, records in self._consumer.poll(timeout_ms=100).items():
                stream = self._streams.get(partition.topic)
                for record in records:
                    self._take(stream, record)
                gevent.sleep(0)
            gevent.sleep(0.01)

    def _take(self, stream: Stream | None, record: Any) -> None:
        if stream is None:
            self.strangers.append(f"in {record.topic}: {record.value!r}")
            return
        try:
            stream.feed_back(record.value, record.timestamp)
        except ValueError as error:
            self.strangers.append(str(error))


def ends(brokers: str, topics: Iterable[str]) -> dict[str, int]:
    """How many records each topic ever got."""
    consumer: Any = KafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        found = consumer.end_offsets(partitions)
    finally:
        consumer.close()
    totals: dict[str, int] = {}
    for partition, end in found.items():
        totals[partition.topic] = totals.get(partition.topic, 0) + end
    return totals
