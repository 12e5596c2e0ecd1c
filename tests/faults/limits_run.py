"""Two senders that limit and compare pushes in one real Redis, killed, and Redis restarted, on the way."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab.kafka.admin import committed
from lab.processes import Simulator
from lab.redis import RedisServer
from tests.faults.driver import PREFIX, Driver
from tests.faults.ledger import LIMITED, Ledger
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, kafka, restart

#: Pushes of a device in each minute.
LIMIT = 20
#: Of the pushes of a device each fifth says what the one before it said.
_SAME_EVERY = 5
_MINUTE_S = 60


class Plan(NamedTuple):
    """Pushes to some devices: which of them is for which, and says what."""

    devices: int

    def token(self, number: int) -> str:
        """The device of a push."""
        return f"{number % self.devices:064x}"

    def text(self, number: int) -> str:
        """What it says; equal ones to one device are duplicates."""
        turn = number // self.devices
        return f"message {turn - (turn % _SAME_EVERY == _SAME_EVERY - 1)}"

    def value(self, number: int) -> bytes:
        """Its request."""
        request = {
            "DeviceToken": self.token(number),
            "Payload": {"aps": {"alert": self.text(number)}},
            "metadata": {"number": number},
        }
        return json.dumps(request).encode()


def limits(directory: Path, seed: int, pushes: int = 50_000, devices: int = 500, *, next_minute: bool = True) -> Result:
    """A rate limit of 20 and duplicates dropped by two senders on one Redis: two kill -9, and Redis restarted."""
    # what is sent uncounted while Redis is away may exceed the limit, and nothing else may
    plan = Plan(devices)
    # what was counted outlives a restart
    durable = {"save": "3600 1"}
    with (
        kafka(directory) as server,
        RedisServer(directory / "redis", properties=durable) as redis,
        Driver(directory, server.brokers) as driver,
    ):
        provider = driver.simulator("--latency-ms", "5")
        driver.create_topics(TOPIC, partitions=4)
        settings = driver.settings(provider.port, provider.ca_file, **_settings(redis))
        counters = _Counters(redis)
        began_s = time.time()
        first, second = driver.daemon(settings), driver.daemon(settings)
        for daemon in (first, second):
            daemon.wait_until_started()
        for part, faults in enumerate(
            (
                [("kill -9 of a sender", lambda: restart(first)), ("Redis is restarted", redis.restart)],
                [("kill -9 of the other sender", lambda: restart(second))],
            )
        ):
            half = range(part * pushes // 2, (part + 1) * pushes // 2)
            driver.produce_raw(TOPIC, (plan.value(number) for number in half), LIMITED)
            _run(driver, (part + 1) * pushes // 2, faults)
            counters.read()
            if not part and next_minute:
                _await_next_minute(driver)
        ended_s = time.time()
        statuses = [first.stop(), second.stop()]
        verdict = driver.verdict()
        found = _Found(driver, provider, plan, counters, began_s, ended_s)
        line = f"{verdict}; {found}; exit statuses {statuses}, {ended_s - began_s:.0f} s"
        complaints = found.complaints()
        good = statuses == [0, 0] and not complaints
        result = judged(driver, verdict, good, line, losses=2)
        if found.counted_for_nothing > result.bound:
            complaints.append(f"{found.counted_for_nothing} were counted and not sent, {result.bound} are allowed")
        return result._replace(good=result.good and not complaints, line="\n".join([result.line, *complaints]))


class _Counters:
    """What Redis counted for each device in each minute. They live for a minute: read them before."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._counts: dict[str, int] = {}

    def read(self) -> None:
        with self._redis.client() as client:
            names = client.keys()
            self._counts |= {name: int(value or 0) for name, value in zip(names, client.mget(names), strict=True)}

    def full(self) -> set[str]:
        """The devices that had their fill in some minute."""
        return {name.partition(":")[0] for name, count in self._counts.items() if count >= LIMIT}

    def by_device(self) -> Counter[str]:
        """What the limit took for sent, over all minutes."""
        found: Counter[str] = Counter()
        for name, count in self._counts.items():
            found[name.partition(":")[0]] += min(count, LIMIT)
        return found


