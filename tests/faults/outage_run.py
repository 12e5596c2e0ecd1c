"""Apple answers 503 for two minutes while a backlog waits, and then takes everything again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lab.kafka.admin import committed
from lab.nginx import Nginx
from lab.processes import wait_until
from pusher.broker.offsets import MAX_METADATA_BYTES
from tests.faults.driver import Driver
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, kafka, timed

#: What comes in the time of the outage, all of it there from the beginning: nothing limits how fast it is read.
RATE, OUTAGE_S = 5_000, 120.0
RECOVERS_WITHIN_S = 10.0
#: What memory may grow by while nothing is taken: allocators do not give all back at once.
GROWS_BY_MB = 8.0
_PRODUCED_AT_ONCE = 20_000
_FAR_AWAY_MS = 30 * 24 * 3_600_000


def outage(directory: Path, seed: int, *, rate: int = RATE, outage_s: float = OUTAGE_S) -> Result:
    """APNs: 503 for 120 s, while 600,000 pushes wait (5,000 a second) that live for a month: none fails."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        switch = directory / "outage"
        provider = Nginx(directory / "nginx", locations=_locations(switch))
        provider.start()
        try:
            driver.create_topics(TOPIC)
            expiry = driver.now_ms() + _FAR_AWAY_MS
            pushes = int(rate * outage_s)
            for start in range(0, pushes, _PRODUCED_AT_ONCE):
                driver.produce(TOPIC, min(_PRODUCED_AT_ONCE, pushes - start), push_expiry=expiry)
            daemon = driver.daemon(driver.settings(provider.port, str(provider.certificate)))
            daemon.wait_for('msg="connected"', 60)
            watch = Watch(driver)
            watch.run(lambda: driver.ledger.settled > pushes // 10)
            before, before_mb = watch.settled_a_second, daemon.memory_mb()
            driver.note("503")
            switch.touch()
            memory_mb, metadata = [before_mb], [0]

            def look() -> None:
                memory_mb.append(daemon.memory_mb())
                metadata.extend(len(one.metadata or "") for one in committed(server.brokers, driver.group).values())

            watch.run_for(outage_s, look, each_s=5.0)
            waiting = driver.ledger.waiting
            driver.note("200 again")
            switch.unlink()
            full = min(before, rate)
            recovered_s = timed(lambda: watch.run_for(60.0, until=lambda: watch.settled_a_second >= full))
            driver.note(f"{full:,.0f} a second again")
            took_s = timed(lambda: driver.run(timeout_s=400))
            wait_until(driver.all_committed, "not everything was committed", 60)
            verdict = driver.verdict()
            status = daemon.stop()
        finally:
            provider.stop()
        line = (
            f"{verdict}; {before:,.0f} a second before; in {outage_s:.0f} s of 503 memory from "
            f"{before_mb:.1f} to {max(memory_mb):.1f} MB at most, {max(metadata)} bytes of commit metadata at most, "
            f"{waiting:,} waited; {full:,.0f} a second again after {recovered_s:.1f} s, the rest {took_s:.0f} s later, "
            f"exit status {status}"
        )
        good = (
            max(memory_mb) < before_mb + GROWS_BY_MB
            and max(metadata) <= MAX_METADATA_BYTES
            and recovered_s <= RECOVERS_WITHIN_S
            and status == 0
        )
        return judged(driver, verdict, good, line)


class Watch:
    """Reads what becomes of the messages, and how fast."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def settled_a_second(self) -> float:
        """Over the last second."""
        if len(self._seen) < 2:
            return 0.0
        (since, before), (now, after) = self._seen[0], self._seen[-1]
        return (after - before) / max(now - since, 0.5)

    def run(self, until: Callable[[], object]) -> None:
        """Until a condition holds."""
        while not until():
            self._driver.read(0.02)
            now = time.monotonic()
            self._seen.append((now, self._driver.ledger.settled))
            while self._seen[0][0] < now - 1.0:
                self._seen.popleft()

    def run_for(
        self,
        seconds: float,
        look: Callable[[], object] = lambda: None,
        *,
        each_s: float = 1e9,
        until: Callable[[], object] = lambda: False,
    ) -> None:
        """For so long, or until a condition holds; ``look`` is called each so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            part_s = min(end, time.monotonic() + each_s)
            self.run(lambda part_s=part_s: time.monotonic() >= part_s or until())  # type: ignore[misc]
            look()


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
