"""Back-off and the retry heap, without waiting."""

from datetime import UTC, datetime

import pytest

from pusher.push.retry import RetryPolicy, RetryQueue, parse_retry_after

POLICY = RetryPolicy(interval_s=1, max_attempts=4, max_wait_s=60)


def test_waits_double_from_the_interval() -> None:
    assert [POLICY.wait_s(n, draw=lambda: 0.0) for n in (1, 2, 3, 4)] == [1, 2, 4, None]


def test_jitter_only_lengthens() -> None:
    assert POLICY.wait_s(1, draw=lambda: 1.0) == 1.5


def test_waits_are_capped() -> None:
    assert RetryPolicy(interval_s=50, max_attempts=9).wait_s(3, draw=lambda: 0.5) == 60


def test_retry_after_wins() -> None:
    assert POLICY.wait_s(1, retry_after_s=120) == 120
    assert POLICY.wait_s(4, retry_after_s=120) is None


def test_a_retry_after_beyond_all_reason_is_cut() -> None:
    assert POLICY.wait_s(1, retry_after_s=float("inf")) == 3600


def test_attempts_without_limit_do_not_overflow() -> None:
    assert RetryPolicy(interval_s=1, max_attempts=10**9).wait_s(10**6, draw=lambda: 0.0) == 60


def test_no_retry_beyond_the_elapsed_limit() -> None:
    policy = RetryPolicy(interval_s=10, max_attempts=99, max_elapsed_s=30)
    assert policy.wait_s(1, elapsed_s=20, draw=lambda: 0.0) == 10
    assert policy.wait_s(1, elapsed_s=20.1, draw=lambda: 0.0) is None


def test_the_queue_gives_what_is_due_in_order() -> None:
    queue: RetryQueue[str] = RetryQueue()
    for due, item in ((5.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "d")):
        queue.push(due, item)
    assert queue.next_due == 1.0
    assert queue.pop_due(5.0, 2) == ["a", "b"]
    assert queue.pop_due(5.0, 9) == ["c"]
    assert queue.pop_due(5.0, 9) == []
    assert len(queue) == 1


def test_drain_takes_out_what_is_not_kept() -> None:
    queue: RetryQueue[str] = RetryQueue()
    for due in (3.0, 1.0, 2.0):
        queue.push(due, str(due))
    assert sorted(queue.drain(lambda due, _: due <= 2)) == ["3.0"]
    assert queue.pop_due(9, 9) == ["1.0", "2.0"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("soon", None),
        ("-1", None),
        ("Fri, 01 Jan 2027 00:00:10 GMT", 10.0),
        ("", None),
        ("9" * 999, float("inf")),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, datetime(2027, 1, 1, tzinfo=UTC).timestamp()) == seconds


def test_what_waits_aside_is_counted_and_may_be_brought_forward() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.push(10.0, "ordinary")
    queue.push(60.0, "held up", aside=True)
    queue.push(61.0, "patient", aside=True)
    queue.push(3.0, "sooner", aside=True)
    assert (len(queue), queue.aside) == (4, 3)
    queue.bring_forward(5.0, lambda item: item in ("held up", "sooner", "ordinary"), aside_alone=True)
    assert queue.pop_due(5.0, 10) == ["sooner", "held up"]
    assert (len(queue), queue.aside) == (2, 1)
    assert queue.drain(lambda due, _: due < 20.0) == ["patient"]
    assert (len(queue), queue.aside) == (1, 0)
