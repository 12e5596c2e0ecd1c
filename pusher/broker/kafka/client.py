"""kafka-python's consumer and network client as this package uses them.

All use of the library's private parts is in this module, ``batches`` and ``records``, each with its reason; the version
is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import gevent
from gevent.event import Event
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.producer_batch import ProducerBatch
from kafka.protocol.broker_version_data import BROKER_API_VERSIONS
from kafka.structs import MemberState, OffsetAndMetadata
from kafka.structs import TopicPartition as Partition

from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.kafka.batches import bound_batches
from pusher.broker.kafka.connections import Connections
from pusher.broker.kafka.loop import HubSelector, lighten, wake_for_work, write_at_once
from pusher.broker.kafka.records import FetchedRecords, OpenBatch
from pusher.broker.offsets import TopicPartition

#: Upper bound of the pause between two attempts to connect; the library's own default is 30 s.
_RECONNECT_MAX_MS = 1000
#: A poll waits at least so long for records that are under way; the library asks for less when a heartbeat is due,
#: which does not depend on polls.
_SHORTEST_WAIT_MS = 10

#: A timer may be early by as much as the hub's time is late, and a batch that is not due is looked at once more.
_LATE_S = 0.001
#: How often batches that are under way are looked at.
_LOOK_S = 1.0


def connection(brokers: str, login: KafkaLogin) -> dict[str, Any]:
    """Settings that every consumer and producer is made with.

    ``api_version`` is the newest that the library knows, so that constructors do not wait for a broker: an older broker
    is recognised when it is connected to, a newer one speaks this version too. ``proxy_url`` only chooses who makes the
    sockets: there is no proxy.
    """
    return login.settings | {
        "bootstrap_servers": [broker.strip() for broker in brokers.split(",")],
        "api_version": max(BROKER_API_VERSIONS),
        "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
        "metrics_enabled": False,
        "proxy_url": f"{ClosingSocket.SCHEMES[0]}://",
        "selector": HubSelector,
    }


def _read_to_the_end(transport: Any) -> None:
    """Lets a transport hand on what came together with the end of the connection.

    The library drops it: the answer that says why a login is refused, behind which brokers close at once.
    """
    receive = transport._sock_recv  # noqa: SLF001

    def sock_recv(self: Any) -> tuple[bytes, Exception | None]:
        received, error = receive(self)
        return received, None if received else error  # the next turn meets the end again

    transport._sock_recv = sock_recv  # noqa: SLF001


bound_batches()
lighten()
_read_to_the_end(KafkaTCPTransport)
_read_to_the_end(KafkaSSLTransport)
write_at_once(KafkaTCPTransport)

__all__ = ["CoalescingClient", "Consumer", "Errors", "Partition", "Producer", "connection"]


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # the library is untyped
    """Makes sockets, and closes those that do not connect.

    The library leaves them to the garbage collector, which errors and their frames keep them from for long: each
    attempt while a broker is away costs a descriptor. Subclasses register themselves under their SCHEMES.
    """

    SCHEMES = ("direct",)

    async def sock_connect(self, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None) -> Any:
        """The connected socket. Raises what the library's own raises."""
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:  # being closed while it waits, too
            sock.close()
            raise


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

    def poll(self, timeout_ms: float | None = None, future: Any = None) -> None:
        """One turn of the loop, which does not wait if it was woken since work was looked at: that follows each turn.

        The library's lock is left out; it is for consumers, whose heartbeats once used the same loop.
        """
        if self._awake and future is None:
            timeout_ms = 0
        self._net.poll(timeout_ms=timeout_ms, future=future)
        self._awake = False


class Outgoing(Protocol):
    """A record as ``Producer.append`` takes it."""

    value: bytes
    headers: list[tuple[str, bytes]]

    def rebind(self, produce_future: Any, index: int) -> None:
        """The record's batch was split: it is now number ``index`` of the batch that ends with ``produce_future``."""


#: The error of each record of a batch by its number; None when all are stored.
Errors = Callable[[int], Exception] | None


