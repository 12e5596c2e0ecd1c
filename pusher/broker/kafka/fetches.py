"""Which records a consumer asks which broker for next: what its library decides, with fewer questions a partition.

The library asks each partition ten questions, most of them about the broker that all are on; a message that comes alone
is asked for together with every partition that has none.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from kafka.consumer.fetcher import FetchMetadata, FetchRequestData, FetchSessionHandler

from pusher.broker.kafka.wire import Fetch, FetchPartition

#: The newest version that the library understands.
_VERSION = 12
#: Of a partition that is not known.
_NO_EPOCH = -1


class Fetches:
    """Makes the requests of one consumer, as ``Fetcher._create_fetch_requests`` does."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        #: What each broker was asked for is kept by the library, as its answers are.
        self._sessions: dict[int, Any] = fetcher._session_handlers  # noqa: SLF001

    def make(self) -> dict[int, tuple[Fetch, dict[Any, int]]]:
        """For each broker that can be asked now the request, and from which offset each partition is read."""
        return {
            node: (self._request(node, wanted), {partition: each.fetch_offset for partition, each in wanted.items()})
            for node, wanted in self._wanted().items()
        }

    def _wanted(self) -> dict[int, dict[Any, FetchPartition]]:
        fetcher = self._fetcher
        cluster, most = fetcher._manager.cluster, fetcher.config["max_partition_fetch_bytes"]  # noqa: SLF001
        known, at_hand = cluster._partitions, self._at_hand()  # noqa: SLF001
        wanted: dict[int, dict[Any, FetchPartition]] = defaultdict(dict)
        free: dict[int, bool] = {}
        for partition, state in fetcher._subscriptions.assignment.items():  # noqa: SLF001
            if partition in at_hand or not state.is_fetchable():
                continue
            known_as = known.get(partition.topic, {}).get(partition.partition)
            node = known_as.leader_id if known_as is not None else None
            if state._preferred_read_replica is not None:  # noqa: SLF001
                node = fetcher._select_read_replica(partition)  # noqa: SLF001
            if node is None or node == -1:
                cluster.request_update()
                continue
            if node not in free:
                free[node] = self._is_free(node)
            if free[node]:
                epoch = _NO_EPOCH if known_as is None or known_as.leader_epoch is None else known_as.leader_epoch
                position = state._position  # noqa: SLF001
                each = FetchPartition(partition.partition, epoch, position.offset, position.leader_epoch, most)
                wanted[node][partition] = each
        return wanted

    def _at_hand(self) -> set[Any]:
        """Partitions of which something is there that was not handed out yet."""
        fetcher = self._fetcher
        at_hand = {fetch.topic_partition for fetch in fetcher._completed_fetches}  # noqa: SLF001
        if fetcher._next_partition_records:  # noqa: SLF001
            at_hand.add(fetcher._next_partition_records.topic_partition)  # noqa: SLF001
        return at_hand.union(fetcher._paused_completed_fetches, fetcher._paused_partition_records)  # noqa: SLF001

    def _is_free(self, node: int) -> bool:
        """Whether a broker can be asked now: connected, or worth a try, and without a request that waits there."""
        fetcher = self._fetcher
        return (
            node not in fetcher._nodes_with_pending_fetch_requests  # noqa: SLF001
            and not fetcher._manager.connection_delay(node) > 0  # noqa: SLF001
            and not fetcher._client.throttle_delay(node) > 0  # noqa: SLF001
        )

    def _request(self, node: int, wanted: dict[Any, FetchPartition]) -> Fetch:
        fetcher, config = self._fetcher, self._fetcher.config
        if fetcher._enable_incremental_fetch_sessions:  # noqa: SLF001
            if node not in self._sessions:
                self._sessions[node] = FetchSessionHandler(node)
            session = self._sessions[node].build_next(wanted)
        else:
            session = FetchRequestData(wanted, None, FetchMetadata.LEGACY)
        return Fetch(
            max_wait_ms=config["fetch_max_wait_ms"],
            min_bytes=config["fetch_min_bytes"],
            max_bytes=config["fetch_max_bytes"],
            isolation_level=fetcher._isolation_level,  # noqa: SLF001
            session_id=session.id,
            session_epoch=session.epoch,
            topics=session.to_send,
            forgotten_topics_data=session.to_forget,
            rack_id=config["client_rack"],
            min_version=Fetch.min_version_for_isolation_level(fetcher._isolation_level),  # noqa: SLF001
            max_version=_VERSION,
        )
