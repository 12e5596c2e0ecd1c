"""When the guard stops deletion, and when it lets it go on."""

from __future__ import annotations

import pytest

from pusher.listener.guard import Guard, GuardPolicy, Seen


def policy(*, expected: bool = True) -> GuardPolicy:
    return GuardPolicy(window_s=600, share=0.2, minimum=100, successes_expected=expected, maximum=1_000)


@pytest.mark.parametrize(
    ("outcomes", "successes", "doubtful", "stops"),
    [
        (0, 0, 0, False),
        (99, 0, 99, False),
        (100, 0, 100, True),
        (500, 400, 100, False),
        (499, 399, 100, True),
        (1_000_000, 999_000, 1_000, False),
        (1_000_000, 700_000, 200_001, True),
    ],
)
def test_share_and_minimum(outcomes: int, successes: int, doubtful: int, stops: bool) -> None:
    assert policy().stops(outcomes, successes, doubtful) is stops


@pytest.mark.parametrize(
    ("outcomes", "successes", "doubtful", "stops"),
    [
        (1_000, 0, 1_000, False),
        (1_001, 0, 1_001, True),
        (101, 1, 100, True),
    ],
)
def test_senders_that_feed_back_failures_only(outcomes: int, successes: int, doubtful: int, stops: bool) -> None:
    assert policy(expected=False).stops(outcomes, successes, doubtful) is stops


def test_nothing_seen_stops_nothing() -> None:
    assert not Guard(policy()).stops(0.0)


def test_what_leaves_the_window_no_longer_counts() -> None:
    guard = Guard(policy())
    guard.count(1_000, Seen(150, 0, 150))
    assert guard.stops(1_000)
    assert guard.stops(1_000 + 599)
    assert not guard.stops(1_000 + 610)
    assert guard.seen(1_000 + 610) == Seen()


def test_successes_that_come_later_open_the_guard() -> None:
    guard = Guard(policy())
    guard.count(0, Seen(150, 0, 150))
    assert guard.stops(10)
    guard.count(10, Seen(900, 900, 0))
    assert not guard.stops(10)


def test_counts_of_one_moment_add_up() -> None:
    guard = Guard(policy())
    for _ in range(10):
        guard.count(5.0, Seen(20, 5, 15))
    assert guard.seen(5.0) == Seen(200, 50, 150)
    assert guard.stops(5.0)


def test_the_window_slides_in_small_steps() -> None:
    guard = Guard(policy())
    for second in range(0, 1_200, 5):
        guard.count(second, Seen(1, 1, 0))
    assert 118 <= guard.seen(1_199).outcomes <= 120
    assert len(guard._slots) <= 61


def test_a_guard_that_has_stopped_waits_for_clearly_fewer_refusals() -> None:
    open_one, stopped = Guard(policy()), Guard(policy())
    for guard in (open_one, stopped):
        guard.count(0, Seen(820, 620, 200))
    assert stopped.stops(0)
    for guard in (open_one, stopped):
        guard.count(1, Seen(230, 230, 0))
    assert not open_one.stops(1)
    assert stopped.stops(1)
    stopped.count(2, Seen(250, 250, 0))
    assert not stopped.stops(2)
