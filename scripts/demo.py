"""`make demo`: pusher at work on this machine alone, with simulated providers and the embedded broker.

Starts the simulators and the daemons as processes, enqueues push requests with a few bad tokens, expired and broken
ones among them, waits until each has an outcome, prints what became of them and stops everything it started. What the
daemons did is read where an operator would read it: in the feedback topics and in StatsD.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
DIRECTORY = ROOT / ".demo"
CONFIG = "config/demo.yaml"
NUMBER = 2_000
PATIENCE_S = 60.0
OUTCOMES = ("delivered", "rejected", "failed", "expired", "invalid")
PUSHER = [sys.executable, "pusher.py"]


class Platform(NamedTuple):
    """A daemon of the demo, the provider that it talks to, and a request for it."""

    name: str
    simulator: list[str]
    #: The field that holds the device token, and how tokens of devices that are gone begin.
    token_field: str
    dead_token: str


PLATFORMS = (
    Platform(
        "apns",
        [
            "--port",
            "8443",
            "--tls-dir",
            ".demo",
            "--write-key",
            ".demo/authkey.p8",
            "--topic",
            "com.example.game",
            "--fault",
            "prefix=dead:410 Unregistered",
            "--fault",
            "503:0.02,retry-after=1,once",
        ],
        "DeviceToken",
        "dead",
    ),
    Platform(
        "gcm",
        [
            "--port",
            "5235",
            "--tls-dir",
            ".demo",
            "--account",
            "1234567890:demo-key",
            "--fault",
            "prefix=dead:nack DEVICE_UNREGISTERED",
            "--fault",
            "nack SERVICE_UNAVAILABLE:0.02,once",
            "--fault",
            "drain:1/700,once",
        ],
        "to",
        "dead",
    ),
)


class StatsD(threading.Thread):
    """Adds up the counters that the daemons send."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._counts: Counter[tuple[str, str]] = Counter()

    def run(self) -> None:
        """Receives for ever."""
        while True:
            for line in self._socket.recv(65_535).decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind, tags = rest.split("|", 2)
                if kind == "c":
                    platform = tags.partition("platform:")[2].partition(",")[0]
                    self._counts[platform, name.removeprefix("push")] += int(value)

    def count(self, platform: str, name: str) -> int:
        """A counter's sum so far."""
        return self._counts[platform, name]


def requests(platform: Platform) -> Iterator[str]:
    """The demo's push requests: most of them good."""
    draw = random.Random(2027)
    for number in range(NUMBER):
        token = f"{draw.getrandbits(256):064x}"
        request = {platform.token_field: token, "metadata": {"jobId": f"demo-{number}"}, "push_expiry": 0}
        if platform.name == "apns":
            request["Payload"] = {"aps": {"alert": f"Level {number} is waiting for you"}}
        else:
            request["notification"] = {"title": "Demo", "body": f"Level {number} is waiting for you"}
        if number % 100 == 7:
            request[platform.token_field] = platform.dead_token + token[4:]
        elif number % 100 == 42:
            request["push_expiry"] = 1
        elif number % 200 == 99:
            request[platform.token_field] = "no token at all"
        yield json.dumps(request) if number % 200 != 150 else '{"broken": '