class Producer(KafkaProducer):  # type: ignore[misc]  # the library is untyped
    """A producer that tells the end of whole batches, and one that always closes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._client: CoalescingClient = self._sender._client  # noqa: SLF001
        self.connections = Connections(self._client._manager)  # noqa: SLF001
        self._run_once, self._sender.run_once = self._sender.run_once, self._turn
        #: When batches that are under way are looked at next, whether they have expired (monotonic).
        self._look_at = 0.0
        self._lingering: Any = gevent.get_hub().loop.timer(self.config["linger_ms"] / 1000 + _LATE_S)

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections with these settings; those there are go on."""
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
        if len(queue) > 1:  # the one before is full
            self._sender.wakeup()
        elif not self._lingering.active:
            self._lingering.start(self._sender.wakeup)

    def _turn(self) -> None:
        """A turn of the sender, which goes through its batches only if there are any to send, and once a second.

        The library does it thrice more for each batch: when it is begun, when it is sent, and when it is stored.
        """
        now = time.monotonic()
        if now >= self._look_at or self._sender._topics_to_add or any(self._accumulator._batches.values()):  # noqa: SLF001
            self._look_at = now + _LOOK_S
            self._run_once()
        else:
            under_way = self._client.in_flight_request_count()
            self._client.poll(timeout_ms=(self._look_at - now) * 1000 if under_way else None)

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


