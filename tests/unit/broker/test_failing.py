"""Partitions that cannot be read for now."""

from __future__ import annotations

from pusher.broker.failing import Failing
from pusher.broker.offsets import TopicPartition

SHUT, FREE = TopicPartition("shut", 0), TopicPartition("free", 0)


def test_pauses_grow_up_to_half_a_minute() -> None:
    failing, now, pauses = Failing(), 0.0, []
    for _ in range(8):
        failing.note(SHUT, "no", now)
        began = now
        while failing.waiting(now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_reason_stays_while_it_is_tried_again_and_goes_once_it_is_read() -> None:
    failing = Failing()
    assert failing.note(SHUT, "not authorized", 0.0)
    assert not failing.note(SHUT, "not authorized", 1.0)
    assert failing.waiting(2.0) == {SHUT}
    assert failing.waiting(3.5) == set()
    assert failing.reason == "shut cannot be read: not authorized"
    failing.forget([SHUT])
    assert failing.reason == ""


def test_what_is_not_read_but_no_longer_fails_is_healthy() -> None:
    failing = Failing()
    failing.note(SHUT, "not authorized", 0.0)
    failing.note(FREE, "damaged", 8.0)
    assert failing.waiting(8.0) == {FREE}
    assert SHUT not in failing
