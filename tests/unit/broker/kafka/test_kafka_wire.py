"""Our writing of requests and reading of answers against the library's own, octet for octet and field for field."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import CorrelationIdError, IncompatibleBrokerVersion, InvalidReceiveError, KafkaProtocolError
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.consumer import FetchResponse
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.producer import ProduceResponse

from pusher.broker.kafka.wire import (
    Fetch,
    FetchPartition,
    FetchTopic,
    Frames,
    Produce,
    ProducePartition,
    ProduceTopic,
)

CLIENT = "pusher-apns"
LENGTHS = (0, 1, 126, 127, 128, 300, 16_383, 16_384)


def fetch(seed: int = 1) -> Fetch:
    draw = random.Random(seed)

    def partition() -> FetchPartition:
        return FetchPartition(draw.randrange(9), draw.choice((-1, 7)), draw.choice((0, 1 << 40)), -1, 1 << 20)

    topics = [FetchTopic("t" * draw.choice(LENGTHS[1:6]), [partition() for _ in range(draw.choice((1, 2, 130)))])]
    forgotten = [FetchTopic(f"gone{number}", [0, 1, 200]) for number in range(draw.randrange(3))]
    return Fetch(
        max_wait_ms=1000,
        min_bytes=1,
        max_bytes=1 << 19,
        isolation_level=1,
        session_id=draw.randrange(1 << 31),
        session_epoch=draw.choice((-1, 0, 5)),
        topics=topics * draw.randrange(3),
        forgotten_topics_data=forgotten,
        rack_id=draw.choice(("", "eu-central-1a")),
        min_version=4,
        max_version=12,
    )


def produce(seed: int = 1) -> Produce:
    draw = random.Random(seed)
    partitions = [
        ProducePartition(n, bytearray(draw.randbytes(draw.choice(LENGTHS)))) for n in range(draw.randrange(4))
    ]
    return Produce(
        transactional_id=draw.choice((None, "", "me")),
        acks=-1,
        timeout_ms=30_000,
        topic_data=[ProduceTopic("feedbacks", partitions)] * draw.randrange(3),
        min_version=0,
        max_version=9,
    )


def octets(message: Any, version: int, number: int = 7) -> bytes:
    """With header and size."""
    message.API_VERSION = version
    header = {} if type(message).__name__.endswith("Response") else {"client_id": CLIENT}
    message.with_header(correlation_id=number, **header)
    return bytes(message.encode(framed=True, header=True))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("version", range(4, 13))
def test_a_fetch_is_what_the_library_sends(version: int, seed: int) -> None:
    assert octets(fetch(seed), version) == octets(fetch(seed).as_the_library_makes_it(), version)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("version", range(3, 10))
def test_a_produce_is_what_the_library_sends(version: int, seed: int) -> None:
    assert octets(produce(seed), version) == octets(produce(seed).as_the_library_makes_it(), version)


# --- answers


def fetched(seed: int, **of_one_partition: Any) -> FetchResponse:
    draw = random.Random(seed)
    topic_type = FetchResponse.FetchableTopicResponse
    partition_type = topic_type.PartitionData
    aborted = [
        partition_type.AbortedTransaction(producer_id=n, first_offset=n * 1000) for n in range(draw.randrange(4))
    ]

    def partition(number: int, **fields: Any) -> Any:
        usual = {
            "partition_index": number,
            "error_code": 0,
            "high_watermark": 1 << 40,
            "last_stable_offset": 5,
            "log_start_offset": 0,
            "aborted_transactions": draw.choice((None, aborted)),
            "preferred_read_replica": draw.choice((-1, 2)),
            "records": draw.randbytes(draw.choice(LENGTHS)),
        }
        return partition_type(**usual | fields)

    partitions = [partition(number) for number in range(draw.randrange(3))] + [partition(9, **of_one_partition)]
    return FetchResponse(
        throttle_time_ms=draw.choice((0, 30)),
        error_code=0,
        session_id=draw.randrange(1 << 31),
        responses=[topic_type(topic=name, partitions=partitions) for name in ("first", "x" * 249)],
    )


def produced(seed: int, **of_one_partition: Any) -> ProduceResponse:
    topic_type = ProduceResponse.TopicProduceResponse
    usual = {"index": seed, "error_code": 0, "base_offset": 1 << 40, "log_append_time_ms": -1, "log_start_offset": 3}
    partition = topic_type.PartitionProduceResponse(**usual | {"record_errors": [], "error_message": None})
    other = topic_type.PartitionProduceResponse(
        **usual | {"record_errors": [], "error_message": None} | of_one_partition
    )
    responses = [topic_type(name="feedbacks", partition_responses=[partition, other])] * (seed % 3)
    if of_one_partition:
        responses.append(topic_type(name="other", partition_responses=[other]))
    return ProduceResponse(responses=responses, throttle_time_ms=seed)


def told_of_fetch(answer: Any) -> Any:
    """What the library's consumer looks at."""
    return (
        answer.API_VERSION,
        answer.throttle_time_ms,
        answer.error_code,
        answer.session_id,
        [
            (
                topic.topic,
                [
                    (
                        each.partition_index,
                        each.error_code,
                        each.high_watermark,
                        [(one.producer_id, one.first_offset) for one in each.aborted_transactions or ()],
                        each.preferred_read_replica,
                        each.records and bytes(each.records),
                        each.diverging_epoch and (each.diverging_epoch.epoch, each.diverging_epoch.end_offset),
                        each.current_leader and (each.current_leader.leader_id, each.current_leader.leader_epoch),
                    )
                    for each in topic.partitions
                ],
            )
            for topic in answer.responses
        ],
    )


