"""Kafka as a ``Broker``: one role's address and access."""

from __future__ import annotations

from contextlib import closing

from pusher.broker.access import Access
from pusher.broker.interface import Failed, Place, Publisher, Reader, Source, Wanted, log_failure
from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.kafka.publisher import KafkaPublisher
from pusher.broker.kafka.reader import KafkaReader
from pusher.broker.kafka.source import KafkaSource
from pusher.broker.offsets import Commit
from pusher.config import settings
from pusher.config.kafka import BrokerSettings
from pusher.config.settings import QueueSettings
from pusher.config.values import Config


class KafkaBroker:
    """A ``Broker``. The constructor waits for nothing; it raises ``StartError`` where the access cannot be used."""

    def __init__(self, config: Config, at: BrokerSettings, address: str) -> None:
        self._config, self._at, self._address = config, at, address
        self._login = KafkaLogin(self._access(config))

    def _access(self, config: Config) -> Access:
        return Access.from_config(config, settings.KAFKA, self._at.kafka)

    def __str__(self) -> str:
        access = self._login.access
        return self._address + (f" as {access.sasl_username}" if access.sasl_username else "")

    def source(self, queue: QueueSettings, wanted: Wanted) -> Source:
        """See ``Broker``."""
        config = self._config
        topics: tuple[str, ...] = config[queue.topics]
        return KafkaSource(
            self._address,
            config[queue.group],
            topics,
            wanted,
            session_timeout_ms=round(config[queue.session_timeout] * 1000),
            fetch_min_bytes=config[queue.fetch_min_bytes],
            fetch_wait_max_ms=round(config[queue.fetch_wait_max] * 1000),
            offset_reset=config[queue.offset_reset_strategy],
            max_uncommitted=config[queue.max_uncommitted],
            metadata_refresh_s=config[queue.metadata_refresh],
            login=self._login,
        )

    def publisher(self, failed: Failed = log_failure) -> Publisher:
        """See ``Broker``."""
        return KafkaPublisher(
            self._address,
            linger_ms=round(self._config[settings.FEEDBACK_LINGER] * 1000),
            buffer_kib=self._config[settings.FEEDBACK_BUFFER_KIB],
            compression=self._config[settings.FEEDBACK_COMPRESSION],
            failed=failed,
            login=self._login,
        )

    def reader(self, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
        """See ``Broker``."""
        return KafkaReader(self._address, topic, start, end, login=self._login)

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """See ``Broker``."""
        with closing(KafkaReader(self._address, topic, group=group, login=self._login)) as reader:
            return reader.committed()

    def topics(self) -> list[str]:
        """See ``Broker``."""
        with closing(KafkaReader(self._address, "", login=self._login)) as reader:
            return reader.topics()

    def check(self) -> str:
        """See ``Broker``: each broker is connected to at the address that it advertises."""
        with closing(KafkaReader(self._address, "", login=self._login)) as reader:
            return f"{reader.reach_brokers()} Kafka brokers answer"

    def reload(self, config: Config) -> bool:
        """See ``Broker``."""
        return self._login.reload(self._access(config))