@contextmanager
def process(name: str, command: list[str], statsd: StatsD) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command, its output in .demo/NAME.log, and ends it by SIGTERM."""
    environ = os.environ | {"PUSHER_STATS_STATSD_HOST": f"127.0.0.1:{statsd.port}"}
    with (DIRECTORY / f"{name}.log").open("wb") as output:
        child = subprocess.Popen([*PUSHER, *command], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environ)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()


def wait_for_line(name: str, words: str, child: subprocess.Popen[bytes]) -> None:
    """Waits until a process has printed these words."""
    deadline = time.monotonic() + PATIENCE_S
    log = DIRECTORY / f"{name}.log"
    while words not in log.read_text():
        if child.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"demo: {name} did not start:\n{log.read_text()}")
        time.sleep(0.05)


def pusher(*arguments: str, feed: str | None = None) -> str:
    """Runs a short command and returns what it printed."""
    done = subprocess.run([*PUSHER, *arguments], cwd=ROOT, input=feed, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"demo: pusher {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def feedbacks(platform: Platform, number: int) -> list[dict[str, object]]:
    """That many feedbacks from the start of the topic."""
    if not number:
        return []
    lines = pusher(
        "tail", f"push-game-{platform.name}-feedbacks", "--from-start", "-n", str(number), "--config", CONFIG
    )
    return [json.loads(line) for line in lines.splitlines()]


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finished(platform: Platform, statsd: StatsD) -> int:
    """How many requests have an outcome."""
    return sum(statsd.count(platform.name, name) for name in ("ack", "failed", "expired", "invalid"))


def watch(platform: Platform, statsd: StatsD, daemon: subprocess.Popen[bytes]) -> None:
    """Shows progress until every request has an outcome."""
    deadline = time.monotonic() + PATIENCE_S
    with tqdm(total=NUMBER, desc=f"{platform.name} outcomes", unit="", disable=None) as bar:
        while finished(platform, statsd) < NUMBER:
            if daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"demo: {platform.name} did not finish, see {DIRECTORY}/{platform.name}.log")
            time.sleep(0.05)
            bar.update(finished(platform, statsd) - bar.n)


def is_delivered(feedback: dict[str, object]) -> bool:
    """Whether the provider accepted the push."""
    return feedback.get("Sent") is True or feedback.get("message_type") == "ack"


def is_rejected(feedback: dict[str, object]) -> bool:
    """The provider's own refusal, not a failure on the way."""
    return not is_delivered(feedback) and feedback.get("StatusCode") not in (0, 429, 500, 502, 503, 504)


def outcomes(platform: Platform, statsd: StatsD) -> tuple[dict[str, int], list[dict[str, object]]]:
    """How many pushes ended how, counted in the feedback topic and StatsD, and a sample of feedbacks."""
    fed_back = feedbacks(platform, statsd.count(platform.name, "ack") + statsd.count(platform.name, "failed"))
    delivered = [feedback for feedback in fed_back if is_delivered(feedback)]
    rejected = [feedback for feedback in fed_back if is_rejected(feedback)]
    counts = {
        "delivered": len(delivered),
        "rejected": len(rejected),
        "failed": len(fed_back) - len(delivered) - len(rejected),
        "expired": statsd.count(platform.name, "expired"),
        "invalid": statsd.count(platform.name, "invalid"),
    }
    return counts, delivered[:1] + rejected[:1]


def run(platform: Platform, statsd: StatsD) -> tuple[dict[str, int], list[dict[str, object]], float]:
    """One platform's demo: outcomes, sample feedbacks, CPU seconds."""
    topic = f"push-game_{platform.name}-single"
    with ExitStack() as stack:
        simulator_name = f"{platform.name}-simulator"
        simulator = stack.enter_context(
            process(simulator_name, ["simulate", platform.name, *platform.simulator], statsd)
        )
        wait_for_line(simulator_name, "listening", simulator)
        daemon = stack.enter_context(process(platform.name, [platform.name, "-p", "--config", CONFIG], statsd))
        wait_for_line(platform.name, "started", daemon)
        before = cpu_s(daemon.pid)
        pusher("enqueue", topic, "--config", CONFIG, feed="\n".join(requests(platform)) + "\n")
        watch(platform, statsd, daemon)
        used = cpu_s(daemon.pid) - before
    return *outcomes(platform, statsd), used


def main() -> int:
    """Runs the demo; 1 when the outcomes do not add up."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    statsd = StatsD()
    statsd.start()
    print(f"{NUMBER:,} push requests a platform, simulated providers, the embedded broker; logs in {DIRECTORY.name}/")
    results = {platform.name: run(platform, statsd) for platform in PLATFORMS}
    print(f"\n{'':12}" + "".join(f"{name:>10}" for name in results))
    print(f"{'consumed':12}" + "".join(f"{NUMBER:10}" for _ in results))
    for outcome in OUTCOMES:
        print(f"  {outcome:10}" + "".join(f"{counts[outcome]:10}" for counts, _, _ in results.values()))
    print(f"{'CPU us/push':12}" + "".join(f"{used / NUMBER * 1e6:10.0f}" for _, _, used in results.values()))
    for name, (_, samples, _) in results.items():
        print(f"\nfeedbacks in push-game-{name}-feedbacks, for example:")
        for sample in samples:
            print(json.dumps(sample, separators=(",", ":")))
    sums = {name: sum(counts.values()) for name, (counts, _, _) in results.items()}
    if any(number != NUMBER for number in sums.values()):
        print(f"\nthe outcomes do not add up: {sums}")
        return 1
    print("\nevery request has exactly one outcome: consumed = delivered + rejected + failed + expired + invalid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