def told_of_produce(answer: Any) -> Any:
    """What the library's producer looks at."""
    return (
        answer.throttle_time_ms,
        [
            (
                topic.name,
                [
                    (each.index, each.error_code, each.base_offset, each.log_append_time_ms, each.log_start_offset)
                    + ((each.record_errors, each.error_message) if each.error_code else ())
                    for each in topic.partition_responses
                ],
            )
            for topic in answer.responses
        ],
    )


def answered(protocol: KafkaProtocol, request: Any, version: int, answer: bytes) -> Any:
    request.API_VERSION = version
    protocol.send_request(request, correlation_id=7)
    ((number, found),) = protocol.receive_bytes(answer)
    assert number == 7
    assert not protocol.in_flight_requests
    return found


LEADER = FetchResponse.FetchableTopicResponse.PartitionData.LeaderIdAndEpoch(leader_id=3, leader_epoch=8)
DIVERGED = FetchResponse.FetchableTopicResponse.PartitionData.EpochEndOffset(epoch=3, end_offset=80)
UNUSUAL_FETCHES: list[dict[str, Any]] = [
    {},
    {"error_code": 1},
    {"error_code": 6, "current_leader": LEADER, "records": None},
    {"diverging_epoch": DIVERGED},
    {"records": None},
    {"aborted_transactions": []},
]


@pytest.mark.parametrize("unusual", UNUSUAL_FETCHES)
@pytest.mark.parametrize("version", [4, 7, 11, 12])
def test_what_was_fetched_is_what_the_library_reads(version: int, unusual: dict[str, Any]) -> None:
    for seed in range(10):
        answer = octets(fetched(seed, **unusual if version == 12 else {}), version)
        ours = answered(Frames(client_id=CLIENT), fetch(seed), version, answer)
        theirs = answered(KafkaProtocol(client_id=CLIENT), fetch(seed).as_the_library_makes_it(), version, answer)
        assert told_of_fetch(ours) == told_of_fetch(theirs)


def test_an_answer_without_errors_is_read_in_few_steps() -> None:
    answer = answered(Frames(client_id=CLIENT), fetch(), 12, octets(fetched(1), 12))
    assert type(answer).__name__ == "FetchAnswer"
    stored = answered(Frames(client_id=CLIENT), produce(), 9, octets(produced(1), 9))
    assert type(stored).__name__ == "ProduceAnswer"


ERRORS = [ProduceResponse.TopicProduceResponse.PartitionProduceResponse.BatchIndexAndErrorMessage(batch_index=4)]


