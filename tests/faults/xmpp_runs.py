"""The large runs of an app that is served through XMPP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lab.processes import Simulator
from tests.faults.driver import PREFIX, Driver, nested, schedule
from tests.faults.ledger import DELIVERED, REJECTED, token_of
from tests.faults.result import Result, judged
from tests.faults.runs import kafka, restart, timed

TOPIC = "push-game_gcm-single"
WINDOW = 100
ACK_S = 0.05


class XmppDriver(Driver):
    """A driver whose provider is the simulated XMPP service."""

    platform = "gcm"

    def simulator(self, *flags: str) -> Simulator:
        """Starts it; it knows one account."""
        simulator = Simulator(self.directory, "--account", "123:key", *flags, platform="gcm")
        self._cleanup.callback(simulator.end)
        simulator.start()
        return simulator

    def settings(self, port: int, ca_file: str, **changes: object) -> dict[str, Any]:
        """Of a daemon that talks to the service at localhost."""
        common = {name: value for name, value in super().settings(port, ca_file).items() if name != "apns"}
        common["queue"]["topics"] = [f"^push-{app}_gcm" for app in self.apps]
        own = {
            "gcm.apps": ",".join(self.apps),
            "gcm.xmpp": {"host": "localhost", "port": port, "caFile": ca_file},
            "gcm.certs": {app: {"apiKey": "key", "senderID": "123"} for app in self.apps},
            "gcm.maxPendingMessages": WINDOW,
        }
        return common | nested(own | changes)

    def request(self, number: int, prefix: str, **fields: object) -> dict[str, object]:
        """A push request."""
        return {
            "to": prefix + token_of(number),
            "notification": {"title": "hello", "body": f"message {number}"},
            "metadata": {"number": number},
            **fields,
        }


def window(directory: Path, seed: int, pushes: int = 20_000) -> Result:
    """XMPP: each answer takes 50 ms: never more than 100 pending, and as fast as that allows."""
    return answers_after_a_while(directory, seed, pushes, ())


def faults(directory: Path, seed: int, pushes: int = 20_000) -> Result:
    """XMPP: each answer takes 50 ms; a drain, three cuts and a freeze of 10 s on the way."""
    return answers_after_a_while(directory, seed, pushes, ("cut", "drain", "cut", "freeze 10", "cut"))


def answers_after_a_while(directory: Path, seed: int, pushes: int, actions: Sequence[str]) -> Result:
    """A run with slow answers, and faults that befall one connection each."""
    with kafka(directory) as server, XmppDriver(directory, server.brokers) as driver:
        provider = driver.simulator("--ack-delay-ms", str(ACK_S * 1000))
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file))
        # the simulator counts how often it has played a line, so that each must have a text of its own
        lines = [f"{action},times=1,delay={number}" for number, action in enumerate(actions)]
        samples: list[tuple[int, float]] = []
        driver.run(
            # with those before it, which may not have been played yet
            schedule(
                seed, pushes, [(line, partial(provider.set_faults, *lines[: n + 1])) for n, line in enumerate(lines)]
            ),
            timeout_s=300,
            look=lambda: samples.append((driver.ledger.settled, time.monotonic())),
        )
        verdict = driver.verdict()
        counts = provider.counts()
        status = daemon.stop()
        logins, played = counts["events"]["logins"], sum(counts["faults"].values())
        line = (
            f"{verdict}; {speed(samples):,.0f}/s of {WINDOW / ACK_S:,.0f}/s, at most {counts['max_pending']} pending, "
            f"{logins} logins, {played} faults, accepted again {counts['duplicates']:,}, "
            f"violations {counts['violations']}, exit status {status}"
        )
        in_order = counts["max_pending"] <= WINDOW and not counts["violations"]
        return judged(driver, verdict, in_order and played == len(actions) and status == 0, line)


def speed(samples: list[tuple[int, float]]) -> float:
    """Messages settled a second, without the first and the last tenth: joining the group is not sending."""
    pushes = samples[-1][0]
    middle = [sample for sample in samples if pushes * 0.1 <= sample[0] <= pushes * 0.9]
    return (middle[-1][0] - middle[0][0]) / (middle[-1][1] - middle[0][1]) if len(middle) > 1 else 0.0


def kills(directory: Path, seed: int, pushes: int = 20_000, times: int = 3) -> Result:
    """XMPP: retryable errors for 5 % of the messages, and the daemon killed with kill -9 again and again."""
    with kafka(directory) as server, XmppDriver(directory, server.brokers) as driver:
        errors = ("nack SERVICE_UNAVAILABLE:0.02,once", "nack DEVICE_MESSAGE_RATE_EXCEEDED:0.02,once", "silence:1/999")
        flags = [flag for error in errors for flag in ("--fault", error)]
        provider = driver.simulator("--seed", str(seed), "--ack-delay-ms", "20", *flags)
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file, **{"gcm.ackTimeout": "5s"}))
        took_s = timed(lambda: driver.run(schedule(seed, pushes, [("kill -9", lambda: restart(daemon))] * times), 300))
        verdict = driver.verdict()
        counts = provider.counts()
        status = daemon.stop()
        line = (
            f"{verdict}; {times} kills, {sum(counts['faults'].values()):,} faults, "
            f"accepted again {counts['duplicates']:,}, at most {counts['max_pending']} pending, "
            f"exit status {status}, {took_s:.0f} s"
        )
        return judged(driver, verdict, status == 0, line, losses=times)


def memory(directory: Path, seed: int, pushes: int = 100_000) -> Result:
    """XMPP: very many messages, every twentieth to a dead token: none lost, memory and greenlets flat."""
    with kafka(directory) as server, XmppDriver(directory, server.brokers) as driver:
        provider = driver.simulator("--fault", "prefix=dead:nack DEVICE_UNREGISTERED")
        driver.create_topics(TOPIC)
        for _ in range(20):
            driver.produce(TOPIC, pushes // 20 * 19 // 20, expected=DELIVERED)
            driver.produce(TOPIC, pushes // 20 // 20, prefix="dead", expected=REJECTED)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file))
        samples: list[tuple[int, float, float]] = []

        def look() -> None:
            greenlets = driver.statsd.gauges.get(f"{PREFIX}num_goroutine", 0.0)
            samples.append((driver.ledger.settled, daemon.memory_mb(), greenlets))

        took_s = timed(lambda: driver.run(timeout_s=600, look=look))
        verdict = driver.verdict()
        cpu_us = daemon.cpu_s() / pushes * 1e6
        status = daemon.stop()
        early = [sample for sample in samples if pushes * 0.1 < sample[0] < pushes * 0.3]
        late = [sample for sample in samples if sample[0] > pushes * 0.8]
        memory_mb = [max((mb for _, mb, _ in part), default=0.0) for part in (early, late)]
        greenlets = [max((count for _, _, count in part), default=0.0) for part in (early, late)]
        line = (
            f"{verdict}; memory {memory_mb[0]:.1f} MB at 10-30 %, {memory_mb[1]:.1f} MB at 80-100 %, greenlets "
            f"{greenlets[0]:.0f} and {greenlets[1]:.0f}, {cpu_us:.0f} us CPU a push, start included, "
            f"exit status {status}, {took_s:.0f} s"
        )
        flat = memory_mb[1] < memory_mb[0] + 8 and greenlets[1] <= max(greenlets[0], WINDOW + 50)
        return judged(driver, verdict, flat and status == 0, line)


RUNS: dict[str, Callable[[Path, int], Result]] = {
    "xmpp-window": window,
    "xmpp-faults": faults,
    "xmpp-kills": kills,
    "xmpp-memory": memory,
}
