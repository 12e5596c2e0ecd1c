"""The large runs. Each returns its result in one line of figures, the events on the way, and whether it was good."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import gevent

from lab.kafka.admin import shares
from lab.kafka.server import KafkaServer
from lab.nginx import Nginx
from lab.processes import Daemon, wait_until
from tests.faults.driver import Driver, schedule
from tests.faults.ledger import FED_BACK, REJECTED
from tests.faults.result import Result, judged

TOPIC = "push-game_apns-single"
MASSIVE = "push-game_apns-massive"


def kills(directory: Path, seed: int, pushes: int = 20_000, times: int = 5) -> Result:
    """429, 500 and 503 for 5 % of the requests, and the daemon killed with kill -9 again and again."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        errors = ("429:0.0167,retry-after=1", "500:0.0167", "503:0.0167,retry-after=1")
        provider = driver.simulator("--seed", str(seed), *[flag for error in errors for flag in ("--fault", error)])
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes, expected=FED_BACK)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file))
        faults = schedule(seed, pushes, [("kill -9", lambda: restart(daemon))] * times)
        took_s = timed(lambda: driver.run(faults, timeout_s=300))
        verdict = driver.verdict()
        counts = provider.counts()
        faulty = sum(counts["faults"].values())
        delivered_again = counts["duplicates"]
        stopped = daemon.stop()
        line = (
            f"{verdict}; {times} kills, {faulty:,} answers of 429, 500 and 503, provider accepted {delivered_again:,} "
            f"twice, exit status {stopped}, {took_s:.0f} s"
        )
        return judged(driver, verdict, stopped == 0, line, losses=times)


def group(directory: Path, seed: int, pushes: int = 20_000) -> Result:
    """Two daemons in one group: a new topic, one killed with kill -9 and back, the broker killed and restarted."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "50")
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes // 2)
        settings = driver.settings(provider.port, provider.ca_file)
        settings["queue"] |= {"metadataRefresh": "1s"}
        settings["apns"]["concurrentWorkers"] = 50
        first, second = driver.daemon(settings), driver.daemon(settings)

        def new_topic() -> None:
            driver.create_topics(MASSIVE)
            driver.produce(MASSIVE, pushes // 4)

        faults = schedule(
            seed,
            pushes * 3 // 4,
            [
                ("a new topic", new_topic),
                ("kill -9 of a daemon", second.kill),
                ("it comes back", second.start),
                ("kill -9 of the broker, and restart", server.restart),
            ],
        )
        took_s = timed(lambda: driver.run(faults, timeout_s=300))
        driver.produce(TOPIC, pushes // 8)
        driver.produce(MASSIVE, pushes // 8)
        took_s += timed(lambda: driver.run(timeout_s=120))
        members = shares(server.brokers, driver.group)
        wait_until(driver.all_committed, "not everything was committed")
        verdict = driver.verdict()
        statuses = [first.stop(), second.stop()]
        line = f"{verdict}; partitions of the members {members}, exit statuses {statuses}, {took_s:.0f} s"
        good = len(members) == 2 and min(members) > 0 and statuses == [0, 0]
        # the one that was killed, and both while the broker was away for longer than their sessions
        return judged(driver, verdict, good, line, losses=3)


def nginx(directory: Path, seed: int, pushes: int = 30_000) -> Result:
    """A provider that sends each connection away after 1000 requests: each token reaches it exactly once."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = Nginx(directory / "nginx", log_arrivals=True, keepalive_requests=1000)
        provider.start()
        try:
            driver.create_topics(TOPIC)
            driver.produce(TOPIC, pushes)
            daemon = driver.daemon(driver.settings(provider.port, str(provider.certificate)))
            took_s = timed(lambda: driver.run(timeout_s=300))
            verdict = driver.verdict()
            status = daemon.stop()
        finally:
            provider.stop()
        arrivals = Counter(line.rpartition("/")[2] for line in provider.arrivals.read_text().splitlines())
        once = sum(1 for times in arrivals.values() if times == 1)
        connections = daemon.logs().count('msg="connected"') + daemon.logs().count("msg=connected")
        line = (
            f"{verdict}; {len(arrivals):,} tokens arrived, {once:,} exactly once, over {connections} connections, "
            f"exit status {status}, {took_s:.1f} s ({pushes / took_s:,.0f}/s)"
        )
        return judged(driver, verdict, len(arrivals) == once == pushes and status == 0, line)


