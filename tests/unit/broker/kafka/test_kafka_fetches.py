"""Which records are asked for, against what the library itself would ask for."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.consumer.fetcher import CompletedFetch
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import MetadataResponse
from kafka.structs import OffsetAndMetadata

from pusher.broker.access import Access
from pusher.broker.kafka.access import KafkaLogin
from pusher.broker.kafka.client import Consumer, Partition, connection

TOPICS = ("push-game_apns-single", "push-game_apns-massive", "other")
NODES = (1, 2, 3)


def metadata(draw: random.Random) -> MetadataResponse:
    topic_type = MetadataResponse.MetadataResponseTopic
    brokers = [
        MetadataResponse.MetadataResponseBroker(node_id=node, host="localhost", port=node, rack=None) for node in NODES
    ]
    topics = [
        topic_type(
            error_code=0,
            name=name,
            is_internal=False,
            partitions=[
                topic_type.MetadataResponsePartition(
                    error_code=0,
                    partition_index=number,
                    leader_id=draw.choice((*NODES, -1)),
                    leader_epoch=draw.choice((0, 4)),
                    replica_nodes=draw.sample(NODES, 2),
                    isr_nodes=[],
                    offline_replicas=[],
                )
                for number in range(5)
            ],
        )
        for name in TOPICS[:2]
    ]
    answer = MetadataResponse(throttle_time_ms=0, brokers=brokers, cluster_id="c", controller_id=1, topics=topics)
    return MetadataResponse.decode(answer.encode(version=8), version=8)


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    made = Consumer(**connection("localhost:1", KafkaLogin(Access())))
    yield made
    made.close(timeout_ms=0)


def arranged(consumer: Consumer, seed: int) -> Any:
    """The consumer's fetcher, with partitions in every state."""
    draw = random.Random(seed)
    fetcher = consumer._fetcher
    consumer.cluster.update_metadata(metadata(draw))
    partitions = [Partition(topic, number) for topic in TOPICS for number in range(4)]
    draw.shuffle(partitions)
    consumer.unsubscribe()
    consumer.assign(partitions)
    for partition in partitions:
        state = fetcher._subscriptions.assignment[partition]
        if draw.random() < 0.8:
            state.seek(OffsetAndMetadata(draw.randrange(1 << 40), "", draw.choice((-1, 3))))
        if draw.random() < 0.1:
            state.pause()
        if draw.random() < 0.1:
            state._awaiting_validation = True
        if draw.random() < 0.3:
            state._preferred_read_replica = draw.choice((*NODES, 9))
            state._preferred_read_replica_expiration = time.monotonic() + draw.choice((-1, 1000))
        if draw.random() < 0.1:
            fetcher._completed_fetches.append(CompletedFetch(partition, 0, 12, None, None))
        if draw.random() < 0.1:
            fetcher._paused_completed_fetches[partition] = None
    if draw.random() < 0.3:
        fetcher._nodes_with_pending_fetch_requests.add(draw.choice(NODES))
    if draw.random() < 0.3:
        fetcher._manager._backoff[draw.choice(NODES)] = (1, time.monotonic() + 1000, 0)
    # without a version no session is kept
    fetcher._manager.broker_version_data = draw.choice((None, BrokerVersionData((3, 9))))
    return fetcher


def asked(requests: dict[int, Any]) -> Any:
    return {node: (request.fields, offsets) for node, (request, offsets) in requests.items()}


def test_we_ask_for_what_the_library_asks_for(consumer: Consumer) -> None:
    library = type(consumer._fetcher)._create_fetch_requests
    numbers = set()
    for seed in range(200):
        fetcher = arranged(consumer, seed)
        ours = asked(fetcher._create_fetch_requests())
        sessions = dict(fetcher._session_handlers)
        fetcher._session_handlers.clear()
        theirs = asked(library(fetcher))
        assert ours == theirs, seed
        assert list(ours) == list(theirs)
        assert sessions.keys() == fetcher._session_handlers.keys()
        numbers.add(len(ours))
        for collection in (
            fetcher._session_handlers,
            fetcher._completed_fetches,
            fetcher._paused_completed_fetches,
            fetcher._nodes_with_pending_fetch_requests,
            fetcher._manager._backoff,
        ):
            collection.clear()
    assert numbers >= {1, 2, 3}


def test_what_has_not_changed_is_not_asked_for_again(consumer: Consumer) -> None:
    fetcher = arranged(consumer, 1)
    fetcher._manager.broker_version_data = BrokerVersionData((3, 9))
    for request, _ in fetcher._create_fetch_requests().values():
        assert request.fields["topics"]
    for session in fetcher._session_handlers.values():
        session.next_metadata = session.next_metadata.new_incremental(7)
    fetcher._nodes_with_pending_fetch_requests.clear()
    for request, _ in fetcher._create_fetch_requests().values():
        assert request.fields["topics"] == request.fields["forgotten_topics_data"] == []
