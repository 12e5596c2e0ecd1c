"""Opens a broker by its address: Kafka's bootstrap servers, or ``sqlite:///path`` for the embedded broker.

The implementations are imported where they are used, so that nobody loads the one that is not.
"""

from __future__ import annotations

import os
from pathlib import Path

from pusher.broker.interface import Failed, Place, Publisher, Reader, Source, Wanted, log_failure
from pusher.broker.offsets import Commit
from pusher.config import Config, settings
from pusher.config.settings import QueueSettings

_EMBEDDED = "sqlite:"


def open_source(config: Config, queue: QueueSettings, wanted: Wanted) -> Source:
    """A member of the consumer group that ``queue`` names. Does not wait for the broker."""
    brokers, topics = config[queue.brokers], config[queue.topics]
    if brokers.startswith(_EMBEDDED):
        from pusher.broker.sqlite import SqliteSource

        return SqliteSource(
            brokers,
            config[queue.group],
            topics,
            wanted,
            offset_reset=config[queue.offset_reset_strategy],
            max_uncommitted=config[queue.max_uncommitted],
        )
    from pusher.broker.kafka.source import KafkaSource

    return KafkaSource(
        brokers,
        config[queue.group],
        topics,
        wanted,
        session_timeout_ms=round(config[queue.session_timeout] * 1000),
        fetch_min_bytes=config[queue.fetch_min_bytes],
        fetch_wait_max_ms=round(config[queue.fetch_wait_max] * 1000),
        offset_reset=config[queue.offset_reset_strategy],
        max_uncommitted=config[queue.max_uncommitted],
        metadata_refresh_s=config[queue.metadata_refresh],
    )


def open_publisher(config: Config, brokers: str, failed: Failed = log_failure) -> Publisher:
    """Does not wait for the broker. ``failed``: see there."""
    if brokers.startswith(_EMBEDDED):
        from pusher.broker.sqlite import SqlitePublisher

        return SqlitePublisher(
            brokers,
            retention_s=config[settings.SQLITE_RETENTION],
            buffer_kib=config[settings.FEEDBACK_BUFFER_KIB],
            failed=failed,
        )
    from pusher.broker.kafka.publisher import KafkaPublisher

    return KafkaPublisher(
        brokers,
        linger_ms=round(config[settings.FEEDBACK_LINGER] * 1000),
        buffer_kib=config[settings.FEEDBACK_BUFFER_KIB],
        compression=config[settings.FEEDBACK_COMPRESSION],
        failed=failed,
    )


def open_reader(brokers: str, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
    """Reads from a place, up to another one if it is given. Does not wait for the broker."""
    if brokers.startswith(_EMBEDDED):
        from pusher.broker.sqlite import SqliteReader

        return SqliteReader(brokers, topic, start, end)
    from pusher.broker.kafka.reader import KafkaReader

    return KafkaReader(brokers, topic, start, end)


def committed(brokers: str, group: str, topic: str) -> dict[int, Commit]:
    """What a group has committed in a topic, by partition; asks without joining it. Raises ``OSError`` with one line.

    Waits up to some seconds.
    """
    if brokers.startswith(_EMBEDDED):
        from pusher.broker.sqlite import reader as sqlite_reader

        return sqlite_reader.committed(brokers, group, topic)
    from pusher.broker.kafka import reader as kafka_reader

    return kafka_reader.committed(brokers, group, topic)


def check_broker(brokers: str) -> str:
    """Says that the broker can be used; raises ``OSError`` with one line when it cannot. May wait some seconds."""
    if brokers.startswith(_EMBEDDED):
        directory = Path(brokers.removeprefix("sqlite:///")).parent
        if not os.access(directory, os.W_OK):
            raise OSError(f"{directory}: cannot be written")
        return f"{directory} can be written"
    from pusher.broker.kafka.reader import check

    return check(brokers)
