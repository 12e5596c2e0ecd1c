"""The large runs of an app that is served through FCM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.processes import Simulator
from tests.faults.driver import Driver, nested, schedule
from tests.faults.ledger import DELIVERED, FED_BACK, REJECTED, token_of
from tests.faults.result import Result, judged
from tests.faults.runs import kafka, restart, timed

TOPIC = "push-game_gcm-single"


class FcmDriver(Driver):
    """A driver whose provider is the simulated FCM."""

    platform = "gcm"

    def simulator(self, *flags: str) -> Simulator:
        """Starts FCM with a service account of its own."""
        account = ("--write-credentials", str(self.account), "--oauth-port", "0")
        simulator = Simulator(self.directory, *account, *flags, platform="fcm")
        self._cleanup.callback(simulator.end)
        simulator.start()
        return simulator

    @property
    def account(self) -> Path:
        """The service account's file."""
        return self.directory / "account.json"

    def settings(self, port: int, ca_file: str, **changes: object) -> dict[str, Any]:
        """Of a daemon that talks to FCM at localhost."""
        common = {name: value for name, value in super().settings(port, ca_file).items() if name != "apns"}
        own = {
            "apps": ",".join(self.apps),
            "firebaseCredentials": dict.fromkeys(self.apps, str(self.account)),
            "fcm": {
                "endpoint": f"https://localhost:{port}",
                "caFile": ca_file,
                "maxRate": 0,
                "retry": {"interval": "200ms"},
            },
        }
        common["queue"]["topics"] = [f"^push-{app}_gcm" for app in self.apps]
        return {**common, "gcm": own, **nested(changes)}

    def request(self, number: int, prefix: str, **fields: object) -> dict[str, object]:
        """A push request; the data member `id` is what tells pushes apart at the simulator."""
        return {
            "to": prefix + token_of(number),
            "notification": {"title": "hello", "body": f"message {number}"},
            "data": {"id": str(number)},
            "metadata": {"number": number},
            **fields,
        }


def fcm_kills(directory: Path, seed: int, pushes: int = 20_000, times: int = 5) -> Result:
    """FCM: 429, 500 and 503 for 5 % of the requests, and the daemon killed with kill -9 again and again."""
    with kafka(directory) as server, FcmDriver(directory, server.brokers) as driver:
        errors = ("429:0.0167,retry-after=1", "500:0.0167", "503:0.0167,retry-after=1")
        provider = driver.simulator("--seed", str(seed), *[flag for error in errors for flag in ("--fault", error)])
        driver.create_topics(TOPIC)
        driver.produce(TOPIC, pushes, expected=FED_BACK)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file))
        faults = schedule(seed, pushes, [("kill -9", lambda: restart(daemon))] * times)
        took_s = timed(lambda: driver.run(faults, timeout_s=300))
        verdict = driver.verdict()
        counts = provider.counts()
        stopped = daemon.stop()
        line = (
            f"{verdict}; {times} kills, {sum(counts['faults'].values()):,} answers of 429, 500 and 503, "
            f"provider accepted {counts['duplicates']:,} twice, exit status {stopped}, {took_s:.0f} s"
        )
        return judged(driver, verdict, stopped == 0, line, losses=times)


def fcm_memory(directory: Path, seed: int, pushes: int = 100_000) -> Result:
    """FCM: very many pushes, every twentieth refused for an unregistered token: none lost, memory flat."""
    with kafka(directory) as server, FcmDriver(directory, server.brokers) as driver:
        refuse = ("--fault", "prefix=dead:404 UNREGISTERED")
        provider = driver.simulator("--seed", str(seed), *refuse)
        driver.create_topics(TOPIC)
        for _ in range(20):
            driver.produce(TOPIC, pushes // 20 * 19 // 20, expected=DELIVERED)
            driver.produce(TOPIC, pushes // 20 // 20, prefix="dead", expected=REJECTED)
        daemon = driver.daemon(driver.settings(provider.port, provider.ca_file))
        samples: list[tuple[int, float]] = []
        took_s = timed(
            lambda: driver.run(timeout_s=600, look=lambda: samples.append((driver.ledger.settled, daemon.memory_mb())))
        )
        verdict = driver.verdict()
        stopped = daemon.stop()
        early = max((mb for settled, mb in samples if pushes * 0.1 < settled < pushes * 0.3), default=0.0)
        late = max((mb for settled, mb in samples if settled > pushes * 0.8), default=0.0)
        line = (
            f"{verdict}; memory {early:.1f} MB at 10-30 %, {late:.1f} MB at 80-100 %, "
            f"exit status {stopped}, {took_s:.0f} s"
        )
        return judged(driver, verdict, late < early + 8 and stopped == 0, line)


RUNS: dict[str, Callable[[Path, int], Result]] = {"fcm-kills": fcm_kills, "fcm-memory": fcm_memory}
