"""What a broker promises to the rest, over every broker."""

from __future__ import annotations

import pytest

from tests.contract.brokers import Desk, finish, receive, values


@pytest.fixture
def desk(broker_desk: Desk) -> Desk:
    return broker_desk


def test_records_come_in_order_with_offsets(desk: Desk) -> None:
    topic = desk.topic()
    desk.write(topic, *[b"%d" % number for number in range(100)])
    source = desk.source(desk.name(), [topic])

    deliveries = receive(source, 100)

    assert sorted(values(deliveries), key=int) == [b"%d" % number for number in range(100)]
    finish(deliveries)
