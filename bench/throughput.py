"""What a push costs: real Kafka -> pusher -> a provider over TLS -> real Kafka, every feedback counted.

The provider of APNs and FCM is nginx, that of GCM (XMPP) the simulator.

The messages wait in Kafka before pusher starts. CPU time is pusher's alone, between its first and its last feedback, so
that the other processes on the machine disturb it little. With --rate, latency is measured afterwards on the same one.
The exit status is 1 when a push has no feedback.
"""

import argparse
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bench import topics
from bench.create_bench import messages
from bench.daemon import Daemon, Profile
from bench.gcm_simulator import GcmSimulator
from bench.nginx import Nginx, private_key_pem
from scripts.kafka.server import KafkaServer

SOURCE = "push-game_{platform}-single"
FEEDBACKS = "push-game-{platform}-feedbacks"

#: s without a new feedback after which the run has failed
PATIENCE_S = 30


class Stretch(NamedTuple):
    """What was seen between two looks at the daemon."""

    pushes: int
    seconds: float
    cpu_s: float


class Latency(NamedTuple):
    """Milliseconds, sorted: from Kafka's timestamp of a request to nginx's acceptance, and to that of its feedback."""

    #: None of a provider that does not note it.
    accepted: list[float]
    fed_back: list[float]


class Service(NamedTuple):
    """A command of pusher, who plays its provider, and what its settings and feedbacks look like."""

    #: The command, which is the platform in names of topics too.
    platform: str
    #: From its directory, and whether it notes when each push arrived.
    provider: Callable[[Path, bool], Nginx | GcmSimulator]
    settings: Callable[[Nginx | GcmSimulator, Path], dict[str, Any]]
    #: Members of a feedback and of a request.
    id_member: str
    feedback_token: str
    request_token: str


def apns_settings(nginx: Nginx | GcmSimulator, directory: Path) -> dict[str, Any]:
    """Settings of the app "game" at Apple, played by nginx."""
    key = directory / "authkey.p8"
    key.write_bytes(private_key_pem(ec.generate_private_key(ec.SECP256R1())))
    credentials = {"authKeyPath": str(key), "keyID": "BENCH12345", "teamID": "BENCHTEAM1", "topic": "com.example.game"}
    return {
        "apns": {
            "apps": "game",
            "host": "localhost",
            "port": nginx.port,
            "caFile": str(nginx.certificate),
            "concurrentWorkers": 300,
            "certs": {"game": credentials},
        }
    }


def fcm_settings(nginx: Nginx | GcmSimulator, directory: Path) -> dict[str, Any]:
    """Settings of the app "game" at Google's FCM, played by nginx."""
    account = {
        "type": "service_account",
        "project_id": "bench",
        "client_email": "pusher@bench.iam.gserviceaccount.com",
        "private_key": private_key_pem(rsa.generate_private_key(65_537, 2048)).decode(),
        "token_uri": f"https://localhost:{nginx.port}/token",
    }
    file = directory / "account.json"
    file.write_text(json.dumps(account))
    fcm = {"endpoint": f"https://localhost:{nginx.port}", "caFile": str(nginx.certificate)}
    return {"gcm": {"apps": "game", "fcm": fcm, "firebaseCredentials": {"game": str(file)}}}


def gcm_settings(simulator: Nginx | GcmSimulator, _: Path) -> dict[str, Any]:
    """Settings of the app "game" at Google, played by the simulator."""
    return {
        "gcm": {
            "apps": "game",
            "xmpp": {"host": "localhost", "port": simulator.port, "caFile": str(simulator.certificate)},
            "certs": {"game": {"apiKey": "key", "senderID": "1234567890"}},
        }
    }


SERVICES = {
    "apns": Service(
        "apns",
        lambda directory, log_arrivals: Nginx(directory, log_arrivals=log_arrivals),
        apns_settings,
        "ApnsID",
        "DeviceToken",
        "DeviceToken",
    ),
    "fcm": Service(
        "gcm",
        lambda directory, log_arrivals: Nginx(directory, log_arrivals=log_arrivals),
        fcm_settings,
        "message_id",
        "from",
        "to",
    ),
    "gcm": Service("gcm", lambda directory, _: GcmSimulator(directory), gcm_settings, "message_id", "from", "to"),
}


