"""Three brokers and two daemons in racks: each daemon reads in its own rack, as long as there is a broker."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import gevent

from lab.kafka.cluster import KafkaCluster
from lab.kafka.relay import Relay
from lab.processes import wait_until
from tests.faults.driver import Driver, Fault
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC

#: Of each of the two daemons: a push takes 20 ms.
_AT_ONCE = 10
#: The daemons' racks, each with one broker of the same number.
_RACKS = (1, 2)
#: Of what a daemon fetches while all brokers are there so much comes from its rack.
_SHARE = 0.9
#: Nobody asks the brokers of other racks for so long: the daemons have found what is near.
_QUIET_S = 2.0
_TEXT = "x" * 900


def rack(directory: Path, seed: int, pushes: int = 9_000) -> Result:
    """Three brokers, two daemons, in racks: what is fetched comes from the same rack, before and after it was away."""
    with _racks(directory) as (cluster, relays), Driver(directory, cluster.brokers) as driver:
        provider = driver.simulator("--latency-ms", "20")
        driver.create_topics(TOPIC)
        daemons = []
        for number in _RACKS:
            own = {"kafka.clientId": _name(number), "kafka.rack": f"rack-{number}"}
            changes = {"apns.concurrentWorkers": _AT_ONCE} | own
            daemons.append(driver.daemon(driver.settings(provider.port, provider.ca_file, **changes), _name(number)))
        shares = [_wave(driver, relays, pushes // 3)]

        def away() -> None:
            cluster.servers[1].kill()
            gevent.sleep(10)
            cluster.servers[1].start()

        after = driver.ledger.settled + random.Random(seed).randint(pushes // 30, pushes // 4)
        driver.produce(TOPIC, pushes // 3, Payload={"aps": {"alert": _TEXT}})
        driver.run([Fault(after, "kill -9 of the broker in a daemon's rack", away)], timeout_s=120)
        cluster.wait_until_whole()
        shares.append(_wave(driver, relays, pushes // 3))
        wait_until(driver.all_committed, "not everything was committed", 60)
        statuses = [daemon.stop() for daemon in daemons]
        verdict = driver.verdict()
        near = [f"{share:.0%}" for shares_then in shares for share in shares_then]
        line = f"{verdict}; {' '.join(near)} of the bytes from the same rack; exit statuses {statuses}"
        good = statuses == [0, 0] and all(share >= _SHARE for shares_then in shares for share in shares_then)
        return judged(driver, verdict, good, line, losses=len(daemons))


def _wave(driver: Driver, relays: dict[int, Relay], pushes: int) -> list[float]:
    """Pushes once all daemons read in their racks; which share of what each fetched came from there."""
    driver.run_until(lambda: _settled_in(driver, relays), "the daemons read in their racks", 90)
    before = {number: _fetched(relays, number) for number in _RACKS}
    driver.produce(TOPIC, pushes, Payload={"aps": {"alert": _TEXT}})
    driver.run(timeout_s=120)
    fetched = {number: _fetched(relays, number) for number in _RACKS}
    brought = {n: {at: fetched[n][at] - before[n][at] for at in relays} for n in _RACKS}
    return [brought[number][number] / max(1, sum(brought[number].values())) for number in _RACKS]


def _settled_in(driver: Driver, relays: dict[int, Relay]) -> bool:
    """Whether each daemon asks the broker of its rack, and no other for a while."""

    def asked() -> tuple[list[int], list[int]]:
        near = [relays[number].fetches[_name(number)] for number in _RACKS]
        far = [sum(relay.fetches[_name(number)] for at, relay in relays.items() if at != number) for number in _RACKS]
        return near, far

    near, far = asked()
    end = time.monotonic() + _QUIET_S
    while time.monotonic() < end:
        driver.read()
    near_now, far_now = asked()
    return far_now == far and all(now > then for now, then in zip(near_now, near, strict=True))


def _fetched(relays: dict[int, Relay], number: int) -> dict[int, int]:
    return {at: relay.fetched_bytes[_name(number)] for at, relay in relays.items()}


def _name(number: int) -> str:
    return f"daemon-{number}"


@contextmanager
def _racks(directory: Path) -> Iterator[tuple[KafkaCluster, dict[int, Relay]]]:
    cluster = KafkaCluster(directory / "kafka")
    with ExitStack() as cleanup:
        relays = {number: Relay(server.port) for number, server in cluster.servers.items()}
        for number, relay in relays.items():
            cleanup.callback(relay.stop)
            cluster.servers[number].brokers = f"127.0.0.1:{relay.port}"
        cleanup.callback(cluster.stop)
        cluster.start()
        yield cluster, relays


RUNS = {"cluster-rack": rack}