def one_link(directory: Path, seed: int, pushes: int = 300_000) -> Result:
    """Very many pushes over one connection, every twentieth refused with a body: none lost, memory flat."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = Nginx(directory / "nginx", log_arrivals=False)
        provider.start()
        try:
            driver.create_topics(TOPIC)
            for _ in range(20):
                driver.produce(TOPIC, pushes // 20 * 19 // 20)
                driver.produce(TOPIC, pushes // 20 // 20, prefix="dead", expected=REJECTED)
            daemon = driver.daemon(driver.settings(provider.port, str(provider.certificate)))
            samples: list[tuple[int, float]] = []
            took_s = timed(
                lambda: driver.run(
                    timeout_s=600, look=lambda: samples.append((driver.ledger.settled, daemon.memory_mb()))
                )
            )
            verdict = driver.verdict()
            cpu_us = daemon.cpu_s() / pushes * 1e6
            connections = daemon.logs().count('msg="connected"') + daemon.logs().count("msg=connected")
            status = daemon.stop()
        finally:
            provider.stop()
        early = max((mb for settled, mb in samples if pushes * 0.1 < settled < pushes * 0.3), default=0.0)
        late = max((mb for settled, mb in samples if settled > pushes * 0.8), default=0.0)
        line = (
            f"{verdict}; {connections} connection, memory {early:.1f} MB at 10-30 %, {late:.1f} MB at 80-100 %, "
            f"{cpu_us:.0f} us CPU a push, exit status {status}, {took_s:.0f} s"
        )
        good = connections == 1 and late < early + 8 and status == 0
        return judged(driver, verdict, good, line)


def pauses(directory: Path, seed: int, pushes: int = 20_000) -> Result:
    """Three daemons in one group: frozen beyond their sessions, leaving and joining, killed; the broker frozen."""
    with kafka(directory) as server, Driver(directory, server.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC, MASSIVE)
        for topic in (TOPIC, MASSIVE):
            driver.produce(topic, pushes // 2)
        settings = driver.settings(provider.port, provider.ca_file, **{"apns.concurrentWorkers": 10})
        daemons = [driver.daemon(settings) for _ in range(3)]

        def leave_and_join() -> None:
            daemons[2].stop()
            daemons[2].start()

        def freeze_broker() -> None:
            server.freeze()
            gevent.spawn_later(4, server.thaw)

        faults: list[tuple[str, Callable[[], object]]] = [
            ("a daemon frozen for 4 s", lambda: pause(daemons[0])),
            ("a member leaves and joins", leave_and_join),
            ("another frozen for 4 s", lambda: pause(daemons[1])),
            ("the broker frozen for 4 s", freeze_broker),
            ("a member leaves and joins", leave_and_join),
            ("kill -9 of a daemon", lambda: restart(daemons[0])),
        ]
        took_s = timed(lambda: driver.run(schedule(seed, pushes, faults), timeout_s=300))
        wait_until(driver.all_committed, "not everything was committed")
        verdict = driver.verdict()
        members = shares(server.brokers, driver.group)
        statuses = [daemon.stop() for daemon in daemons]
        line = f"{verdict}; partitions of the members {members}, exit statuses {statuses}, {took_s:.0f} s"
        good = sorted(members) == [2, 2, 2] and statuses == [0, 0, 0]
        # two frozen, one killed, and all three while the broker was frozen
        return judged(driver, verdict, good, line, losses=6)


RUNS: dict[str, Callable[[Path, int], Result]] = {
    "kills": kills,
    "group": group,
    "nginx": nginx,
    "one-link": one_link,
    "pauses": pauses,
}


class kafka:  # noqa: N801
    """A private broker while the block runs."""

    def __init__(self, directory: Path, properties: Mapping[str, object] | None = None) -> None:
        self._server = KafkaServer(directory / "kafka", properties=properties)

    def __enter__(self) -> KafkaServer:
        self._server.start()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def pause(daemon: Daemon) -> None:
    """SIGSTOP, and SIGCONT after its session has timed out."""
    daemon.signal(signal.SIGSTOP)
    gevent.spawn_later(4, daemon.signal, signal.SIGCONT)


def restart(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
