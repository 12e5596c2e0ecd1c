"""The tokens that the listener has to delete: a PostgreSQL of the soak's own, a table an app, the dead ones in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from bench.listener import query
from lab import postgres
from lab.kafka.server import free_port
from tests.faults.ledger import token_of
from tests.faults.soak.streams import DEAD_EVERY, Stream


class Tokens:
    """Of all streams, while it is entered."""

    def __init__(self, streams: Iterable[Stream], seconds: float) -> None:
        self._streams = list(streams)
        self._seconds = seconds
        self.port = free_port()

    def __enter__(self) -> Self:
        # PostgreSQL runs under an account of its own, which cannot enter the directory of the run
        self._directory = Path(tempfile.mkdtemp(prefix="pusher-soak-", dir="/var/tmp"))  # mode 0700
        postgres.start(self._directory, self.port)
        for stream in self._streams:
            self._fill(stream)
        return self

    def __exit__(self, *_: object) -> None:
        postgres.stop(self._directory)
        shutil.rmtree(self._directory)

    def settings(self) -> dict[str, Any]:
        """Of a listener."""
        return {"host": "localhost", "port": self.port, "user": "pusher_user", "database": "push"}

    def left(self) -> dict[str, int]:
        """How many rows of tokens that were refused are still there, by table."""
        return {
            _table(stream): query(
                self.port,
                f"SELECT count(*) FROM {_table(stream)} WHERE token < %s",
                "dead" + token_of(stream.account.produced),
            )
            for stream in self._streams
        }

    def _fill(self, stream: Stream) -> None:
        """All dead tokens that the stream may come to, and half as many again."""
        last = int(stream.rate_s * self._seconds * 1.5) + 10_000
        table = _table(stream)
        query(self.port, f'CREATE TABLE {table} (token text COLLATE "C")')
        query(
            self.port,
            f"INSERT INTO {table} SELECT 'dead' || lpad(to_hex(n), 60, '0') FROM generate_series(%s::bigint, %s, %s) n",
            DEAD_EVERY - 1,
            last,
            DEAD_EVERY,
        )
        query(self.port, f"CREATE INDEX ON {table} (token)")
        query(self.port, f"ANALYZE {table}")


def _table(stream: Stream) -> str:
    return f"{stream.app}_{stream.platform}"
