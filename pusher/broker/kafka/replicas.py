"""Which replica of a partition is read: the one in the same rack, when its leader names one (KIP-392).

The library forgets it at every answer that names none, and a follower names none, so that every other request would go
to a leader, which answers it without records. Here a replica is forgotten when it fails.
"""

from __future__ import annotations

import time
from typing import Any

from kafka.consumer.subscription_state import TopicPartitionState
from kafka.errors import NoError, OffsetOutOfRangeError

#: After a replica has failed leaders are asked for their own records for so long: they name it as long as they have not
#: noticed, which takes a broker's session.
_LEADERS_S = 10.0
#: The library itself forgets the replica at the second.
_PASSED_OVER = {NoError.errno, OffsetOutOfRangeError.errno}


def keep_read_replicas() -> None:
    """Lets answers without a name leave what an earlier one named."""
    update = TopicPartitionState.update_preferred_read_replica

    def update_if_named(self: Any, node_id: int | None, expiration_time: float) -> bool:
        return node_id is not None and node_id >= 0 and bool(update(self, node_id, expiration_time))

    TopicPartitionState.update_preferred_read_replica = update_if_named


class ReadReplicas:
    """Of one consumer."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        self._rack = fetcher.config["client_rack"]
        self._leaders_until = 0.0
        self._note_error, fetcher._handle_fetch_error = fetcher._handle_fetch_error, self._failed  # noqa: SLF001

    def choose(self) -> None:
        """To be called before requests are made."""
        self._fetcher.config["client_rack"] = self._rack if time.monotonic() >= self._leaders_until else ""

    def note_answer(self, fetch: Any) -> None:
        """One that is about to be read: what a replica refuses its leader may give."""
        state = self._states.get(fetch.topic_partition)
        if state is not None and fetch.partition_data.error_code not in _PASSED_OVER:
            self._forget(state)

    def _failed(self, node_id: int, error: Exception) -> None:
        """The library's own note of a request that got no answer."""
        for state in self._states.values():
            if state.preferred_read_replica() == node_id:
                self._forget(state)
        self._note_error(node_id, error)

    def _forget(self, state: Any) -> None:
        if state.clear_preferred_read_replica() is not None:
            self._leaders_until = time.monotonic() + _LEADERS_S

    @property
    def _states(self) -> dict[Any, Any]:
        states: dict[Any, Any] = self._fetcher._subscriptions.assignment  # noqa: SLF001
        return states
