"""The embedded broker as a ``Broker``."""

from __future__ import annotations

import os
from pathlib import Path

from pusher.broker.interface import Failed, Place, Publisher, Reader, Source, Wanted, log_failure
from pusher.broker.offsets import Commit
from pusher.broker.sqlite import reader as sqlite_reader
from pusher.broker.sqlite.publisher import SqlitePublisher
from pusher.broker.sqlite.reader import SqliteReader
from pusher.broker.sqlite.source import SqliteSource
from pusher.broker.sqlite.store import SCHEME, file_of
from pusher.config import settings
from pusher.config.kafka import BrokerSettings
from pusher.config.settings import QueueSettings
from pusher.config.values import Config
from pusher.errors import StartError


class SqliteBroker:
    """A ``Broker`` in a file, whose rights are its access. Raises ``StartError`` for what is no address of a file."""

    def __init__(self, config: Config, _at: BrokerSettings, address: str) -> None:
        if not address.startswith(SCHEME):
            raise StartError(f"{address}: the address of a file is sqlite:///path, or sqlite:////path from the root")
        if not (directory := file_of(address).parent).is_dir():
            relative = address.removeprefix(SCHEME)
            fits = not relative.startswith("/") and Path("/", relative).parent.is_dir()
            hint = f"; from the root it is {SCHEME}/{relative}" if fits else "; create it first"
            raise StartError(f"{address}: there is no directory {directory}{hint}")
        self._config, self._address = config, address

    def __str__(self) -> str:
        return self._address

    def source(self, queue: QueueSettings, wanted: Wanted) -> Source:
        """See ``Broker``."""
        config = self._config
        topics: tuple[str, ...] = config[queue.topics]
        return SqliteSource(
            self._address,
            config[queue.group],
            topics,
            wanted,
            offset_reset=config[queue.offset_reset_strategy],
            max_uncommitted=config[queue.max_uncommitted],
        )

    def publisher(self, failed: Failed = log_failure) -> Publisher:
        """See ``Broker``."""
        return SqlitePublisher(
            self._address,
            retention_s=self._config[settings.SQLITE_RETENTION],
            buffer_kib=self._config[settings.FEEDBACK_BUFFER_KIB],
            failed=failed,
        )

    def reader(self, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
        """See ``Broker``."""
        return SqliteReader(self._address, topic, start, end)

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """See ``Broker``."""
        return sqlite_reader.committed(self._address, group, topic)

    def topics(self) -> list[str]:
        """See ``Broker``."""
        return sqlite_reader.topics(self._address)

    def check(self) -> str:
        """See ``Broker``."""
        directory = file_of(self._address).parent
        if not os.access(directory, os.W_OK):
            raise OSError(f"{directory}: cannot be written")
        return f"{directory} can be written"

    def reload(self, _config: Config) -> bool:
        """See ``Broker``."""
        return False
