"""What befalls the places that outcomes go to, and the clock: feedback topics that refuse, no StatsD, jumps in time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from lab.kafka.admin import create_topic, delete_topic, limit_records
from lab.processes import ROOT, wait_until
from tests.faults.driver import PREFIX, Driver, schedule
from tests.faults.ledger import DELIVERED, EXPIRED
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, kafka

FEEDBACKS = "push-game-apns-feedbacks"
_JUMP_S = 3600


#: Of lines that are alike: they are not written a thousand times.
LINES_A_MINUTE = 5


def refused(directory: Path, seed: int, pushes: int = 3_000) -> Result:
    """Feedbacks that are too large go without the producer's metadata; a topic that is gone is waited for."""
    with (
        kafka(directory, {"auto.create.topics.enable": "false"}) as server,
        Driver(directory, server.brokers) as driver,
    ):
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        limit_records(server.brokers, FEEDBACKS, 3_000)
        driver.produce(TOPIC, pushes // 3)
        driver.produce(TOPIC, pushes // 3, metadata={"padding": "x" * 3_000})
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file, **{"admin.port": 0}))
        driver.run(timeout_s=120)
        without = daemon.logs().count("published without the producer's metadata")
        delete_topic(server.brokers, FEEDBACKS)
        wait_until(lambda: not driver.exists(FEEDBACKS), "the topic is still there")
        driver.produce(TOPIC, pushes // 3)
        daemon.wait_for("nothing stored for", 60)  # readiness
        create_topic(server.brokers, FEEDBACKS)
        driver.watch(FEEDBACKS)
        driver.run(timeout_s=120)
        status = daemon.stop()
        verdict = driver.verdict()
        line = f"{verdict}; {without:,} lines about feedbacks without metadata, exit status {status}"
        return judged(driver, verdict, without == LINES_A_MINUTE and status == 0, line)


def no_statsd(directory: Path, seed: int, pushes: int = 5_000) -> Result:
    """StatsD goes away under load, and the name of another daemon's leads nowhere: no push takes notice."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        settings = driver.settings(provider.port, provider.ca_file, **{"apns.concurrentWorkers": 20})
        settings["queue"]["sessionTimeout"] = 20_000
        nowhere = settings | {"stats": settings["stats"] | {"statsd": {"host": "no-such-host.invalid:8125"}}}
        daemons = [driver.daemon(settings), driver.daemon(nowhere)]
        driver.run(schedule(seed, pushes, [("StatsD gone", driver.statsd.close)]), timeout_s=120)
        said = daemons[1].logs().count("StatsD host cannot be resolved")
        statuses = [daemon.stop() for daemon in daemons]
        verdict = driver.verdict()
        line = f"{verdict}; {said} warnings, exit statuses {statuses}"
        return judged(driver, verdict, said > 0 and statuses == [0, 0], line, moved=2 * 2 * 20, counted=False)


def clock(directory: Path, seed: int, pushes: int = 6_000) -> Result:
    """The wall clock jumps an hour ahead and two back, with retries waiting: nothing is lost, nothing hangs."""
    offset = directory / "offset"
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--seed", str(seed), "--latency-ms", "20", "--fault", "503:0.1,retry-after=1,once")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        offset.write_text("0")
        changes = directory / "changes.json"
        changes.write_text(json.dumps({"clock": str(offset)}))
        program = (sys.executable, str(ROOT / "tests/faults/altered.py"), str(changes))
        settings = driver.settings(provider.port, provider.ca_file, **{"apns.concurrentWorkers": 20})
        daemon = driver.daemon(settings, program=program)

        def ahead() -> None:
            offset.write_text(f"{_JUMP_S}")
            # over for a clock that is ahead
            driver.produce(TOPIC, 100, expected=EXPIRED, push_expiry=driver.now_ms() + _JUMP_S * 500)

        def back() -> None:
            driver.run_until(lambda: driver.statsd.count(f"{PREFIX}expired") == 100, "they are not over")
            offset.write_text(f"-{_JUMP_S}")

        jumps = [("the clock jumps ahead", ahead), ("the clock jumps back", back)]
        driver.run(schedule(seed, pushes, jumps), timeout_s=180)
        driver.produce(TOPIC, 100, expected=DELIVERED, push_expiry=driver.now_ms() + _JUMP_S * 500)
        driver.run(timeout_s=60)
        wait_until(driver.all_committed, "not everything was committed")
        status = daemon.stop()
        verdict = driver.verdict()
        return judged(driver, verdict, status == 0, f"{verdict}; exit status {status}")


RUNS: dict[str, Callable[[Path, int], Result]] = {"refused": refused, "no-statsd": no_statsd, "clock": clock}
