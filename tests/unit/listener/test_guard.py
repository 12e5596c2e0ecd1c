"""When the guard stops deletion, and when it lets it go on."""

from __future__ import annotations

import pytest

from pusher.listener.guard import Guard, GuardPolicy, Limit, Seen, Stopped


def policy(*, expected: bool = True) -> GuardPolicy:
    return GuardPolicy(600, Limit(0.2, 100), Limit(0.8, 50), successes_expected=expected, maximum=1_000)


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
    assert policy().stops(Seen(outcomes, successes, doubtful)) == Stopped(doubtful=stops)


@pytest.mark.parametrize(
    ("outcomes", "successes", "proven", "stops"),
    [
        (49, 0, 49, False),
        (50, 0, 50, True),
        (201, 1, 200, True),
        (100, 20, 80, False),
        (100, 19, 81, True),
        (1_000, 500, 300, False),
    ],
)
def test_the_word_on_the_token_is_believed_unless_nearly_all_are_dead(
    outcomes: int, successes: int, proven: int, stops: bool
) -> None:
    assert policy().stops(Seen(outcomes, successes, 0, proven)) == Stopped(proven=stops)


@pytest.mark.parametrize(
    ("outcomes", "successes", "refusals", "stops"),
    [
        (1_000, 0, 1_000, False),
        (1_001, 0, 1_001, True),
        (101, 1, 100, True),
    ],
)
def test_senders_that_feed_back_failures_only(outcomes: int, successes: int, refusals: int, stops: bool) -> None:
    assert policy(expected=False).stops(Seen(outcomes, successes, refusals)) == Stopped(doubtful=stops)
    assert policy(expected=False).stops(Seen(outcomes, successes, 0, refusals)) == Stopped(proven=stops)


def test_nothing_seen_stops_nothing() -> None:
    assert Guard(policy()).stops(0.0) == Stopped()


def test_what_leaves_the_window_no_longer_counts() -> None:
    guard = Guard(policy())
    guard.count(1_000, Seen(150, 0, 150))
    assert guard.stops(1_000).doubtful
    assert guard.stops(1_000 + 599).doubtful
    assert not guard.stops(1_000 + 610).doubtful
    assert guard.seen(1_000 + 610) == Seen()


def test_successes_that_come_later_open_the_guard() -> None:
    guard = Guard(policy())
    guard.count(0, Seen(150, 0, 150))
    assert guard.stops(10).doubtful
    guard.count(10, Seen(900, 900, 0))
    assert not guard.stops(10).doubtful


def test_counts_of_one_moment_add_up() -> None:
    guard = Guard(policy())
    for _ in range(10):
        guard.count(5.0, Seen(20, 5, 14, 1))
    assert guard.seen(5.0) == Seen(200, 50, 140, 10)
    assert guard.stops(5.0) == Stopped(doubtful=True)


def test_the_window_slides_in_small_steps() -> None:
    guard = Guard(policy())
    for second in range(0, 1_200, 5):
        guard.count(second, Seen(1, 1, 0))
    assert 118 <= guard.seen(1_199).outcomes <= 120
    assert len(guard._slots) <= 61


@pytest.mark.parametrize("kind", ["doubtful", "proven"])
def test_a_guard_that_has_stopped_waits_for_clearly_fewer_refusals(kind: str) -> None:
    limit = Limit(0.2, 100)
    how = GuardPolicy(600, limit, limit, successes_expected=True, maximum=1_000)
    open_one, stopped = Guard(how), Guard(how)
    for guard in (open_one, stopped):
        guard.count(0, Seen(820, 620)._replace(**{kind: 200}))
    assert getattr(stopped.stops(0), kind)
    for guard in (open_one, stopped):
        guard.count(1, Seen(230, 230))
    assert not any(open_one.stops(1))
    assert getattr(stopped.stops(1), kind)
    stopped.count(2, Seen(250, 250))
    assert not any(stopped.stops(2))
