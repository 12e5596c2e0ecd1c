"""A Redis cluster: each node is asked about the keys that it has.

Needs Redis 7, whose scripts may use keys of several slots.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import gevent
import redis
from gevent.event import Event
from redis.crc import key_slot

from pusher.push.limits.connection import answer_of, plain_errors
from pusher.push.limits.script import LuaScript
from pusher.push.limits.server import RedisAddress, RedisConnections, RedisUnavailable, one_line

#: What makes a script one that may use keys of several slots of its node (Redis, "Lua script flags").
_FLAGS = "#!lua flags=allow-cross-slot-keys\n"
#: The map of the slots is read again at once where it was wrong, and else so often.
_LOOK_AGAIN_S = 30.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0


class Cluster:
    """The nodes of a cluster, as one server. ``run`` has to run in a greenlet; it owns those of the nodes."""

    def __init__(self, seed: RedisAddress) -> None:
        self.address = seed
        self._nodes: dict[str, RedisConnections] = {}
        self._loops: dict[str, gevent.Greenlet[..., None]] = {}
        #: Where ranges of slots begin, and the node of each.
        self._starts: list[int] = []
        self._owners: list[str] = []
        self._scripts: dict[str, LuaScript] = {}
        self._reason = "the nodes are not known yet"
        self._stale = Event()

    @property
    def down(self) -> str:
        """Why Redis does not answer now; "" while it does."""
        return self._reason if not self._starts else next((n.down for n in self._nodes.values() if n.down), "")

    @property
    def asked(self) -> int:
        """Questions that went out."""
        return sum(node.asked for node in self._nodes.values())

    def ask(self, script: LuaScript, head: Sequence[str | int], items: Sequence[tuple[str, ...]]) -> bytes:
        """As ``RedisConnections.ask``; the first text of an item that is not empty is its key."""
        by_node: defaultdict[str, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            by_node[self._owner(next(filter(None, item)))].append(place)
        flagged = self._scripts.setdefault(script.digest, LuaScript(_FLAGS + script.text, script.each))
        asking = [
            gevent.spawn(self._ask_node, node, flagged, head, [items[place] for place in places])
            for node, places in by_node.items()
        ]
        gevent.joinall(asking)
        answers = bytearray(len(items))
        for places, one in zip(by_node.values(), asking, strict=True):
            answer = one.get()
            if isinstance(answer, RedisUnavailable):
                raise answer
            for place, character in zip(places, answer, strict=False):
                answers[place] = character
        return bytes(answers)

    def run(self) -> None:
        """Keeps the map of the slots current, without end."""
        wait_s = _FIRST_WAIT_S
        while True:
            self._stale.clear()
            try:
                self._learn()
            except (redis.RedisError, OSError, RedisUnavailable) as error:
                self._reason = one_line(error)
                gevent.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            wait_s = _FIRST_WAIT_S
            self._stale.wait(_LOOK_AGAIN_S)
            gevent.sleep(_FIRST_WAIT_S)

    def close(self) -> None:
        """Closes what is not in use. Never waits."""
        gevent.killall(list(self._loops.values()), block=False)
        for node in self._nodes.values():
            node.close()

    # --- nodes --------------------------------------------------------------------------------------------------------
    def _owner(self, key: str) -> str:
        if not self._starts:
            self._stale.set()
            raise RedisUnavailable(f"{self.address}: {self._reason}")
        return self._owners[bisect_right(self._starts, key_slot(key.encode())) - 1]

    def _ask_node(
        self, node: str, script: LuaScript, head: Sequence[str | int], items: Sequence[tuple[str, ...]]
    ) -> bytes | RedisUnavailable:
        try:
            return self._nodes[node].ask(script, head, items)
        except RedisUnavailable as error:
            self._stale.set()
            return error

    def _learn(self) -> None:
        """Asks the nodes that are known, then the seed. Waits; raises what the last of them raised."""
        failure: Exception = RedisUnavailable("no node")
        for address in (*(node.address for node in self._nodes.values()), self.address):
            try:
                slots = _slots(address)
            except (redis.RedisError, OSError) as error:
                failure = error
            else:
                self._take(slots)
                return
        raise failure

    def _take(self, slots: list[tuple[int, str, int]]) -> None:
        addresses = {f"{host}:{port}": replace(self.address, host=host, port=port) for _, host, port in slots}
        for name in self._nodes.keys() - addresses.keys():
            self._loops.pop(name).kill(block=False)
            self._nodes.pop(name).close()
        for name in addresses.keys() - self._nodes.keys():
            node = self._nodes[name] = RedisConnections(addresses[name], "0")
            self._loops[name] = gevent.spawn(node.run)
        ordered = sorted(slots)
        self._starts, self._owners = [start for start, _, _ in ordered], [f"{h}:{p}" for _, h, p in ordered]


def _slots(address: RedisAddress) -> list[tuple[int, str, int]]:
    """The first slot of each range, and its master's host and port ("CLUSTER SLOTS")."""
    connection = RedisConnections(address, "0").connect()
    try:
        connection.send_command("CLUSTER", "SLOTS")
        found = answer_of(connection)
    finally:
        connection.disconnect()
    with plain_errors():
        ranges = [
            (int(start), (master[0] or b"").decode() or address.host, int(master[1])) for start, _, master, *_ in found
        ]
    if not ranges:
        raise RedisUnavailable(f"{address}: the cluster has no slots")
    return ranges
