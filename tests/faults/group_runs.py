"""What befalls the members of a group and their partitions: restarts, storms of rebalances, new and cut partitions."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

from lab.kafka.admin import committed, expire_records, shares, widen_topic
from lab.kafka.server import KafkaServer
from lab.processes import Daemon, Simulator, wait_until
from tests.faults.driver import Driver, schedule
from tests.faults.ledger import FED_BACK, NO_TRACE
from tests.faults.result import Result, judged
from tests.faults.runs import MASSIVE, TOPIC, kafka, restart, timed

#: Pushes in flight at one time in the storm.
AT_ONCE = 10
#: A session is over after this; `Driver.settings` has it.
SESSION_S = 2


def slow_settings(driver: Driver, provider: Simulator, at_once: int = 20) -> dict[str, Any]:
    """So many pushes at one time: a run lasts long enough for what befalls it."""
    changes = {"apns.concurrentWorkers": at_once, "queue.metadataRefresh": "1s"}
    return driver.settings(provider.port, provider.ca_file, **changes)


def stops(directory: Path, seed: int, pushes: int = 10_000, times: int = 4) -> Result:
    """The daemon stopped by SIGTERM under load and started again, several times: nothing repeats."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        daemon = driver.daemon(slow_settings(driver, provider))
        statuses: list[int] = []

        fault = ("SIGTERM, and a new start", lambda: statuses.append(stop_and_start(daemon)))
        driver.run(schedule(seed, pushes, [fault] * times), timeout_s=300)
        daemon.wait_until_started()
        statuses.append(daemon.stop())
        verdict = driver.verdict()
        return judged(driver, verdict, set(statuses) == {0}, f"{verdict}; {times} stops, exit statuses {statuses}")


