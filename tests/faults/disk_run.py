"""The embedded broker without room on its disk: an outage like Kafka's."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import orjson

from lab.processes import PUSHER, ROOT, Daemon, wait_until
from tests.contract.brokers import broker_at
from tests.faults.driver import Driver, schedule
from tests.faults.ledger import DELIVERED, Position
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC

FEEDBACKS = "push-game-apns-feedbacks"
#: No file may grow beyond this while the disk is "full"; the log stays below it.
_FULL_BYTES = 128 * 1024
_FULL_S = 5


class EmbeddedDriver(Driver):
    """A driver whose broker is a file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "run", f"sqlite:///{directory}/queue.db")
        self._feedbacks: Any = None

    def produce(
        self, topic: str, count: int, prefix: str = "0000", expected: str = DELIVERED, **fields: object
    ) -> None:
        """Numbered push requests, by `pusher enqueue`."""
        first = len(self.ledger.messages)
        lines = [json.dumps(self.request(first + n, prefix, **fields)) for n in range(count)]
        file = self.directory / "requests"
        file.write_text("\n".join(lines) + "\n")
        config = self.directory / "enqueue.yaml"
        config.write_text(json.dumps({"queue": {"brokers": self.brokers}}))
        subprocess.run([*PUSHER, "enqueue", "--config", config, topic, file], cwd=ROOT, check=True, capture_output=True)
        for number in range(first, first + count):
            self.ledger.produced(number, expected, Position(topic, 0, number))

    def read(self, timeout_s: float = 0.1) -> None:
        """Feedbacks that have come since."""
        self._feedbacks = self._feedbacks or broker_at(self.brokers).reader(FEEDBACKS)
        try:
            for record in self._feedbacks.read(timeout_s):
                self.ledger.fed_back(orjson.loads(record.value or b""))
        except OSError:  # the topic is made by the first feedback
            self._feedbacks = None
            time.sleep(timeout_s)
        self.pace.note(self.ledger.settled, time.monotonic(), waiting=self.ledger.waiting > 0)

    def all_committed(self) -> bool:
        """Whether the group has committed all that was produced."""
        found = broker_at(self.brokers).committed(self.group, TOPIC)
        return all(found[partition].offset >= end for (_, partition), end in self.ledger.ends().items())


def disk_full(directory: Path, seed: int, pushes: int = 5_000) -> Result:
    """The embedded broker's disk is full for 5 s: nothing is lost, and all goes on when there is room again."""
    with EmbeddedDriver(directory) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.produce(TOPIC, pushes)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file, **{"apns.concurrentWorkers": 20}))

        def full() -> None:
            limit_files(daemon, _FULL_BYTES)
            wait_until(lambda: "full" in daemon.log() or "disk I/O error" in daemon.log(), daemon.log)
            time.sleep(_FULL_S)
            limit_files(daemon, resource.RLIM_INFINITY)

        driver.run(schedule(seed, pushes, [(f"disk full for {_FULL_S} s", full)]), timeout_s=180)
        wait_until(driver.all_committed, "not everything was committed")
        status = daemon.stop()
        verdict = driver.verdict()
        return judged(driver, verdict, status == 0, f"{verdict}; exit status {status}")


def limit_files(daemon: Daemon, size: int) -> None:
    """The largest file that a running process may write."""
    _, hard = resource.prlimit(daemon.child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.child.pid, resource.RLIMIT_FSIZE, (size, hard))


RUNS = {"disk-full": disk_full}
