"""Three real Kafka brokers that replicate to each other, each a process of its own that may be killed.

Every broker is a controller as well, so that two of the three can go on. Partitions have three replicas, of which
``min_insync`` must have what is acknowledged.
"""

from __future__ import annotations

import base64
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.kafka.admin import administration
from lab.kafka.server import KafkaServer, free_port

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

_BROKERS = 3
_REPLICATED = {
    "default.replication.factor": _BROKERS,
    "offsets.topic.replication.factor": _BROKERS,
    "transaction.state.log.replication.factor": _BROKERS,
    "transaction.state.log.min.isr": 2,
    # A stop hands leaderships over first, as operators have it.
    "controlled.shutdown.enable": "true",
    "replica.lag.time.max.ms": 3000,
}


class KafkaCluster:
    """Brokers 1, 2 and 3 in a directory, on free ports. ``servers`` has those that run and those that do not."""

    def __init__(self, directory: Path, min_insync: int = 2) -> None:
        ports = {number: (free_port(), free_port()) for number in range(1, _BROKERS + 1)}
        voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in ports.items())
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.servers: dict[int, KafkaServer] = {}
        for number, (port, controller) in ports.items():
            home = directory / f"broker-{number}"
            (home / "data").mkdir(parents=True)
            own = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            (home / "data" / "meta.properties").write_text(
                f"version=1\ncluster.id={cluster}\nnode.id={number}\ndirectory.id={own}\n"
            )
            listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
            self.servers[number] = KafkaServer(
                home,
                port=port,
                properties=_REPLICATED
                | {
                    "min.insync.replicas": min_insync,
                    "node.id": number,
                    "broker.rack": f"rack-{number}",
                    "listeners": listeners,
                    "controller.quorum.voters": voters,
                    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
                },
            )

    @property
    def brokers(self) -> str:
        """The addresses of all."""
        return ",".join(server.brokers for server in self.servers.values())

    def start(self) -> None:
        """Starts all and waits until they know each other."""
        launched = []
        for server in self.servers.values():
            server.launch()
            launched.append(server)
        for server in launched:
            server.wait_until_ready()
        self._wait(lambda admin: len(admin.describe_cluster()["brokers"]) == _BROKERS)

    def stop(self) -> None:
        """Ends all that run, at once."""
        for server in self.servers.values():
            with contextlib.suppress(ValueError):
                server.kill()

    def leader(self, topic: str, partition: int = 0) -> int:
        """The broker that leads a partition."""
        with administration(self.brokers) as admin:
            (found,) = admin.describe_topics([topic])
            return next(int(p["leader_id"]) for p in found["partitions"] if p["partition_index"] == partition)

    def controller(self) -> int:
        """The broker that is the active controller."""
        with administration(self.brokers) as admin:
            return int(_find(admin.describe_metadata_quorum(), "leader_id"))

    def wait_until_whole(self, timeout_s: float = 60) -> None:
        """Waits until every replica has everything."""

        def whole(admin: KafkaAdminClient) -> bool:
            partitions = [each for topic in admin.describe_topics() for each in topic["partitions"]]
            return all(len(each["isr_nodes"]) == _BROKERS for each in partitions)

        self._wait(whole, timeout_s)

    def _wait(self, condition: Callable[[KafkaAdminClient], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        with administration(self.brokers) as admin:
            while not condition(admin):
                if time.monotonic() > deadline:
                    raise RuntimeError("the brokers did not come together")
                time.sleep(0.2)


def _find(found: Any, name: str) -> Any:
    """The first value of this name in nested answers."""
    for value in _values(found):
        if isinstance(value, dict) and name in value:
            return value[name]
    raise KeyError(name)


def _values(found: Any) -> Iterator[Any]:
    yield found
    children = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    for child in children:
        yield from _values(child)
