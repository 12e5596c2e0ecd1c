"""What befalls a cluster of three brokers that replicate, under two daemons: nobody is to notice but in the latency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent

from lab.kafka.cluster import KafkaCluster
from lab.processes import wait_until
from tests.faults.driver import Driver, schedule
from tests.faults.group_runs import slow_settings
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, timed

#: Of each of the two daemons: a push takes 20 ms.
_AT_ONCE = 10

Play = Callable[[KafkaCluster], object]


def rolling(directory: Path, seed: int, pushes: int = 12_000) -> Result:
    """Three brokers, two daemons: every broker stopped by SIGTERM and started again, one after the other."""

    def restart(number: int) -> Play:
        def play(cluster: KafkaCluster) -> None:
            cluster.wait_until_whole()
            cluster.servers[number].stop(timeout_s=30)
            cluster.servers[number].start()
            cluster.wait_until_whole()

        return play

    faults = [(f"SIGTERM of broker {number}, and a new start", restart(number)) for number in (1, 2, 3)]
    return _played(directory, seed, pushes, faults)


def leader(directory: Path, seed: int, pushes: int = 8_000) -> Result:
    """Three brokers, two daemons: the leader of a partition killed with kill -9, and back after 10 s."""
    return _played(
        directory,
        seed,
        pushes,
        [("kill -9 of the leader of partition 0", lambda cluster: _kill(cluster, cluster.leader(TOPIC), away_s=10))],
    )


def coordinator(directory: Path, seed: int, pushes: int = 8_000) -> Result:
    """Three brokers, two daemons: the broker that keeps the group killed with kill -9, and back after 10 s."""
    return _played(
        directory,
        seed,
        pushes,
        [
            (
                "kill -9 of the group's coordinator",
                lambda cluster: _kill(cluster, cluster.leader("__consumer_offsets"), away_s=10),
            )
        ],
    )


def controller(directory: Path, seed: int, pushes: int = 8_000) -> Result:
    """Three brokers, two daemons: the active controller killed with kill -9, and back after 10 s."""
    return _played(
        directory,
        seed,
        pushes,
        [("kill -9 of the controller", lambda cluster: _kill(cluster, cluster.controller(), away_s=10))],
    )


def gone(directory: Path, seed: int, pushes: int = 8_000) -> Result:
    """Three brokers, two daemons: the leader of a partition killed with kill -9, for good."""
    return _played(
        directory,
        seed,
        pushes,
        [("kill -9 of the leader of partition 0, for good", lambda cluster: _kill(cluster, cluster.leader(TOPIC)))],
    )


def insync(directory: Path, seed: int, pushes: int = 8_000) -> Result:
    """Three brokers that must all have what is acknowledged: one killed, so that nothing is stored, back after 10 s."""
    return _played(
        directory,
        seed,
        pushes,
        [("kill -9 of a broker that all writes need", lambda cluster: _kill(cluster, 3, away_s=10))],
        min_insync=3,
    )


def _kill(cluster: KafkaCluster, number: int, away_s: float | None = None) -> None:
    cluster.servers[number].kill()
    if away_s is not None:
        gevent.sleep(away_s)
        cluster.servers[number].start()


def _played(directory: Path, seed: int, pushes: int, faults: list[tuple[str, Play]], *, min_insync: int = 2) -> Result:
    with _cluster(directory, min_insync) as cluster, Driver(directory, cluster.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        cluster.wait_until_whole()
        driver.produce(TOPIC, pushes)
        settings = slow_settings(driver, provider, _AT_ONCE)
        daemons = [driver.daemon(settings), driver.daemon(settings)]
        planned = schedule(seed, pushes * 2 // 3, [(name, lambda play=play: play(cluster)) for name, play in faults])  # type: ignore[misc]
        took_s = timed(lambda: driver.run(planned, timeout_s=300))
        wait_until(driver.all_committed, "not everything was committed", 60)
        statuses = [daemon.stop() for daemon in daemons]
        verdict = driver.verdict()
        line = f"{verdict}; exit statuses {statuses}, {took_s:.0f} s"
        # A group whose coordinator is away for longer than a session may go on without its members.
        return judged(driver, verdict, statuses == [0, 0], line, losses=len(daemons) * len(faults))


@contextmanager
def _cluster(directory: Path, min_insync: int) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(directory / "kafka", min_insync)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


RUNS: dict[str, Callable[[Path, int], Result]] = {
    "cluster-rolling": rolling,
    "cluster-leader": leader,
    "cluster-coordinator": coordinator,
    "cluster-controller": controller,
    "cluster-gone": gone,
    "cluster-insync": insync,
}