class _Found:
    """What the provider, the feedbacks, the metrics and Redis say of the limits."""

    def __init__(
        self, driver: Driver, provider: Simulator, plan: Plan, counters: _Counters, began_s: float, ended_s: float
    ) -> None:
        ledger = driver.ledger
        self.delivered = {number for number, message in ledger.messages.items() if message.feedbacks}
        sends = {(push_id, token) for push_id, token, status, _ in provider.received() if status == 200}
        self.minutes = int(ended_s // _MINUTE_S - began_s // _MINUTE_S) + 1
        self.most = max(Counter(token for _, token, _, _ in provider.received()).values())
        by_device = Counter(token for _, token, _, _ in provider.received())
        #: Sends beyond what the limit allows in the minutes of the run.
        self.beyond = sum(max(0, number - LIMIT * self.minutes) for number in by_device.values())
        said = Counter((plan.token(number), plan.text(number)) for number in self.delivered)
        self.duplicates = sum(number - 1 for number in said.values())
        self.distinct_sends = len(sends)
        self.uncounted = driver.statsd.count(PREFIX + "rate_limit_failed")
        self.uncompared = driver.statsd.count(PREFIX + "dedup_errors")
        self.refused = driver.statsd.count(PREFIX + "rate_limit_reached")
        self.dropped = driver.statsd.count(PREFIX + "duplicated_messages")
        self.lost = list(_lost(ledger, plan, self.delivered, counters.full()))
        #: What a sender had counted and not sent when it was killed; it counts again when it is read again.
        self.counted_for_nothing = (counters.by_device() - by_device).total()
        self.kept_back = len(ledger.messages) - len(self.delivered)

    def complaints(self) -> list[str]:
        found = []
        if self.beyond > self.uncounted:
            found.append(f"{self.beyond} sends beyond the limit, of which {self.uncounted} while Redis was away")
        if self.duplicates > self.uncompared:
            found.append(f"{self.duplicates} duplicates were sent, {self.uncompared} while Redis was away")
        if self.lost:
            found.append(f"{len(self.lost)} pushes are lost, such as {self.lost[:5]}")
        return found

    def __str__(self) -> str:
        return (
            f"{len(self.delivered):,} delivered + {self.kept_back:,} limited, {self.beyond} beyond the limit in "
            f"{self.minutes} minutes (most to a device {self.most}), {self.duplicates} duplicates sent, "
            f"{len(self.lost)} lost, {self.counted_for_nothing} counted and not sent; "
            f"metrics: {self.refused:,} refused, {self.dropped:,} duplicates, {self.uncounted} uncounted"
        )


def _run(driver: Driver, produced: int, faults: Sequence[tuple[str, Callable[[], object]]]) -> None:
    """Until everything is committed; the faults come one after the other while the work is going on."""
    before = _committed(driver)
    for turn, (name, play) in enumerate(faults, 1):
        point = before + (produced - before) * turn // (len(faults) + 2)
        driver.run_until(lambda: _committed(driver) >= point, f"{point} are committed", 120)  # noqa: B023
        driver.note(name)
        play()
    driver.run_until(driver.all_committed, "everything is committed", 240)


def _committed(driver: Driver) -> int:
    return sum(commit.offset for commit in committed(driver.brokers, driver.group).values())


def _await_next_minute(driver: Driver) -> None:
    minute = int(time.time() // _MINUTE_S)
    driver.run_until(lambda: time.time() // _MINUTE_S > minute, "the next minute", 70)


def _lost(ledger: Ledger, plan: Plan, delivered: set[int], full: set[str]) -> Iterator[int]:
    """Pushes that neither arrived nor had to be kept back: their device had not had its fill, nor what they say."""
    said = {(plan.token(number), plan.text(number)) for number in delivered}
    for number in ledger.messages.keys() - delivered:
        token = plan.token(number)
        if token not in full and (token, plan.text(number)) not in said:
            yield number


def _settings(redis: RedisServer) -> dict[str, Any]:
    place: dict[str, Any] = {"redis": {"host": redis.host, "port": redis.port}, "tls": {"disabled": True}}
    return {
        "apns.rateLimit.rpm": LIMIT,
        "apns.dedup.ttl": "10m",
        "rateLimiter": place,
        "dedup": place | {"games": '{"game": 100}', "action": "drop"},
        "admin.port": 0,
    }


RUNS = {"limits": limits}
