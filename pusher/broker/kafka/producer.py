"""kafka-python's producer as this package uses it: records join batches in few steps, its sender turns seldom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.producer.producer_batch import ProducerBatch

from pusher.broker.kafka.client import Partition
from pusher.broker.kafka.connections import Connections
from pusher.broker.kafka.records import OpenBatch

#: How often batches that are under way are looked at.
_LOOK_S = 1.0
#: A record after a silence so many times as long as it may linger is sent at once: no other is likely to come soon.
_SILENCE_LINGERS = 3


class CoalescingClient(KafkaNetClient):  # type: ignore[misc]  # the library is untyped
    """A network client that writes one wake-up for each turn of its loop.

    A producer wakes its loop for every batch and, while a partition has two batches, for every record. Each wake-up is
    a system call and a turn of the loop; one is enough until the loop has looked at its work.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._net.wakeup = self._net._selector.wake  # noqa: SLF001
        self._awake = False

    def wakeup(self) -> None:
        """Lets the loop look at its work. Never waits."""
        if not self._awake:
            self._awake = True
            super().wakeup()

    def connection_delay(self, node_id: int) -> float:
        """Milliseconds until a broker that takes nothing now is looked at again, if no broker answers before.

        The library answers in seconds, which its sender takes for milliseconds, and 0 for a broker that is being
        connected to or has enough requests under way: the sender would turn without end until it answers.
        """
        return 1000 * (super().connection_delay(node_id) or _LOOK_S)

    def poll(self, timeout_ms: float | None = None, future: Any = None) -> None:
        """One turn of the loop, which does not wait if it was woken since work was looked at: that follows each turn.

        The library's lock is left out; it is for consumers, whose heartbeats once used the same loop.
        """
        if self._awake and future is None:
            timeout_ms = 0
        self._net.poll(timeout_ms=timeout_ms, future=future)
        self._awake = False


class Outgoing(Protocol):
    """A record for ``Producer.append``."""

    value: bytes
    headers: list[tuple[str, bytes]]

    def rebind(self, produce_future: Any, index: int) -> None:
        """The record's batch was split: it is now number ``index`` of the batch that ends with ``produce_future``."""


#: The error of each record of a batch by its number; None when all are stored.
Errors = Callable[[int], Exception] | None


class Producer(KafkaProducer):  # type: ignore[misc]  # the library is untyped
    """A producer that reports the end of whole batches, and that always closes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._client: CoalescingClient = self._sender._client  # noqa: SLF001
        self.connections = Connections(self._client._manager)  # noqa: SLF001
        self._sender.run_once = self._turn
        #: When batches that are under way are looked at next, whether they have expired (monotonic).
        self._look_at = 0.0
        self._linger_s = self.config["linger_ms"] / 1000
        #: Batches that were begun and wait for more records, and the timer that ends their wait.
        self._open: list[OpenBatch] = []
        self._lingering: Any = None
        #: When a wait was begun last (monotonic).
        self._began_at = -math.inf

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections use these settings; existing connections continue."""
        self.connections.use(settings)

    @property
    def cluster(self) -> Any:
        """Metadata of the cluster, of the topics that were asked for."""
        return self._metadata

    def append(self, partition: Partition, record: Outgoing, ended: Callable[[list[Any], Errors], None]) -> None:
        """Adds a record to the open batch of a partition that exists. Never waits.

        ``ended`` is called once for each batch with its records. This is what ``send`` does, without a future for each
        record, its four locks and three callbacks: 6 instead of 21 us a record. Greenlets need no locks here, as
        nothing between looking at the queue and adding to it can wait.
        """
        queue = self._accumulator._batches[partition]  # noqa: SLF001
        if queue and queue[-1].records.append(None, None, record.value, record.headers) is not None:
            queue[-1]._record_futures.append(record)  # noqa: SLF001
            return
        builder = OpenBatch(2, self.config["compression_attrs"], self.config["batch_size"])
        builder.append(None, None, record.value, record.headers)
        batch = ProducerBatch(partition, builder)
        # What the library calls futures are only ever rebound, when it splits a batch that is too large.
        records = batch._record_futures = [record]  # noqa: SLF001
        batch.produce_future.add_callback(lambda result: ended(records, result[2]))
        queue.append(batch)
        self._accumulator._incomplete.add(batch)  # noqa: SLF001
        self._open.append(builder)
        if len(queue) > 1:  # the one before is full
            self._sender.wakeup()
        if self._lingering is None:
            self._linger()

    def _linger(self) -> None:
        """A batch was begun: it and those that are begun meanwhile are sent together."""
        now = time.monotonic()
        silent_s, self._began_at = now - self._began_at, now
        if silent_s > _SILENCE_LINGERS * self._linger_s:
            self._send_open()
            return
        self._lingering = gevent.get_hub().loop.timer(self._linger_s)
        self._lingering.start(self._send_open)

    def _send_open(self) -> None:
        if self._lingering is not None:
            self._lingering.close()
            self._lingering = None
        for batch in self._open:
            batch.due = True
        self._open.clear()
        self._sender.wakeup()

    def _turn(self) -> None:
        """A turn of the sender, which goes through its batches only if there are any to send, and once a second.

        The library does it thrice more for each batch: when it is begun, when it is sent, and when it is stored. What
        it does for transactions is left out: there are none.
        """
        now, timeout_ms, batches = time.monotonic(), None, self._accumulator._batches  # noqa: SLF001
        for partition in [partition for partition, queue in batches.items() if not queue]:
            del batches[partition]  # the library would look at each partition that was ever written to
        if now >= self._look_at or self._sender._topics_to_add or batches:  # noqa: SLF001
            self._look_at = now + _LOOK_S
            while self._sender._topics_to_add:  # noqa: SLF001
                self._metadata.add_topic(self._sender._topics_to_add.pop())  # noqa: SLF001
            timeout_ms = self._sender._send_producer_data()  # noqa: SLF001
        if not any(batches.values()):  # all is under way: nothing is left to send before an answer comes
            timeout_ms = (self._look_at - now) * 1000 if self._client.in_flight_request_count() else None
        self._client.poll(timeout_ms=timeout_ms)

    def forget_topic(self, topic: str) -> None:
        """Asks for a topic's metadata no longer. A missing one is otherwise asked for ten times a second for ever."""
        self._metadata._topics.discard(topic)  # noqa: SLF001

    def end(self, timeout_s: float) -> None:
        """Closes, by force what is not sent in ``timeout_s``: ``close`` itself then raises and closes nothing."""
        try:
            self.close(timeout=timeout_s)
        except KafkaError:
            self._sender.force_close()
            self._sender.join(timeout_s)
            self.close(timeout=0)
