"""The broker Kafka: a setting chooses the client library, and only the chosen library is imported."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple, Protocol

from pusher.broker.access import Access, Login
from pusher.broker.interface import Broker, Failed, Place, Publisher, Reader, Source, Wanted, log_failure
from pusher.broker.offsets import Commit
from pusher.config import settings
from pusher.config.kafka import BrokerSettings
from pusher.config.settings import QueueSettings
from pusher.config.values import Config


class ClusterReader(Reader, Protocol):
    """A reader that can also be asked about the cluster. All of it waits and may raise ``OSError``."""

    def committed(self) -> dict[int, Commit]:
        """The commits of the reader's group, by partition of its topic."""
        ...

    def topics(self) -> list[str]:
        """Names of all topics."""
        ...

    def reach_brokers(self) -> int:
        """How many brokers there are, when each was reached."""
        ...


class Library(NamedTuple):
    """The parts of a package that implements a client of Kafka."""

    source: Callable[..., Source]
    publisher: Callable[..., Publisher]
    reader: Callable[..., ClusterReader]
    login: Callable[[Access], Login]


def open_broker(config: Config, at: BrokerSettings, address: str) -> Broker:
    """The broker of a role. Does not wait for it; ``StartError`` where its access or its library cannot be used."""
    client = Access.from_config(config, settings.KAFKA, at.kafka).client
    return KafkaBroker(_library(client), config, at, address)


def _library(client: str) -> Library:
    if client == "confluent-kafka":
        from pusher.broker import librdkafka  # noqa: PLC0415  # an extra
        from pusher.broker.librdkafka.access import LibrdkafkaLogin  # noqa: PLC0415

        return Library(
            librdkafka.LibrdkafkaSource, librdkafka.LibrdkafkaPublisher, librdkafka.LibrdkafkaReader, LibrdkafkaLogin
        )
    from pusher.broker import kafka  # noqa: PLC0415  # 10 MB
    from pusher.broker.kafka.access import KafkaLogin  # noqa: PLC0415

    return Library(kafka.KafkaSource, kafka.KafkaPublisher, kafka.KafkaReader, KafkaLogin)


class KafkaBroker:
    """A ``Broker``. The constructor waits for nothing; it raises ``StartError`` where the access cannot be used."""

    def __init__(self, library: Library, config: Config, at: BrokerSettings, address: str) -> None:
        self._library, self._config, self._at, self._address = library, config, at, address
        self._login = library.login(self._access(config))

    def _access(self, config: Config) -> Access:
        return Access.from_config(config, settings.KAFKA, self._at.kafka)

    def __str__(self) -> str:
        access = self._login.access
        return self._address + (f" as {access.sasl_username}" if access.sasl_username else "")

    def source(self, queue: QueueSettings, wanted: Wanted) -> Source:
        """See ``Broker``."""
        config = self._config
        topics: tuple[str, ...] = config[queue.topics]
        return self._library.source(
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
        return self._library.publisher(
            self._address,
            linger_ms=round(self._config[settings.FEEDBACK_LINGER] * 1000),
            buffer_kib=self._config[settings.FEEDBACK_BUFFER_KIB],
            compression=self._config[settings.FEEDBACK_COMPRESSION],
            failed=failed,
            login=self._login,
        )

    def reader(self, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
        """See ``Broker``."""
        return self._library.reader(self._address, topic, start, end, login=self._login)

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """See ``Broker``."""
        with closing(self._library.reader(self._address, topic, group=group, login=self._login)) as reader:
            return reader.committed()

    def topics(self) -> list[str]:
        """See ``Broker``."""
        with closing(self._library.reader(self._address, "", login=self._login)) as reader:
            return reader.topics()

    def check(self) -> str:
        """See ``Broker``: each broker is connected to at the address that it advertises."""
        with closing(self._library.reader(self._address, "", login=self._login)) as reader:
            return f"{reader.reach_brokers()} Kafka brokers answer"

    def reload(self, config: Config) -> bool:
        """See ``Broker``."""
        return self._login.reload(self._access(config))