@pytest.mark.parametrize(
    "unusual", [{}, {"error_code": 6}, {"error_code": 87, "record_errors": ERRORS, "error_message": "no"}]
)
@pytest.mark.parametrize("version", [3, 8, 9])
def test_what_was_stored_is_what_the_library_reads(version: int, unusual: dict[str, Any]) -> None:
    for seed in range(4):
        answer = octets(produced(seed, **unusual), version)
        ours = answered(Frames(client_id=CLIENT), produce(seed), version, answer)
        theirs = answered(KafkaProtocol(client_id=CLIENT), produce(seed).as_the_library_makes_it(), version, answer)
        assert told_of_produce(ours) == told_of_produce(theirs)


def test_the_whole_answer_may_be_an_error() -> None:
    whole = FetchResponse(throttle_time_ms=0, error_code=70, session_id=0, responses=[])
    assert answered(Frames(client_id=CLIENT), fetch(), 12, octets(whole, 12)).error_code == 70


# --- frames


def expecting(*requests: Any) -> Frames:
    frames = Frames(client_id=CLIENT)
    for request in requests:
        frames.send_request(request)
    return frames


def versioned(request: Any, version: int) -> Any:
    request.API_VERSION = version
    return request


def pieces(whole: bytes, size: int) -> Iterator[bytes]:
    return (whole[start : start + size] for start in range(0, len(whole), size))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000, 1 << 20])
def test_answers_may_come_in_any_pieces(size: int) -> None:
    requests = [versioned(fetch(), 12), versioned(produce(), 9), versioned(MetadataRequest(topics=[]), 8)]
    answers = [
        octets(fetched(2), 12, 1),
        octets(produced(2), 9, 2),
        octets(MetadataResponse(throttle_time_ms=4, brokers=[], cluster_id="c", controller_id=1, topics=[]), 8, 3),
    ]
    frames = expecting(*requests)
    found = [answer for piece in pieces(b"".join(answers), size) for answer in frames.receive_bytes(piece)]
    assert [number for number, _ in found] == [1, 2, 3]
    assert told_of_fetch(found[0][1])[3] == fetched(2).session_id
    assert found[1][1].throttle_time_ms == 2
    assert found[2][1].cluster_id == "c"
    assert not frames.in_flight_requests


@pytest.mark.parametrize("request_of", [lambda: versioned(fetch(), 12), lambda: versioned(fetch(), 11)])
def test_the_answer_to_another_request_is_an_error(request_of: Any) -> None:
    frames = expecting(request_of())
    with pytest.raises(CorrelationIdError):
        frames.receive_bytes(octets(fetched(1), 12, 99))


def test_an_answer_that_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(CorrelationIdError):
        Frames(client_id=CLIENT).receive_bytes(octets(fetched(1), 12))


def test_an_answer_that_is_cut_short_is_an_error() -> None:
    whole = octets(fetched(1), 12, 1)
    for length in range(6, len(whole) - 5, 7):
        cut = length.to_bytes(4, "big") + whole[4 : 4 + length]
        with pytest.raises(KafkaProtocolError):
            expecting(versioned(fetch(), 12)).receive_bytes(cut)


def test_an_answer_that_is_too_large_is_an_error() -> None:
    frames = Frames(client_id=CLIENT, receive_message_max_bytes=1000)
    frames.send_request(versioned(fetch(), 12))
    with pytest.raises(InvalidReceiveError):
        frames.receive_bytes((1001).to_bytes(4, "big"))


# --- versions


@pytest.mark.parametrize("request_of", [fetch, produce])
@pytest.mark.parametrize("broker", [(0, 3), (0, 9), (4, 11), (4, 12), (4, 18), (13, 18)])
def test_the_version_is_the_one_that_the_library_chooses(request_of: Any, broker: tuple[int, int]) -> None:
    ours, theirs = request_of(), request_of().as_the_library_makes_it()
    theirs._min_version, theirs._max_version = ours.min_version, ours.max_version
    known = BrokerVersionData(api_versions={ours.API_KEY: broker})

    def chosen(request: Any) -> Any:
        try:
            return known.api_version(request)
        except IncompatibleBrokerVersion as error:
            return str(error)

    assert chosen(ours) == chosen(theirs)
    with pytest.raises(IncompatibleBrokerVersion):
        BrokerVersionData(api_versions={99: broker}).api_version(ours)
