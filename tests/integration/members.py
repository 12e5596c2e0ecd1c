"""Members of a consumer group for tests: greenlets of this process, or processes of their own that may be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import gevent

from lab.processes import Process
from pusher.broker.interface import IsFull, Record, Source
from pusher.broker.offsets import TopicPartition
from tests.contract.brokers import CLIENTS, Client, everything, never

COMMIT_INTERVAL_S = 0.2


class Member:
    """A source whose loop runs in a greenlet, as in the daemon. With ``finishes`` off all stays unfinished."""

    def __init__(self, source: Source, *, finishes: bool = True, commits: bool = True, is_full: IsFull = never) -> None:
        self.source = source
        self.seen: list[Record] = []
        self._finishes, self._commits, self._is_full = finishes, commits, is_full
        self._ending = False
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        commit_at = time.monotonic() + COMMIT_INTERVAL_S
        while not self._ending:
            for tracker, records in self.source.poll(0.2, self._is_full):
                self.seen += records
                if self._finishes:
                    tracker.finish_many([record.offset for record in records])
            if self._commits and time.monotonic() > commit_at:
                self.source.commit()
                commit_at = time.monotonic() + COMMIT_INTERVAL_S

    @property
    def owned(self) -> set[TopicPartition]:
        return set(self.source.assignment.trackers)

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.seen]

    def end(self) -> None:
        """Ends the loop; raises what the source raised, for it must raise nothing."""
        self._ending = True
        self._greenlet.get(timeout=30)

    def stop(self, *, commit: bool = True) -> None:
        self.end()
        self.source.close(commit=commit)


class MemberProcess(Process):
    """A running member in a process of its own, which writes down each value before it finishes it."""

    def __init__(self, directory: Path, name: str, client: Client, brokers: str, group: str, topics: str) -> None:
        self._path = directory / name
        patched = (sys.executable, "-m", "gevent.monkey", "--module", "tests.integration.members")
        super().__init__(directory, name, (*patched, client.name, brokers, group, topics, str(self._path)))
        self.start()

    @property
    def values(self) -> list[bytes]:
        return self._path.read_bytes().split() if self.begun else []

    @property
    def begun(self) -> bool:
        """Whether a signal ends it in order."""
        return self._path.exists()


def main(client: str, brokers: str, group: str, topics: str, path: str) -> None:
    """Consumes until SIGTERM."""
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ending.append(number))
    source = CLIENTS[client].source(
        brokers, group, [topics], everything, offset_reset="earliest", session_timeout_ms=2000, metadata_refresh_s=1
    )
    commit_at = time.monotonic() + COMMIT_INTERVAL_S
    with Path(path).open("ab", buffering=0) as file:
        while not ending:
            for tracker, records in source.poll(0.2, never):
                for record in records:
                    os.write(file.fileno(), (record.value or b"") + b"\n")
                    tracker.finish(record.offset)
            if time.monotonic() > commit_at:
                source.commit()
                commit_at = time.monotonic() + COMMIT_INTERVAL_S
    source.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
