"""A broker answers at the address of the settings, and sends its clients on to one that leads nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.kafka.server import KafkaServer, free_port
from pusher.broker import connect
from pusher.config import settings
from tests.contract.brokers import Client, everything, poll_until
from tests.integration.test_kafka_secured import config_of

pytestmark = pytest.mark.integration

#: RFC 6761: a name that is never there. A name whose network is another one's is the commonest case: a container's.
NOWHERE = "kafka-inside.invalid:9092"


@pytest.fixture(params=["a name that does not resolve", "a port that nobody listens on"])
def elsewhere(request: pytest.FixtureRequest) -> str:
    return NOWHERE if request.param.startswith("a name") else f"127.0.0.1:{free_port()}"


@pytest.fixture
def sent_on(tmp_path: Path, elsewhere: str) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path / "kafka", properties={"advertised.listeners": f"PLAINTEXT://{elsewhere}"})
    server.start()
    yield server
    server.kill()


def test_the_check_and_the_source_name_the_address(
    client: Client, sent_on: KafkaServer, elsewhere: str, parts: ExitStack
) -> None:
    broker = connect.broker(config_of(sent_on.brokers, client), settings.QUEUE.at)
    with pytest.raises(OSError, match="Kafka") as failed:
        broker.check()
    assert elsewhere in str(failed.value)
    source = client.source(sent_on.brokers, "group", ["^push-"], everything, metadata_refresh_s=1)
    parts.callback(source.close, commit=False)
    poll_until(source, lambda: elsewhere in source.health().reason)
