"""kafka-python's consumer as this package uses it, and what all clients of the library share.

All use of the library's private parts is in this module, ``producer``, ``loop``, ``transport``, ``wire``, ``fetches``,
``batches``, ``records`` and ``replicas``, each with its reason; the version is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from kafka import KafkaConsumer
from kafka.errors import FencedInstanceIdError, KafkaError, LogTruncationError, OffsetOutOfRangeError
from kafka.net.inet import KafkaNetSocket
from kafka.protocol.broker_version_data import BROKER_API_VERSIONS
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Partition

from pusher.broker.kafka import transport, wire
from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.kafka.batches import bound_batches
from pusher.broker.kafka.connections import Connections
from pusher.broker.kafka.fetches import Fetches
from pusher.broker.kafka.loop import HubSelector, lighten, wake_for_work
from pusher.broker.kafka.records import FetchedRecords
from pusher.broker.kafka.replicas import ReadReplicas, keep_read_replicas
from pusher.broker.offsets import TopicPartition

#: Upper bound of the pause between two attempts to connect; the library's own default is 30 s.
_RECONNECT_MAX_MS = 1000
#: A poll waits at least so long for records that are under way; the library asks for less when a heartbeat is due,
#: which does not depend on polls.
_SHORTEST_WAIT_MS = 10

#: How often a consumer looks at its group and at all its partitions.
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


bound_batches()
lighten()
keep_read_replicas()
transport.use_few_steps()
wire.use_few_steps()

__all__ = ["Consumer", "Partition", "connection"]


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
        self._fetcher._create_fetch_requests = Fetches(self._fetcher).make  # noqa: SLF001
        self._replicas = ReadReplicas(self._fetcher)
        self._arrived = Event()
        #: When the group and all partitions are looked at next (monotonic).
        self._look_at = 0.0
        ensure = self._coordinator.ensure_coordinator_ready
        # the library hands this question over to the I/O greenlet even where the answer is known
        self._coordinator.ensure_coordinator_ready = lambda timeout_ms=None: (
            self.coordinator_known or ensure(timeout_ms)
        )
        #: How long brokers may keep a fetch that finds nothing: one of all partitions, and one of some of them.
        self.fetch_wait_ms = self.partial_fetch_wait_ms = int(self._fetcher.config["fetch_max_wait_ms"])
        #: Whether some partitions are paused.
        self.partial = False
        #: Whether another member with the same group.instance.id has taken the place of this one.
        self.fenced = False
        answered = self._coordinator._handle_heartbeat_response  # noqa: SLF001
        self._beat, self._coordinator._handle_heartbeat_response = answered, self._beaten  # noqa: SLF001

    @property
    def cluster(self) -> Any:
        """Metadata of the cluster, kept by the I/O greenlet."""
        return self._client.cluster

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections use these settings; existing connections continue."""
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
        return bool(self._coordinator.stable()) and not self._must_rejoin

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

    def _poll_once(self, timer: Any, max_records: int, update_offsets: bool = True) -> dict[Partition, Any]:
        """The library goes through all partitions and the group before each fetch; once a second is enough.

        Whoever polls has made sure that no rebalance goes on, and positions are set where they are lost.
        """
        now = time.monotonic()
        if now < self._look_at:
            records, idle = self._fetched(max_records, update_offsets, timer.timeout_ms)
            if records or not idle:
                return records
        self._look_at = now + _LOOK_S
        found: dict[Partition, Any] = super()._poll_once(timer, max_records, update_offsets=update_offsets)
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
        wait_s = max(timeout_ms, _SHORTEST_WAIT_MS) / 1000
        if not fetcher.in_flight_fetches():
            if timeout_ms < _SHORTEST_WAIT_MS:  # else the library waits
                gevent.sleep(wait_s)
            return records, True
        if self._arrived.is_set():  # by a fetch that failed when it was sent: only others can change why
            gevent.sleep(_SHORTEST_WAIT_MS / 1000)
        else:
            self._arrived.wait(wait_s)
        records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        return records, False

    def _send_fetches(self) -> None:
        self._arrived.clear()
        partial = self.partial or self._fetcher._next_partition_records  # noqa: SLF001
        wait_ms = self.partial_fetch_wait_ms if partial else self.fetch_wait_ms
        self._fetcher.config["fetch_max_wait_ms"] = wait_ms
        self._replicas.choose()
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
        self._replicas.note_answer(fetch)
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
        """Where reading continues in partitions whose offsets were skipped without a record since the last call.

        Transactions' markers, aborted and compacted records have an offset and are no messages.
        """
        partitions, states = list(self._skipped), self._subscription.assignment
        self._skipped.clear()
        return {
            TopicPartition(*partition): states[partition].position.offset
            for partition in partitions
            if partition in states and states[partition].position is not None
        }

    def _beaten(self, answer: Any, sent_at: float) -> None:
        """The library stops heartbeats when another process has the place, reports nothing, and continues reading."""
        try:
            self._beat(answer, sent_at)
        except FencedInstanceIdError:
            self.fenced = True
            raise

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
        """Subscribes to these topics, which exist, and still fetches the metadata of all topics.

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
