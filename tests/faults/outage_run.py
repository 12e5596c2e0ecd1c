"""Apple answers 503 for two minutes while messages come at 5,000 a second, and then takes everything again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import gevent

from lab.kafka.admin import committed
from lab.nginx import Nginx
from lab.processes import wait_until
from pusher.broker.offsets import MAX_METADATA_BYTES
from tests.faults.driver import Driver
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, kafka, timed

RATE, BEFORE_S, OUTAGE_S, RECOVERS_WITHIN_S = 5_000, 20.0, 120.0, 10.0
#: What memory may grow by while nothing is taken: allocators do not give all back at once.
GROWS_BY_MB = 8.0
_BATCH_S = 0.1
_FAR_AWAY_MS = 30 * 24 * 3_600_000


def outage(directory: Path, seed: int, *, rate: int = RATE, outage_s: float = OUTAGE_S) -> Result:
    """APNs: 503 for 120 s while 5,000 pushes come a second that live for a month: none fails."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        switch = directory / "outage"
        provider = Nginx(directory / "nginx", locations=_locations(switch))
        provider.start()
        try:
            driver.create_topics(TOPIC)
            daemon = driver.daemon(driver.settings(provider.port, str(provider.certificate)))
            daemon.wait_for('msg="connected"', 60)
            feed = Feed(driver, rate)
            feed.run(lambda: feed.elapsed_s > BEFORE_S)
            before_mb, before = daemon.memory_mb(), feed.settled_a_second
            driver.note("503")
            switch.touch()
            began = time.monotonic()
            memory_mb: list[float] = []
            metadata: list[int] = []

            def look() -> None:
                memory_mb.append(daemon.memory_mb())
                metadata.extend(len(one.metadata or "") for one in committed(server.brokers, driver.group).values())

            feed.run(lambda: time.monotonic() - began > outage_s, each_s=5.0, look=look)
            settled = driver.ledger.settled
            driver.note("200 again")
            switch.unlink()
            ended = time.monotonic()
            feed.run(lambda: feed.settled_a_second >= rate or time.monotonic() - ended > 60)
            recovered_s = time.monotonic() - ended
            driver.note(f"{rate:,} a second again")
            took_s = timed(lambda: driver.run(timeout_s=400))
            wait_until(driver.all_committed, "not everything was committed", 60)
            verdict = driver.verdict()
            status = daemon.stop()
        finally:
            provider.stop()
        line = (
            f"{verdict}; {before:,.0f} a second before; in {outage_s:.0f} s of 503 memory from {before_mb:.1f} to "
            f"{max(memory_mb):.1f} MB at most, {max(metadata)} bytes of commit metadata at most, "
            f"{feed.sent - settled:,} waited; {rate:,} a second again after {recovered_s:.1f} s, "
            f"the rest {took_s:.0f} s later, exit status {status}"
        )
        good = (
            max(memory_mb) < before_mb + GROWS_BY_MB
            and max(metadata) <= MAX_METADATA_BYTES
            and recovered_s <= RECOVERS_WITHIN_S
            and status == 0
        )
        return judged(driver, verdict, good, line)


class Feed:
    """So many messages a second, in one loop with reading what became of them."""

    def __init__(self, driver: Driver, rate: int) -> None:
        self.sent = 0
        self._driver, self._rate, self._began = driver, rate, time.monotonic()
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def elapsed_s(self) -> float:
        """Since the first message."""
        return time.monotonic() - self._began

    @property
    def settled_a_second(self) -> float:
        """Over the last second."""
        if len(self._seen) < 2:
            return 0.0
        (since, before), (now, after) = self._seen[0], self._seen[-1]
        return (after - before) / (now - since)

    def run(self, until: Callable[[], object], each_s: float = 1e9, look: Callable[[], object] = lambda: None) -> None:
        """Until a condition holds; ``look`` is called each so many seconds."""
        looked_at = time.monotonic()
        while not until():
            due = int(self.elapsed_s * self._rate) - self.sent
            if due >= self._rate * _BATCH_S:
                self._driver.produce(TOPIC, due, push_expiry=self._driver.now_ms() + _FAR_AWAY_MS)
                self.sent += due
            self._driver.read(0.02)
            self._note()
            if time.monotonic() - looked_at >= each_s:
                looked_at = time.monotonic()
                look()
            gevent.sleep(0.005)

    def _note(self) -> None:
        now = time.monotonic()
        self._seen.append((now, self._driver.ledger.settled))
        while self._seen[0][0] < now - 1.0:
            self._seen.popleft()


def _locations(switch: Path) -> str:
    refusal = '{"reason":"ServiceUnavailable"}'
    return f"""
        location /3/device/ {{
            default_type application/json;
            if (-f {switch}) {{ return 503 '{refusal}'; }}
            return 200;
        }}
    """


RUNS: dict[str, Callable[[Path, int], Result]] = {"outage": outage}
