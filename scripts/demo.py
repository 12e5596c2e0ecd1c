"""`make demo`: pusher at work on this machine alone, with simulated providers and the embedded broker.

Starts the simulators and the daemons as processes, enqueues push requests with a few bad tokens, expired and broken
ones among them, waits until each has an outcome, prints what became of them and stops everything it started. What the
daemons did is read where an operator would read it: in the feedback topics and in StatsD.
"""

from __future__ import annotations

import argparse
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


class Provider(NamedTuple):
    """A provider, the command and the app that send to it, and what a request for it looks like."""

    #: As `simulate` knows it.
    name: str
    #: `gcm` serves one app over XMPP and another one through FCM.
    command: str
    game: str
    simulator: list[str]
    #: The field that holds the device token, and how tokens of devices that are gone begin.
    token_field: str
    dead_token: str


PROVIDERS = (
    Provider(
        "apns",
        "apns",
        "game",
        [
            "--port",
            "APNS_PORT",
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
    Provider(
        "gcm",
        "gcm",
        "game",
        [
            "--port",
            "GCM_PORT",
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
    Provider(
        "fcm",
        "gcm",
        "arena",
        [
            "--port",
            "FCM_PORT",
            "--oauth-port",
            "OAUTH_PORT",
            "--tls-dir",
            ".demo",
            "--write-credentials",
            ".demo/account.json",
            "--fault",
            "prefix=dead:404 UNREGISTERED",
            "--fault",
            "503:0.02,retry-after=1,once",
        ],
        "to",
        "dead",
    ),
)


class Ports(NamedTuple):
    """Where the simulators listen, and where the daemons show their status pages."""

    apns: int = 8443
    gcm: int = 5235
    fcm: int = 2443
    oauth: int = 2444
    apns_page: int = 8081
    gcm_page: int = 8082

    def arguments(self, provider: Provider) -> list[str]:
        """The simulator's, with its ports."""
        ports = {f"{name.upper()}_PORT": str(port) for name, port in self._asdict().items()}
        return [ports.get(argument, argument) for argument in provider.simulator]

    def variables(self, command: str) -> dict[str, str]:
        """What a daemon must know of them."""
        return {
            "PUSHER_APNS_PORT": str(self.apns),
            "PUSHER_GCM_XMPP_PORT": str(self.gcm),
            "PUSHER_GCM_FCM_ENDPOINT": f"https://localhost:{self.fcm}",
            "PUSHER_ADMIN_PORT": str(getattr(self, f"{command}_page", 0)),
        }

    def taken(self) -> list[int]:
        """Those that another program has."""
        with ExitStack() as stack:
            found = []
            for port in self:
                listener = stack.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listener.bind(("127.0.0.1", port))
                except OSError:
                    found.append(port)
            return found


class StatsD(threading.Thread):
    """Adds up the counters that the daemons send."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def run(self) -> None:
        """Receives for ever."""
        while True:
            for line in self._socket.recv(65_535).decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind, tags = rest.split("|", 2)
                if kind == "c":
                    platform, game = (tags.partition(f"{tag}:")[2].partition(",")[0] for tag in ("platform", "game"))
                    self._counts[platform, game, name.removeprefix("push")] += int(value)

    def count(self, provider: Provider, name: str) -> int:
        """A counter's sum so far."""
        return self._counts[provider.command, provider.game, name]


def requests(provider: Provider) -> Iterator[str]:
    """The demo's push requests: most of them good."""
    draw = random.Random(2027)
    for number in range(NUMBER):
        token = f"{draw.getrandbits(256):064x}"
        request = {provider.token_field: token, "metadata": {"jobId": f"demo-{number}"}, "push_expiry": 0}
        if provider.command == "apns":
            request["Payload"] = {"aps": {"alert": f"Level {number} is waiting for you"}}
        else:
            request["notification"] = {"title": "Demo", "body": f"Level {number} is waiting for you"}
        if number % 100 == 7:
            request[provider.token_field] = provider.dead_token + token[4:]
        elif number % 100 == 42:
            request["push_expiry"] = 1
        elif number % 200 == 99:
            request[provider.token_field] = "no token at all"
        yield json.dumps(request) if number % 200 != 150 else '{"broken": '


@contextmanager
def process(name: str, command: list[str], statsd: StatsD, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command, its output in .demo/NAME.log, and ends it by SIGTERM."""
    environ = os.environ | {"PUSHER_STATS_STATSD_HOST": f"127.0.0.1:{statsd.port}"} | ports.variables(command[0])
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


def request_topic(provider: Provider) -> str:
    """Where the requests of a provider's app are."""
    return f"push-{provider.game}_{provider.command}-single"


def feedback_topic(provider: Provider) -> str:
    """Where the outcomes of a provider's app are."""
    return f"push-{provider.game}-{provider.command}-feedbacks"


def feedbacks(provider: Provider, number: int) -> list[dict[str, object]]:
    """That many feedbacks from the start of the topic."""
    if not number:
        return []
    lines = pusher("tail", feedback_topic(provider), "--from-start", "-n", str(number), "--config", CONFIG)
    return [json.loads(line) for line in lines.splitlines()]


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finished(provider: Provider, statsd: StatsD) -> int:
    """How many requests have an outcome."""
    return sum(statsd.count(provider, name) for name in ("ack", "failed", "expired", "invalid"))


def watch(provider: Provider, statsd: StatsD, daemon: subprocess.Popen[bytes]) -> None:
    """Shows progress until every request has an outcome."""
    deadline = time.monotonic() + PATIENCE_S
    with tqdm(total=NUMBER, desc=f"{provider.name} outcomes", unit="", disable=None) as bar:
        while finished(provider, statsd) < NUMBER:
            if daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"demo: {provider.name} did not finish, see {DIRECTORY}/{provider.command}.log")
            time.sleep(0.05)
            bar.update(finished(provider, statsd) - bar.n)


def is_delivered(feedback: dict[str, object]) -> bool:
    """Whether the provider accepted the push."""
    return feedback.get("Sent") is True or feedback.get("message_type") == "ack"


def is_rejected(feedback: dict[str, object]) -> bool:
    """The provider's own refusal, not a failure on the way."""
    return not is_delivered(feedback) and feedback.get("StatusCode") not in (0, 429, 500, 502, 503, 504)


def outcomes(provider: Provider, statsd: StatsD) -> tuple[dict[str, int], list[dict[str, object]]]:
    """How many pushes ended how, counted in the feedback topic and StatsD, and a sample of feedbacks."""
    fed_back = feedbacks(provider, statsd.count(provider, "ack") + statsd.count(provider, "failed"))
    delivered = [feedback for feedback in fed_back if is_delivered(feedback)]
    rejected = [feedback for feedback in fed_back if is_rejected(feedback)]
    counts = {
        "delivered": len(delivered),
        "rejected": len(rejected),
        "failed": len(fed_back) - len(delivered) - len(rejected),
        "expired": statsd.count(provider, "expired"),
        "invalid": statsd.count(provider, "invalid"),
    }
    return counts, delivered[:1] + rejected[:1]


@contextmanager
def started(
    name: str, command: list[str], words: str, statsd: StatsD, ports: Ports
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has printed these words."""
    with process(name, command, statsd, ports) as child:
        wait_for_line(name, words, child)
        yield child


def run(
    provider: Provider, daemon: subprocess.Popen[bytes], statsd: StatsD
) -> tuple[dict[str, int], list[dict[str, object]], float]:
    """One provider's demo: outcomes, sample feedbacks, CPU seconds."""
    before = cpu_s(daemon.pid)
    pusher("enqueue", "--force", request_topic(provider), "--config", CONFIG, feed="\n".join(requests(provider)) + "\n")
    watch(provider, statsd, daemon)
    used = cpu_s(daemon.pid) - before
    return *outcomes(provider, statsd), used


def run_all(statsd: StatsD, ports: Ports) -> dict[str, tuple[dict[str, int], list[dict[str, object]], float]]:
    """One provider after the other, by its name; each daemon runs for all of its apps."""
    with ExitStack() as stack:
        for provider in PROVIDERS:
            port = getattr(ports, provider.name)
            print(f"starting: pusher simulate {provider.name}, on port {port}", flush=True)
            command = ["simulate", provider.name, *ports.arguments(provider)]
            stack.enter_context(started(f"{provider.name}-simulator", command, "listening", statsd, ports))
        daemons = {}
        for name in dict.fromkeys(provider.command for provider in PROVIDERS):
            page = f"http://127.0.0.1:{ports.variables(name)['PUSHER_ADMIN_PORT']}/"
            print(f"starting: pusher {name} -p --config {CONFIG}, status page {page}", flush=True)
            daemon = started(name, [name, "-p", "--config", CONFIG], "started", statsd, ports)
            daemons[name] = stack.enter_context(daemon)
        results = {}
        for provider in PROVIDERS:
            topic = request_topic(provider)
            print(f"enqueuing {NUMBER:,} requests to {topic}; waiting for their outcomes", flush=True)
            results[provider.name] = run(provider, daemons[provider.command], statsd)
        print("stopping everything", flush=True)
        return results


def main() -> int:
    """Runs the demo; 1 when the outcomes do not add up, 2 when a port is taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=int, metavar="FIRST", help="use six ports from this one on")
    first = parser.parse_args().ports
    ports = Ports() if first is None else Ports(*range(first, first + len(Ports._fields)))
    taken = ports.taken()
    if taken:
        print(f"demo: port {taken[0]} is in use; make demo PORTS=18000 uses 18000 to 18005", file=sys.stderr)
        return 2
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    statsd = StatsD()
    statsd.start()
    print(f"{NUMBER:,} requests for each provider, simulated providers, embedded broker; logs in {DIRECTORY.name}/")
    results = run_all(statsd, ports)
    print(f"\n{'':12}" + "".join(f"{name:>10}" for name in results))
    print(f"{'consumed':12}" + "".join(f"{NUMBER:10}" for _ in results))
    for outcome in OUTCOMES:
        print(f"  {outcome:10}" + "".join(f"{counts[outcome]:10}" for counts, _, _ in results.values()))
    print(f"{'CPU us/push':12}" + "".join(f"{used / NUMBER * 1e6:10.0f}" for _, _, used in results.values()))
    for provider in PROVIDERS:
        print(f"\nfeedbacks of {provider.name} in {feedback_topic(provider)}, for example:")
        for sample in results[provider.name][1]:
            print(json.dumps(sample, separators=(",", ":")))
    sums = {name: sum(counts.values()) for name, (counts, _, _) in results.items()}
    if any(number != NUMBER for number in sums.values()):
        print(f"\nthe outcomes do not add up: {sums}")
        return 1
    print("\nevery request has exactly one outcome: consumed = delivered + rejected + failed + expired + invalid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
