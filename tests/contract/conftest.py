"""Every test of the broker suite runs over every broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.brokers import CLIENTS, Broker, Desk, KafkaBroker, SqliteBroker, desk


@pytest.fixture(params=[*(pytest.param(name, marks=pytest.mark.integration) for name in CLIENTS), "sqlite"])
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "sqlite":
        return SqliteBroker(request.getfixturevalue("tmp_path"))
    return KafkaBroker(request.getfixturevalue("kafka_brokers"), request.param)


@pytest.fixture
def broker_desk(broker: Broker) -> Iterator[Desk]:
    with desk(broker) as found:
        yield found
