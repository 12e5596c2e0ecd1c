"""A client that can do nothing but wait for its broker turns no more often than there is something to look at."""

from __future__ import annotations

import uuid
from contextlib import closing

import gevent
import pytest

from lab.kafka.admin import create_topic
from lab.kafka.server import KafkaServer
from pusher.broker.kafka import KafkaPublisher
from pusher.broker.kafka.loop import HubSelector
from tests.contract.brokers import expect_stored

pytestmark = pytest.mark.integration

#: More than the library has under way with a broker at a time.
_REQUESTS = 12
_LINGER_MS = 5


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """For how long each turn of a client's loop was to wait at most."""
    found: list[float | None] = []
    select = HubSelector.select

    def noted(self: HubSelector, timeout: float | None = None) -> object:
        found.append(timeout)
        return select(self, timeout)

    monkeypatch.setattr(HubSelector, "select", noted)
    return found


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_batches_that_no_broker_takes_now_are_waited_for(
    breakable_kafka: KafkaServer, turns: list[float | None], fault: str
) -> None:
    topic = f"push-{uuid.uuid4().hex[:12]}-apns-feedbacks"
    create_topic(breakable_kafka.brokers, topic, 1)
    with closing(KafkaPublisher(breakable_kafka.brokers, linger_ms=_LINGER_MS)) as publisher:
        publisher.publish(topic, b"before", expect_stored)
        assert publisher.flush(30) == 0
        getattr(breakable_kafka, fault)()
        for number in range(_REQUESTS):
            publisher.publish(topic, b"%d" % number, expect_stored)
            gevent.sleep(4 * _LINGER_MS / 1000)
        turns.clear()
        gevent.sleep(2)
        seen = len(turns)
        if fault == "freeze":
            breakable_kafka.thaw()
        else:
            breakable_kafka.start()
        assert publisher.pending
        assert publisher.flush(60) == 0
    assert seen < 100
