"""The pace of a project, in simulated time: even, growing, stopped by a quota and going on when it is filled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest

from pusher.providers.google.fcm.pace import OUTAGE_S, PROBE_EVERY_S, Pace
from pusher.sim.fcm_quota import Quota, Terms

RATE = 6_000  # a minute: 100 a second


def sent(pace: Pace, begin: float, end: float, step: float = 0.001) -> int:
    """How many pushes go between two times when there are always more; all are accepted."""
    count, now = 0, begin
    while now < end:
        taken = pace.take(64, now)
        for _ in range(taken):
            pace.accepted(now, now)
        count += taken
        now += step
    return count


# ---- the rate


def test_sends_are_spread_evenly() -> None:
    pace = Pace(RATE, 0.0)
    sent(pace, 0.0, 70.0)
    for second in range(70, 80):
        for tenth in range(10):
            assert 9 <= sent(pace, second + tenth / 10, second + (tenth + 1) / 10) <= 11


def test_they_grow_from_a_tenth_to_all_of_the_rate_in_a_minute() -> None:
    pace = Pace(RATE, 0.0)
    seconds = [sent(pace, second, second + 1) for second in range(70)]
    assert 8 <= seconds[0] <= 13
    assert 50 <= seconds[30] <= 60
    assert all(98 <= count <= 102 for count in seconds[61:])
    assert sum(seconds[:60]) == pytest.approx(100 * 60 * 0.55, rel=0.02)


def test_what_was_not_used_does_not_come_in_a_burst() -> None:
    pace = Pace(RATE, 0.0)
    sent(pace, 0.0, 100.0)
    assert pace.take(1_000, 200.0) <= 2


@pytest.mark.parametrize("per_minute", [1, 7, 60, 601, 600_000])
def test_any_rate_is_kept_over_ten_minutes(per_minute: int) -> None:
    pace = Pace(per_minute, 0.0)
    now, count = 0.0, 0
    while now < 660.0:
        taken = pace.take(64, now)
        count += taken if now >= 60.0 else 0
        now += 0.0005 if taken else min(max(pace.wait_s(now), 0.0005), 0.5)
    assert count == pytest.approx(per_minute * 10, rel=0.01, abs=2)


def test_zero_is_neither_limit_nor_ramp() -> None:
    pace = Pace(0, 0.0)
    assert pace.take(64, 0.0) == 64
    assert pace.take(100_000, 0.0) == 100_000
    assert pace.shown(0.0).pace is None


def test_it_grows_again_after_an_outage() -> None:
    pace = Pace(RATE, 0.0)
    sent(pace, 0.0, 100.0)
    pace.failed()
    assert 98 <= sent(pace, 101.0, 102.0) <= 103, "no outage yet"
    pace.failed()
    pace.accepted(99.0, 102.0 + OUTAGE_S)
    assert pace.shown(102.0 + OUTAGE_S).pace == pytest.approx(10)


def test_a_pause_without_failures_is_no_outage() -> None:
    pace = Pace(RATE, 0.0)
    sent(pace, 0.0, 100.0)
    assert 98 <= sent(pace, 1_000.0, 1_001.0) <= 103


# ---- the quota


def test_a_refusal_stops_and_probes_go_every_few_seconds() -> None:
    pace = Pace(0, 0.0)
    assert pace.take(64, 10.0) == 64
    pace.refused(10.0, 10.1, None)
    probes = []
    now = 10.1
    while now < 41.0:
        if pace.take(64, now):
            probes.append(now)
            pace.refused(now, now + 0.05, None)
        now += max(pace.wait_s(now), 0.001)
    assert probes == pytest.approx([15.1 + PROBE_EVERY_S * n for n in range(6)], abs=0.01)


def test_a_retry_after_is_obeyed() -> None:
    pace = Pace(0, 0.0)
    pace.refused(9.9, 10.0, 12.0)
    assert pace.take(64, 21.9) == 0
    assert pace.wait_s(21.9) == pytest.approx(0.1)
    assert pace.take(64, 22.0) == 1
    pace.refused(22.0, 22.1, 30.0)
    assert pace.take(64, 51.0) == 0
    assert pace.take(64, 52.1) == 1


def test_a_retry_after_without_measure_is_cut() -> None:
    pace = Pace(0, 0.0)
    pace.refused(1.0, 1.0, 1e9)
    assert pace.wait_s(1.0) == 3_600


def test_the_first_success_lets_all_go_at_the_full_rate() -> None:
    pace = Pace(RATE, 0.0)
    pace.refused(1.0, 1.1, None)
    pace.accepted(0.9, 1.2)  # it was sent before the refused one
    assert pace.take(64, 6.0) == 0
    assert pace.take(64, 6.1) == 1
    assert pace.take(64, 6.2) == 0, "one probe at a time"
    pace.accepted(6.1, 6.2)
    assert 98 <= sent(pace, 6.2, 7.2) <= 103


def test_one_device_that_is_over_its_own_limit_does_not_stop_the_project_for_long() -> None:
    """QUOTA_EXCEEDED means that too: what is sent after it goes through."""
    pace = Pace(0, 0.0)
    for later in (1.01, 1.0):  # also one of the same batch, which is answered after it
        pace.refused(1.0, 1.05, 30.0)
        pace.accepted(later, 1.06)
        assert not pace.stopped
        assert pace.shown(1.06).quota is None


# ---- several processes and a quota that is filled anew each window

RTT_S, IN_FLIGHT, STEP_S = 0.05, 100, 0.005


class Process:
    """Has always more pushes; ``fastest`` a second is what its machine can do."""

    def __init__(self, per_minute: int, fastest: float) -> None:
        self.pace = Pace(per_minute, 0.0)
        self.answers: list[tuple[float, float, float | None]] = []
        self._fastest, self._spare = fastest, 0.0

    def sends(self, now: float) -> int:
        self._spare = min(self._spare + self._fastest * STEP_S, 64.0)
        free = min(IN_FLIGHT - len(self.answers), int(self._spare))
        taken = self.pace.take(min(free, 64), now) if free > 0 else 0
        self._spare -= taken
        return taken

    def hears(self, now: float) -> Iterator[None]:
        while self.answers and self.answers[0][0] <= now:
            _, sent_at, refused = self.answers.pop(0)
            if refused is None:
                self.pace.accepted(sent_at, now)
            else:
                self.pace.refused(sent_at, now, refused if refused >= 0 else None)
            yield


def run(processes: Sequence[Process], quota: Quota, seconds: float, *, tells: bool) -> int:
    """How many requests are made."""
    now, requests = 0.0, 0
    while now < seconds:
        for process in processes:
            for _ in process.hears(now):
                pass
            for _ in range(process.sends(now)):
                wait_s = quota.take(now + RTT_S / 2)
                refused = None if wait_s is None else math.ceil(wait_s) if tells else -1.0
                process.answers.append((now + RTT_S, now, refused))
                requests += 1
        now += STEP_S
    return requests


@pytest.mark.parametrize("tells", [True, False], ids=["Retry-After", "no Retry-After"])
@pytest.mark.parametrize(("processes", "fastest"), [(1, 3_000), (3, 1_000), (3, 5_000), (2, 2_000)])
def test_a_quota_is_used_and_few_are_refused(processes: int, fastest: float, tells: bool) -> None:
    quota = Quota(Terms(15_000, 15.0, tells))
    crowd = [Process(600_000, fastest) for _ in range(processes)]
    requests = run(crowd, quota, 150.0, tells=tells)
    whole = quota.windows[1:-1]
    assert sum(whole) >= 0.85 * 15_000 * len(whole)
    assert quota.refused < 0.1 * requests
    assert all(process.pace.shown(150.0).quota for process in crowd)
