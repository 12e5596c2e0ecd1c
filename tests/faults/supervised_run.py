"""The large run under supervisord: kills at random, then a restart of one process after the other."""

from __future__ import annotations

import random
import time
from pathlib import Path

from lab.processes import wait_until
from tests.faults.driver import Driver, Fault
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, kafka
from tests.faults.supervised import Supervised


def supervised(directory: Path, seed: int, pushes: int = 50_000, times: int = 6) -> Result:
    """Two processes under supervisord: either killed with kill -9 again and again, then each restarted by SIGTERM."""
    draw = random.Random(seed)
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "50")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        settings = driver.settings(provider.port, provider.ca_file, **{"apns.concurrentWorkers": 50})
        del settings["admin"]
        began = time.monotonic()
        with Supervised(directory, settings, ["pusher-apns"]) as daemons:
            faults = kills(draw, daemons, pushes, times)
            faults += [
                Fault(pushes * 75 // 100, "SIGTERM of the first, and its successor runs", lambda: daemons.terminate(0)),
                Fault(
                    pushes * 85 // 100, "SIGTERM of the second, and its successor runs", lambda: daemons.terminate(1)
                ),
            ]
            driver.run(faults, timeout_s=600)
            took_s = time.monotonic() - began
            wait_until(driver.all_committed, "not everything was committed")
            stopped = daemons.stop()
        verdict = driver.ledger.verdict({"supervised": daemons.logs()})
        again = provider.counts()["duplicates"]
        line = (
            f"{verdict}; {times} kills and a rolling restart, provider accepted {again:,} twice, "
            f"exit status of supervisord {stopped}, {took_s:.0f} s"
        )
        return judged(driver, verdict, stopped == 0, line, losses=times)


def kills(draw: random.Random, daemons: Supervised, pushes: int, times: int) -> list[Fault]:
    """kill -9 of one of the two, drawn, at drawn points of the first 70 % of the run."""
    points = sorted(draw.randint(pushes * 5 // 100, pushes * 70 // 100) for _ in range(times))
    drawn = [(point, draw.randrange(2)) for point in points]
    return [Fault(point, f"kill -9 of process {n}", lambda n=n: daemons.kill(n)) for point, n in drawn]  # type: ignore[misc]
