"""A Kafka that tests may break, and parts that end with their test."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.kafka.server import KafkaServer, free_port
from lab.processes import PUSHER, Process
from tests.contract.brokers import CLIENTS, Broker, Client, KafkaBroker, SqliteBroker
from tests.faults import runs
from tests.faults.driver import Driver
from tests.integration.listening import Database, Place, Way, port_of

_numbers = itertools.count()

#: Other versions of Kafka are fetched and tried only by hand.
collect_ignore = [] if os.environ.get("KAFKA_VERSIONS") else ["test_kafka_versions.py"]


@pytest.fixture(params=list(CLIENTS.values()), ids=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> Client:
    """Every library that speaks to Kafka."""
    found: Client = request.param
    return found


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    """Closes what a test opens, the last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def _breakable_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with runs.kafka(tmp_path_factory.mktemp("broker"), {"auto.create.topics.enable": "false"}) as server:
        yield server


@pytest.fixture
def breakable_kafka(_breakable_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A Kafka without auto-creation of topics. A test that kills it starts it again."""
    yield _breakable_kafka
    _breakable_kafka.thaw()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker of the module's own, which tests may kill if they start it again."""
    with runs.kafka(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture
def driver(kafka: KafkaServer, tmp_path: Path) -> Iterator[Driver]:
    """An app of its own for each test, with the topic of its single pushes."""
    with Driver(tmp_path / "run", kafka.brokers, apps=(f"game{next(_numbers)}",)) as driver:
        driver.create_topics(driver.single)
        yield driver


# --- the listener


@pytest.fixture(scope="module")
def database(postgres_dsn: str) -> Iterator[Database]:
    """For a module's listeners."""
    made = Database(postgres_dsn)
    yield made
    made.drop()


@pytest.fixture
def make_place(database: Database, tmp_path: Path) -> Iterator[Callable[[str, str], Place]]:
    with ExitStack() as stack:

        def make(kind: str, brokers: str) -> Place:
            broker: Broker = KafkaBroker(brokers) if kind == "kafka" else SqliteBroker(tmp_path)
            address = brokers if kind == "kafka" else f"sqlite:///{tmp_path}/queue.db"
            place = Place(broker, address, database, port_of(database.dsn), tmp_path)
            stack.callback(place.close)
            return place

        yield make


@pytest.fixture
def place(make_place: Callable[[str, str], Place], kafka_brokers: str) -> Place:
    return make_place("kafka", kafka_brokers)


@pytest.fixture
def embedded(make_place: Callable[[str, str], Place]) -> Place:
    return make_place("sqlite", "")


@pytest.fixture
def way(database: Database) -> Iterator[Way]:
    made = Way("127.0.0.1", port_of(database.dsn))
    yield made
    made.stop()


@pytest.fixture
def simulated_providers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables that lead to a simulated Apple and Google, whose credentials lie in the directory."""
    tls = str(tmp_path / "tls")
    key, account = str(tmp_path / "AuthKey_ABC123DEFG.p8"), str(tmp_path / "service-account.json")
    channels = str(free_port())
    apple = ("--port", "0", "--channels-port", channels, "--tls-dir", tls, "--write-key", key)
    google = ("--port", "0", "--oauth-port", "0", "--tls-dir", tls, "--write-credentials", account)
    apns = Process(tmp_path, "apns", (*PUSHER, "simulate", "apns", *apple, "--broadcast-app", "com.example.game"))
    fcm = Process(tmp_path, "fcm", (*PUSHER, "simulate", "fcm", *google))
    started = [apns, fcm]
    try:
        for simulator in started:
            simulator.start()
            simulator.wait_for("listening")
        yield {
            "PUSHER_APNS_HOST": "localhost",
            "PUSHER_APNS_PORT": _port(apns),
            "PUSHER_APNS_CAFILE": f"{tls}/ca.pem",
            "PUSHER_APNS_CHANNELS_HOST": "localhost",
            "PUSHER_APNS_CHANNELS_PORT": channels,
            "PUSHER_GCM_FCM_ENDPOINT": f"https://localhost:{_port(fcm)}",
            "PUSHER_GCM_FCM_CAFILE": f"{tls}/ca.pem",
        }
    finally:
        for simulator in started:
            simulator.end()


def _port(simulator: Process) -> str:
    found = re.search(r" listening on \S*?:(\d+)", simulator.log())
    assert found, simulator.log()
    return found[1]
