"""A Kafka that tests may break, and parts that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kafka_server import KafkaServer


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    """Closes what a test opens, the last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def _breakable_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    directory: Path = tmp_path_factory.mktemp("kafka")
    server = KafkaServer(directory, properties={"auto.create.topics.enable": "false"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def breakable_kafka(_breakable_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A Kafka without auto-creation of topics. A test that kills it starts it again."""
    yield _breakable_kafka
    _breakable_kafka.thaw()