def frozen(directory: Path, seed: int, pushes: int = 10_000) -> Result:
    """Two daemons, one of them frozen for 10 s while the other takes over, and back again."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        settings = slow_settings(driver, provider)
        first, second = driver.daemon(settings), driver.daemon(settings)
        driver.run(schedule(seed, pushes, [("SIGSTOP for 10 s", lambda: freeze(first, 10))]), timeout_s=300)
        statuses = [first.stop(), second.stop()]
        verdict = driver.verdict()
        return judged(driver, verdict, statuses == [0, 0], f"{verdict}; exit statuses {statuses}", losses=1)


def storm(directory: Path, seed: int, pushes: int = 10_000, times: int = 6) -> Result:
    """A further member joins and leaves every 2 s while two others work: only pushes in flight may repeat."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC, MASSIVE)
        for topic in (TOPIC, MASSIVE):
            driver.produce(topic, pushes // 2)
        settings = slow_settings(driver, provider, AT_ONCE)
        settings["queue"]["sessionTimeout"] = 20_000
        steady = [driver.daemon(settings), driver.daemon(settings)]
        guest = driver.daemon(settings)
        statuses: list[int] = []

        def come_and_go() -> None:
            for _ in range(times):
                gevent.sleep(2)
                statuses.append(stop_and_start(guest, after_s=2))

        visits = gevent.spawn(come_and_go)
        driver.run(timeout_s=300)
        visits.join()
        guest.wait_until_started()
        statuses += [daemon.stop() for daemon in (*steady, guest)]
        verdict = driver.verdict()
        line = f"{verdict}; {times} visits, exit statuses {statuses}"
        # each visit moves partitions twice, from members that have so many in flight
        return judged(driver, verdict, set(statuses) == {0}, line, moved=times * 2 * 3 * AT_ONCE)


def partitions(directory: Path, seed: int, pushes: int = 9_000) -> Result:
    """The topic gets more partitions while two daemons work it off; what goes there is read from its beginning."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes // 3, expected=NO_TRACE)  # before the group begins, at the latest
        settings = slow_settings(driver, provider)
        settings["queue"] |= {"offsetResetStrategy": "latest", "sessionTimeout": 20_000}
        daemons = [driver.daemon(settings), driver.daemon(settings)]
        wait_until(lambda: len(committed(server.brokers, driver.group)) == 3, "the group has not begun", 60)
        driver.produce(TOPIC, pushes // 3)

        def widen() -> None:
            widen_topic(server.brokers, TOPIC, 6)
            wait_until(lambda: driver.partitions(TOPIC) == 6, "no new partitions")
            driver.produce(TOPIC, pushes // 3)

        driver.run(schedule(seed, pushes * 2 // 3, [("three more partitions", widen)]), timeout_s=300)
        wait_until(driver.all_committed, "not everything was committed")
        members = shares(server.brokers, driver.group)
        statuses = [daemon.stop() for daemon in daemons]
        verdict = driver.verdict()
        line = f"{verdict}; partitions of the members {members}, exit statuses {statuses}"
        # up to three rebalances; as many as are in flight may have their feedback on its way
        moved = 3 * len(daemons) * 2 * 20
        return judged(driver, verdict, sorted(members) == [3, 3] and statuses == [0, 0], line, moved=moved)


def truncated(directory: Path, seed: int, pushes: int = 6_000) -> Result:
    """Retention deletes what a stopped daemon has not read: it goes on at the earliest offset, and says so."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator()
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes // 3)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file))
        driver.run(timeout_s=120)
        statuses = [daemon.stop()]
        ends = driver.ledger.ends()
        driver.produce(TOPIC, pushes // 3, expected=NO_TRACE)
        for (topic, partition), end in driver.ledger.ends().items():
            expire_records(server.brokers, topic, partition, end)
        assert ends != driver.ledger.ends()
        driver.produce(TOPIC, pushes // 3)
        daemon.start()
        driver.run(timeout_s=120)
        said = daemon.log().count("offset out of range")
        statuses.append(daemon.stop())
        counted = driver.statsd.count("test.offset_out_of_range")
        verdict = driver.verdict()
        line = f"{verdict}; {said} partitions out of range, counted {counted}, exit statuses {statuses}"
        return judged(driver, verdict, said == counted == len(ends) and statuses == [0, 0], line)


def mixed(directory: Path, seed: int, pushes: int = 15_000, times: int = 5) -> Result:
    """Two daemons, an unruly provider, and whatever the seed draws of kills, stops, freezes and broker failures."""
    draw = random.Random(seed)
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        script = ("429:0.01,retry-after=1", "503:0.01,retry-after=1", "reset CANCEL:0.01", "goaway:1/701", "cut:1/1999")
        provider = driver.simulator("--seed", str(seed), "--latency-ms", "20", *flags(script))
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes, expected=FED_BACK)
        settings = slow_settings(driver, provider, at_once=50)
        daemons = [driver.daemon(settings), driver.daemon(settings)]
        chosen = [drawn(draw, daemons, server) for _ in range(times)]
        faults = [(name, play) for name, play, _ in chosen]
        took_s = timed(lambda: driver.run(schedule(seed, pushes, faults), timeout_s=300))
        wait_until(driver.all_committed, "not everything was committed")
        for daemon in daemons:
            daemon.wait_until_started()
        statuses = [daemon.stop() for daemon in daemons]
        verdict = driver.verdict()
        losses = sum(lost for _, _, lost in chosen)
        line = f"{verdict}; {times} faults, exit statuses {statuses}, {took_s:.0f} s"
        return judged(driver, verdict, statuses == [0, 0], line, losses)


def drawn(draw: random.Random, daemons: list[Daemon], server: KafkaServer) -> tuple[str, Callable[[], object], int]:
    """A fault, and how many daemons may lose what they have not committed."""
    number = draw.randrange(len(daemons))
    daemon = daemons[number]

    def broker_frozen() -> None:
        server.freeze()
        gevent.spawn_later(2 * SESSION_S, server.thaw)

    return draw.choice(
        [
            (f"kill -9 of daemon {number}", lambda: restart(daemon), 1),
            (f"SIGTERM of daemon {number}", lambda: stop_and_start(daemon), 1),
            (f"daemon {number} frozen for {2 * SESSION_S} s", lambda: freeze(daemon, 2 * SESSION_S), 1),
            ("kill -9 of the broker", server.restart, len(daemons)),
            (f"broker frozen for {2 * SESSION_S} s", broker_frozen, len(daemons)),
        ]
    )


def stop_and_start(daemon: Daemon, after_s: float = 0.0) -> int:
    """SIGTERM once it has started, and a new start; the exit status."""
    daemon.wait_until_started()
    status = daemon.stop()
    gevent.sleep(after_s)
    daemon.start()
    return status


def flags(script: tuple[str, ...]) -> list[str]:
    return [flag for line in script for flag in ("--fault", line)]


def freeze(daemon: Daemon, seconds: float) -> None:
    """SIGSTOP, and SIGCONT later; returns at once."""
    daemon.signal(signal.SIGSTOP)
    gevent.spawn_later(seconds, daemon.signal, signal.SIGCONT)


RUNS: dict[str, Callable[[Path, int], Result]] = {
    "stops": stops,
    "frozen": frozen,
    "storm": storm,
    "partitions": partitions,
    "truncated": truncated,
    "mixed": mixed,
}