def kafka_settings(brokers: str, platform: str, statsd_port: int) -> dict[str, Any]:
    """Settings of both ends and of the statistics."""
    return {
        "queue": {
            "brokers": brokers,
            "topics": [SOURCE.format(platform=platform)],
            "group": "bench",
            "offsetResetStrategy": "earliest",
        },
        "feedback": {"reporters": ["kafka"], "kafka": {"brokers": brokers}},
        "stats": {"reporters": ["statsd"], "statsd": {"host": f"127.0.0.1:{statsd_port}", "prefix": "bench"}},
        "admin": {"port": 0},
    }


def reference_s() -> float:
    """CPU time of a fixed piece of Python, the best of three: compares machines and interpreters."""
    times = []
    for _ in range(3):
        began = time.process_time()
        counts: dict[str, int] = {}
        for number in range(1_000_000):
            key = f"{number % 1009:x}"
            counts[key] = counts.get(key, 0) + len(key)
        times.append(time.process_time() - began)
    return min(times)


def first_feedback(daemon: Daemon, feedbacks: topics.Watcher) -> None:
    """Wait until the daemon works; connecting and joining the group are not part of the measurement."""
    deadline = time.monotonic() + PATIENCE_S
    while feedbacks.count() == 0:
        daemon.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"no feedback in {PATIENCE_S} s; {daemon.last_words()}")
        time.sleep(0.02)


def wait_for(number: int, daemon: Daemon, feedbacks: topics.Watcher) -> int:
    """Wait for that many feedbacks, or until none came for PATIENCE_S. Returns how many there are."""
    seen, changed = feedbacks.count(), time.monotonic()
    while seen < number and time.monotonic() - changed < PATIENCE_S:
        daemon.check()
        time.sleep(0.05)
        count = feedbacks.count()
        if count != seen:
            seen, changed = count, time.monotonic()
    return seen


def measure(number: int, daemon: Daemon, feedbacks: topics.Watcher) -> Stretch:
    """Watch the daemon from its first feedback to its last."""
    before, began, cpu_s = feedbacks.count(), time.monotonic(), daemon.cpu_s()
    after = wait_for(number, daemon, feedbacks)
    return Stretch(after - before, time.monotonic() - began, daemon.cpu_s() - cpu_s)


def latency(
    source: topics.Watcher, feedbacks: topics.Watcher, provider: Nginx | GcmSimulator, service: Service
) -> Latency:
    """How long each push of a stretch took; its device token tells which is which."""
    sent = {message.members[service.request_token]: message.time_ms for message in source.read()}
    accepted = []
    if isinstance(provider, Nginx):
        time.sleep(1.5)  # nginx writes its log once a second
        for line in provider.arrivals.read_text().splitlines():
            time_s, path = line.split()
            token = path.rpartition("/")[2]
            if token in sent:
                accepted.append(float(time_s) * 1000 - sent[token])
    fed_back = [float(message.time_ms - sent[message.members[service.feedback_token]]) for message in feedbacks.read()]
    return Latency(sorted(accepted), sorted(fed_back))