class Consumer(KafkaConsumer):  # type: ignore[misc]  # the library is untyped
    """A consumer that says what it knows of its group and of all topics. Its records are ``records.ConsumedRecord``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._net.wakeup = self._net._selector.wake  # noqa: SLF001
        self.connections = Connections(self._manager)
        #: Whether the present metadata were asked for all topics; the first may not be, while the constructor runs.
        self.knows_all_topics = False
        self._ask, self.cluster.metadata_request = self.cluster.metadata_request, self._metadata_request
        self._skipped: set[Partition] = set()
        self._failed: dict[TopicPartition, Exception] = {}
        self._fetcher.PartitionRecords = partial(FetchedRecords, skipped=self._skipped, failed=self._failed)
        self._parse, self._fetcher._parse_fetched_data = self._fetcher._parse_fetched_data, self._parsed  # noqa: SLF001
        self._fetch_records, self._fetcher.fetch_records = self._fetcher.fetch_records, self._fetched  # in few steps
        self._arrived = Event()
        ensure = self._coordinator.ensure_coordinator_ready
        # the library hands this question over to the I/O greenlet even where the answer is known
        self._coordinator.ensure_coordinator_ready = lambda timeout_ms=None: (
            self.coordinator_known or ensure(timeout_ms)
        )
        #: How long brokers may keep a fetch that finds nothing: one of all partitions, and one of some of them.
        self.fetch_wait_ms = self.partial_fetch_wait_ms = int(self._fetcher.config["fetch_max_wait_ms"])
        #: Whether some partitions are paused.
        self.partial = False

    @property
    def cluster(self) -> Any:
        """Metadata of the cluster, kept by the I/O greenlet."""
        return self._client.cluster

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections with these settings; those there are go on."""
        self.connections.use(settings)

    def _metadata_request(self) -> Any:
        """One is under way at a time, so that the last one that was made is the one that is answered."""
        self.knows_all_topics = self.cluster.need_all_topic_metadata
        return self._ask()

    def reach(self, node: int) -> None:
        """Connects to a broker at the address that it advertises. Waits; raises KafkaError."""

        async def connect() -> None:
            await self._manager.get_connection(node)

        self._net.run(connect)

    @property
    def joined(self) -> bool:
        """Whether this member has its share of the partitions and no rebalance is going on."""
        return bool(self.group_metadata().state == MemberState.STABLE) and not self._must_rejoin

    @property
    def coordinator_known(self) -> bool:
        """Whether there is a connection to the broker that keeps the group."""
        return not self._coordinator.coordinator_unknown()

    @property
    def _must_rejoin(self) -> bool:
        return bool(self._coordinator.rejoining or self._coordinator.need_rejoin())

    def read(self, timeout_ms: float, max_records: int) -> dict[Partition, list[Any]]:
        """The next records of partitions that are not paused. Waits up to ``timeout_ms``. Raises KafkaError.

        Records that were fetched for a partition before it was paused are set aside, and taken up again only when no
        others are being handed out. The library takes a batch that is used up for one that is being handed out: the
        partition then stands still until another one gets new records.
        """
        fetcher = self._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:  # noqa: SLF001
            fetcher._next_partition_records = None  # noqa: SLF001
        found: dict[Partition, list[Any]] = self.poll(timeout_ms=timeout_ms, max_records=max_records)
        return found

    def _fetched(self, max_records: int, update_offsets: bool, timeout_ms: float) -> tuple[dict[Partition, Any], bool]:
        """What ``Fetcher.fetch_records`` returns, in the same steps, without three hand-overs to the I/O greenlet.

        Greenlets need none where nothing waits, and making and sending requests does not.
        """
        if self._net._exception is not None:  # noqa: SLF001  # the I/O greenlet has died
            raise self._net._exception  # noqa: SLF001
        fetcher = self._fetcher
        if fetcher._reset_task is not None and not fetcher._reset_task.is_done:  # noqa: SLF001
            found: tuple[dict[Partition, Any], bool] = self._fetch_records(
                max_records, update_offsets=update_offsets, timeout_ms=timeout_ms
            )
            return found
        records, more = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        if not more:
            self._send_fetches()
        if records:
            return records, False
        if not fetcher.in_flight_fetches():
            return records, True
        self._arrived.wait(max(timeout_ms, _SHORTEST_WAIT_MS) / 1000)
        records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        return records, False

    def _send_fetches(self) -> None:
        self._arrived.clear()
        partial = self.partial or self._fetcher._next_partition_records  # noqa: SLF001
        wait_ms = self.partial_fetch_wait_ms if partial else self.fetch_wait_ms
        self._fetcher.config["fetch_max_wait_ms"] = wait_ms
        sending = self._fetcher._send_fetches_async()  # noqa: SLF001
        try:
            sending.send(None)
        except StopIteration as sent:
            for future in sent.value:
                future.add_both(self._note_arrival)
        else:
            raise RuntimeError("sending a fetch has waited")
        wake_for_work(self._net)

    def _note_arrival(self, _: object) -> None:
        self._arrived.set()

    def _parsed(self, fetch: Any) -> Any:
        """Errors of one partition are kept apart: the library raises them in the middle of what others sent."""
        try:
            return self._parse(fetch)
        except (OffsetOutOfRangeError, LogTruncationError):
            raise
        except KafkaError as error:
            self._failed[TopicPartition(*fetch.topic_partition)] = error
            return None

    def failed(self) -> dict[TopicPartition, Exception]:
        """Partitions whose records could not be had since the last call, and why."""
        found = dict(self._failed)
        self._failed.clear()
        return found

    def skipped(self) -> dict[TopicPartition, int]:
        """Where reading goes on in partitions whose offsets were passed over without a record since the last call.

        Transactions' markers, aborted and compacted records have an offset and are no messages.
        """
        partitions, states = list(self._skipped), self._subscription.assignment
        self._skipped.clear()
        return {
            TopicPartition(*partition): states[partition].position.offset
            for partition in partitions
            if partition in states and states[partition].position is not None
        }

    def rejoin(self, timeout_ms: float) -> None:
        """Takes part in a rebalance until it is complete, up to ``timeout_ms``; fetches nothing. Raises KafkaError.

        Unlike ``poll`` this returns as soon as there are partitions, and it sees a rebalance through. One for new
        topics or partitions is known to the library only as a difference, which is gone once the join request is
        written; if that poll ends before the answer, later polls see no reason to fetch it, and the member never gets
        partitions again. An explicit request stays until the join is complete.
        """
        if self._must_rejoin:
            self._coordinator.request_rejoin()
        self._coordinator.poll(timeout_ms=timeout_ms)

    def subscribe_to(self, topics: list[str], listener: Any) -> None:
        """Subscribes to these topics, which exist, and goes on fetching the metadata of all topics.

        The metadata of all topics finds new ones and never creates one, which a request for a name may do. Telling the
        coordinator of the present metadata saves a second rebalance when the next metadata arrive.
        """
        self.subscribe(topics=topics, listener=listener)
        self.watch_all_topics()
        self._coordinator._handle_metadata_update(self.cluster)  # noqa: SLF001

    def watch_all_topics(self) -> None:
        """Fetches the metadata of all topics from now on."""
        self.cluster.need_all_topic_metadata = True
        self.cluster.request_update()

    def committed_offsets(self, keys: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, Any]:
        """What the group has committed for these partitions, in one request; those without a commit are left out."""
        found = self._coordinator.fetch_committed_offsets([Partition(*key) for key in keys], timeout_ms=timeout_ms)
        return {TopicPartition(*partition): committed for partition, committed in found.items()}

    async def commit_within(self, offsets: dict[Partition, OffsetAndMetadata], timeout_ms: int) -> None:
        """Commits from within a rebalance listener, where ``commit`` may not be called. Raises as ``commit`` does."""
        await self._manager.wait_for(self.commit_async(offsets), timeout_ms)
