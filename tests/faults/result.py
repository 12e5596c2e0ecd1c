"""What a run has shown: the account, how often messages came twice, how long all stood still."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from tests.faults.driver import PREFIX, Driver
from tests.faults.ledger import EXPIRED, INVALID, Verdict

#: Repeats that one loss of state may cost beside what was in flight: what was fed back in the commit interval of 0.5 s,
#: and in the second that a feedback and a commit may take on a busy machine.
_UNCOMMITTED_S = 1.5
_IN_FLIGHT = 300
_SUMS_WITHIN_S = 10.0


class Result(NamedTuple):
    """Of one run."""

    verdict: Verdict
    good: bool
    #: In figures.
    line: str
    #: What was done, and when.
    events: list[str]
    #: Most repeats that are allowed.
    bound: int
    #: The longest time in which nothing was settled, outages included.
    standstill_s: float


def judged(  # all that a result is made of
    driver: Driver,
    verdict: Verdict,
    good: bool,
    line: str,
    losses: int = 0,
    *,
    moved: int = 0,
    counted: bool = True,
) -> Result:
    """``losses``: how often a process lost what it had not committed, by kill -9 or because its group went on alone.

    ``moved``: pushes that may have been without a stored outcome when their partition went to another member. Without
    either nothing may repeat. Where no process was killed the metrics must add up, unless StatsD has not ``counted``
    everything.
    """
    bound = losses * int(_IN_FLIGHT + driver.pace.fastest * _UNCOMMITTED_S) + moved
    complaints = sums(driver, verdict) if counted and not losses else []
    if verdict.repeats > bound:
        complaints.append(f"{verdict.repeats:,} repeats, {bound:,} are allowed")
    if verdict.distinct_ids != verdict.fed_back:
        complaints.append(f"{verdict.distinct_ids:,} distinct ids of {verdict.fed_back:,} messages with a feedback")
    line = f"{line}; longest standstill {driver.pace.standstill_s:.1f} s"
    good = verdict.good and good and not complaints
    return Result(verdict, good, "\n".join([line, *complaints]), driver.events, bound, driver.pace.standstill_s)


def failed(error: str) -> Result:
    """Of a run that came to no end."""
    return Result(Verdict(0, Counter(), 0, 0, 0, 0, [error]), False, error, [], 0, 0.0)


def sums(driver: Driver, verdict: Verdict) -> list[str]:
    """Complaints where the daemons' counters do not say what the account says."""
    counts = driver.ledger.counts()
    wanted = {
        "ack": counts.delivered,
        "failed": counts.not_delivered,
        "expired": verdict.outcomes[EXPIRED],
        "invalid": verdict.outcomes[INVALID],
    }
    deadline = time.monotonic() + _SUMS_WITHIN_S
    while True:
        found = {name: driver.statsd.count(PREFIX + name) for name in wanted}
        if found == wanted or time.monotonic() > deadline:
            return [] if found == wanted else [f"the metrics say {found}, the account {wanted}"]
        driver.read(0.05)
