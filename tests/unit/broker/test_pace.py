"""How long a consumer waits before it asks for more."""

from __future__ import annotations

import pytest

from pusher.broker.pace import ReadPace


def wait_after(*reads: tuple[int, float], more: bool = False) -> float:
    """The wait in s after reads that brought so many records, each so long after the one before."""
    pace, now = ReadPace(), 1000.0
    for number, passed_s in reads:
        now += passed_s
        pace.note(number, now, more=more)
    return max(0.0, pace.wait_s(now))


def test_nothing_has_been_read_yet() -> None:
    assert ReadPace().wait_s(1000.0) <= 0


@pytest.mark.parametrize(
    ("reads", "waits"),
    [
        ([(1, 5.0)], False),  # the first after a silence
        ([(1, 5.0), (1, 0.1), (1, 0.1)], False),  # ten a second: each after a silence
        ([(1, 5.0), (1, 0.03), (1, 0.03)], True),
        ([(1000, 5.0), (1000, 0.05), (1000, 0.05)], False),  # as fast as they can be worked off
    ],
)
def test_records_that_come_one_by_one_are_waited_for(reads: list[tuple[int, float]], waits: bool) -> None:
    assert bool(wait_after(*reads)) is waits


def test_the_fewer_come_the_longer_is_the_wait() -> None:
    few, many = [(5, 0.055)] * 4, [(16, 0.016)] * 4
    assert wait_after(*few) > wait_after(*many) > 0


def test_one_small_read_of_a_fast_topic_changes_nothing() -> None:
    fast = [(16, 0.016)] * 4
    assert wait_after(*fast, (4, 0.016)) == pytest.approx(wait_after(*fast))


def test_what_is_there_already_is_not_waited_for() -> None:
    assert wait_after(*[(5, 0.055)] * 4, more=True) == 0


def test_a_silence_ends_the_wait() -> None:
    assert wait_after(*[(5, 0.055)] * 4, (1, 0.5)) == 0
