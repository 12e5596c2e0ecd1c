"""A Firebase project whose quota is filled anew each window, and more pushes than it admits: how much of it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kafka.errors import KafkaError

from lab.kafka.admin import shares
from lab.processes import Simulator, wait_until
from tests.faults.fcm_runs import TOPIC, FcmDriver
from tests.faults.ledger import FED_BACK
from tests.faults.result import Result, judged
from tests.faults.runs import kafka, timed

LIMIT, WINDOW_S = 15_000, 15
USED, REFUSED = 0.85, 0.10


def quota(directory: Path, seed: int, *, daemons: int, tells: bool, pushes: int = 90_000) -> Result:
    """One run: all windows but the first, in which they start, and the last, in which there is little left."""
    with kafka(directory) as server, FcmDriver(directory, server.brokers) as driver:
        terms = f"{LIMIT}/{WINDOW_S}" + ",retry-after" * tells
        provider = driver.simulator("--seed", str(seed), "--latency-ms", "20", "--quota", terms)
        driver.create_topics(TOPIC)
        settings = driver.settings(provider.port, provider.ca_file)
        settings["gcm"]["fcm"] |= {"maxRate": 600_000}
        crowd = [driver.daemon(settings) for _ in range(daemons)]
        wait_until(lambda: _members(server.brokers, driver.group) == daemons, "not all have joined the group", 60)
        driver.produce(TOPIC, pushes, expected=FED_BACK)
        took_s = timed(lambda: driver.run(timeout_s=400))
        members = shares(server.brokers, driver.group)
        wait_until(driver.all_committed, "not everything was committed")
        verdict = driver.verdict()
        used, refused, requests = _used(provider)
        statuses = [daemon.stop() for daemon in crowd]
        line = (
            f"{verdict}; quota of {terms} a project: {used:.0%} used, {refused:,} of {requests:,} requests refused "
            f"({refused / requests:.1%}), partitions of the members {members}, exit statuses {statuses}, {took_s:.0f} s"
        )
        good = used >= USED and refused < REFUSED * requests and not any(statuses) and len(members) == daemons
        return judged(driver, verdict, good, line)


def _members(brokers: str, group: str) -> int:
    """How many have partitions; there is no group before the first one has joined."""
    try:
        return sum(share > 0 for share in shares(brokers, group))
    except KafkaError:
        return 0


def _used(provider: Simulator) -> tuple[float, int, int]:
    """The part of the quota that was used while there were pushes for it; refused; requests."""
    (counts,) = provider.counts()["quotas"].values()
    windows: list[int] = counts["windows"]
    busy = windows[1 : _last_busy(windows)]
    return sum(busy) / (LIMIT * len(busy)), counts["refused"], sum(windows) + counts["refused"]


def _last_busy(windows: list[int]) -> int:
    """Index of the window in which the backlog ended: what comes after it are pushes that were refused before."""
    left = sum(windows)
    for index, taken in enumerate(windows):
        if left < LIMIT * 2:
            return max(2, index)
        left -= taken
    return len(windows)


def fcm_quota(directory: Path, seed: int) -> Result:
    """FCM: a quota of 15,000 pushes each 15 s, refusals say when it is filled (Retry-After); one process."""
    return quota(directory, seed, daemons=1, tells=True)


def fcm_quota_silent(directory: Path, seed: int) -> Result:
    """FCM: a quota of 15,000 pushes each 15 s, refusals say nothing; one process."""
    return quota(directory, seed, daemons=1, tells=False)


def fcm_quota_group(directory: Path, seed: int) -> Result:
    """FCM: a quota of 15,000 pushes each 15 s, refusals say when it is filled; three processes on one project."""
    return quota(directory, seed, daemons=3, tells=True)


def fcm_quota_group_silent(directory: Path, seed: int) -> Result:
    """FCM: a quota of 15,000 pushes each 15 s, refusals say nothing; three processes on one project."""
    return quota(directory, seed, daemons=3, tells=False)


RUNS: dict[str, Callable[[Path, int], Result]] = {
    "fcm-quota": fcm_quota,
    "fcm-quota-silent": fcm_quota_silent,
    "fcm-quota-group": fcm_quota_group,
    "fcm-quota-group-silent": fcm_quota_group_silent,
}
