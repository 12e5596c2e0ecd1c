"""For how long a member of a group is kept from consuming, and by what."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
from kafka.errors import InvalidRecordError, InvalidTimestampError, NotLeaderForPartitionError

from lab.kafka.server import free_port
from lab.processes import wait_until
from pusher.broker.kafka.publisher import KafkaPublisher, _following, meaning
from pusher.broker.kafka.source import Trouble

AWAY, JOINING = "no connection to the coordinator of the group", "joining the group"

#: What is in the way, and when -> how long that lasts, and how long it has been the same.
COURSES = {
    "nothing is in the way": ([("", 10), ("", 90)], 0, 0),
    "it has just begun": ([("", 10), (AWAY, 15)], 5, 0),
    "one thing": ([("", 10), (AWAY, 11), (AWAY, 45)], 35, 34),
    "the broker is back after a while": ([("", 10), (AWAY, 11), (AWAY, 35), (JOINING, 36), (JOINING, 50)], 40, 14),
    "it is over": ([("", 10), (AWAY, 11), (JOINING, 36), ("", 37)], 0, 0),
    "it comes again": ([("", 10), (AWAY, 11), ("", 37), (AWAY, 40), (AWAY, 44)], 7, 4),
    "from the start": ([(JOINING, 3), (JOINING, 8)], 8, 5),
}


@pytest.mark.parametrize(("course", "lasts_s", "unchanged_s"), COURSES.values(), ids=COURSES.keys())
def test_trouble_lasts(course: list[tuple[str, float]], lasts_s: float, unchanged_s: float) -> None:
    trouble = Trouble(0.0)
    for reason, now in course:
        trouble.note(reason, now)
    assert (trouble.lasts_s, trouble.unchanged_s) == (lasts_s, unchanged_s)


def test_processes_begin_with_any_partition_and_take_all_in_turn() -> None:
    firsts = Counter(_following([0, 1, 2, 3], None) for _ in range(2000))
    assert set(firsts) == {0, 1, 2, 3}
    assert min(firsts.values()) > 300
    turns = [2]
    for _ in range(4):
        turns.append(_following([0, 1, 2, 3], turns[-1]))
    assert turns == [2, 3, 0, 1, 2]
    assert _following([0, 2, 5], 3) == 5


def test_a_publisher_that_dies_tells_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    with closing(KafkaPublisher(f"127.0.0.1:{free_port()}", failed=failures.append)) as publisher:
        monkeypatch.setattr(publisher, "_look_up", lambda _: 1 / 0)
        publisher.publish("topic", b"one", lambda _: None)
        wait_until(lambda: bool(failures), "the failure")
        assert isinstance(failures[0], ZeroDivisionError)
        assert publisher.pending == 1


def test_errors_of_brokers_are_explained() -> None:
    assert "clocks" in meaning(InvalidTimestampError())
    assert "compacted" in meaning(InvalidRecordError())
    assert meaning(NotLeaderForPartitionError("moved")) == str(NotLeaderForPartitionError("moved"))