def percentile(values: list[float], share: float) -> float:
    """Of sorted values; nan for none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def report(stretch: Stretch, daemon: Daemon, reference: float) -> None:
    """Print the main figures."""
    pushes = max(stretch.pushes, 1)
    print(f"pushes            {stretch.pushes:>10,} between the first and the last look, in {stretch.seconds:.1f} s")
    rate = stretch.pushes / stretch.seconds
    print(f"throughput        {rate:>10,.0f} pushes/s, beside Kafka, the provider and this bench")
    print(f"CPU               {stretch.cpu_s / pushes * 1e6:>10.1f} us a push")
    print(f"peak memory       {daemon.peak_memory_mb():>10.1f} MB")
    print(f"reference loop    {reference * 1000:>10.0f} ms of CPU, Python {sys.version.split()[0]}")


def report_profile(profile: Profile, stretch: Stretch) -> None:
    """Print the split of the CPU time by part, and the functions that took most."""
    total = max(sum(profile.parts.values()), 1)
    per_push_us = stretch.cpu_s / max(stretch.pushes, 1) * 1e6
    print(f"\n{total:,} samples     us a push   share")
    for part, count in sorted(profile.parts.items(), key=lambda item: -item[1]):
        print(f"{part:18}{count / total * per_push_us:>10.1f}  {count / total:>6.1%}")
    for function, count in list(profile.functions.items())[:15]:
        print(f"  {count / total * per_push_us:6.1f} us  {function}")


def report_latency(measured: Latency, rate_s: float) -> None:
    """Print median and 99th percentile."""
    print(f"\nlatency at {rate_s:,.0f}/s, from Kafka's timestamp      p50      p99      max   pushes")
    for name, values in (("accepted by the provider", measured.accepted), ("feedback written", measured.fed_back)):
        figures = "".join(f"{percentile(values, share):>9.1f}" for share in (0.5, 0.99, 1))
        print(f"  to {name:38}{figures} {len(values):>8,} (ms)")


def bench(arguments: argparse.Namespace, directory: Path, cleanup: contextlib.ExitStack) -> int:
    """Run the measurement in a directory; what has to be stopped goes to cleanup. Returns the exit status."""
    service = SERVICES[arguments.service]
    source, feedback_topic = (name.format(platform=service.platform) for name in (SOURCE, FEEDBACKS))
    kafka = KafkaServer(directory / "kafka")
    cleanup.callback(kafka.stop)
    kafka.start()
    provider = service.provider(directory / "provider", arguments.rate is not None)
    cleanup.callback(provider.stop)
    provider.start()
    statsd = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    statsd.bind(("127.0.0.1", 0))
    topics.create(kafka.brokers, (source, feedback_topic))
    topics.write(kafka.brokers, source, messages(service.platform, arguments.pushes, seed=1))
    feedbacks = cleanup.enter_context(contextlib.closing(topics.Watcher(kafka.brokers, feedback_topic)))

    all_settings = service.settings(provider, directory) | kafka_settings(
        kafka.brokers, service.platform, statsd.getsockname()[1]
    )
    daemon = Daemon(directory, service.platform, all_settings, profile=arguments.profile)
    cleanup.callback(daemon.stop)
    first_feedback(daemon, feedbacks)
    if arguments.profile:
        daemon.start_profile()
    stretch = measure(arguments.pushes, daemon, feedbacks)
    profile = daemon.end_profile() if arguments.profile else None
    report(stretch, daemon, reference_s())
    if profile is not None:
        report_profile(profile, stretch)
    ids = [message.members[service.id_member] for message in feedbacks.read()]
    if arguments.rate is not None:
        number = int(arguments.rate * arguments.seconds)
        requests = cleanup.enter_context(contextlib.closing(topics.Watcher(kafka.brokers, source)))
        topics.write(kafka.brokers, source, messages(service.platform, number, seed=2), rate_s=arguments.rate)
        wait_for(arguments.pushes + number, daemon, feedbacks)
        report_latency(latency(requests, feedbacks, provider, service), arguments.rate)
    status, seconds = daemon.stop()
    print(f"\nstopped in {seconds:.1f} s with status {status}")
    missing = arguments.pushes - len(set(ids))
    print(f"{len(ids):,} feedbacks, {len(set(ids)):,} distinct, {missing:,} missing")
    return int(missing != 0 or status != 0)


@contextlib.contextmanager
def workspace(keep: bool) -> Iterator[Path]:
    """A directory for the run, deleted afterwards unless it is to be kept."""
    directory = Path(tempfile.mkdtemp(prefix="pusher-bench-"))
    try:
        yield directory
    finally:
        if keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument("--pushes", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--rate", type=float, help="pushes a second; measures latency after the throughput")
    parser.add_argument("--seconds", type=float, default=20, help="of --rate, default: %(default)s")
    parser.add_argument("--profile", action="store_true", help="split the CPU time by part (itself costs a little)")
    parser.add_argument("--keep", action="store_true", help="keep logs and configuration, and say where")
    arguments = parser.parse_args()
    with workspace(arguments.keep) as directory, contextlib.ExitStack() as cleanup:
        return bench(arguments, directory, cleanup)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}")
