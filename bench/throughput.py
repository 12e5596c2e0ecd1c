"""What a push costs: real Kafka -> pusher -> a provider over TLS -> real Kafka, every feedback counted.

The provider of APNs and FCM is nginx, that of GCM (XMPP) the simulator. The messages wait in Kafka before pusher
starts. CPU time is pusher's alone, between its first and its last feedback. With --rate, latency is measured afterwards
on the same one. The exit status is 1 when a push has no feedback. `python -m bench` measures all services in turn.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from bench import topics
from bench.create_bench import messages
from bench.daemon import Profile
from bench.ground import Ground, Run, Stretch, Work, reference_s
from bench.services import RECOMMENDED, SERVICES, Provider, Service
from lab.nginx import Nginx


class Latency(NamedTuple):
    """Milliseconds, sorted: from Kafka's timestamp of a request to nginx's acceptance, and to that of its feedback."""

    #: None of a provider that does not note it.
    accepted: list[float]
    fed_back: list[float]


def latency(source: topics.Watcher, feedbacks: topics.Watcher, provider: Provider, service: Service) -> Latency:
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
    tokens = ((message.time_ms, message.members[service.feedback_token]) for message in feedbacks.read())
    fed_back = [float(time_ms - sent[token]) for time_ms, token in tokens if token in sent]
    return Latency(sorted(accepted), sorted(fed_back))


def percentile(values: list[float], share: float) -> float:
    """Of sorted values; nan for none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def shares_us(profile: Profile, stretch: Stretch) -> dict[str, float]:
    """CPU time a push of each part, the largest first."""
    total = max(sum(profile.parts.values()), 1)
    largest_first = sorted(profile.parts.items(), key=lambda item: -item[1])
    return {part: count / total * stretch.cpu_us for part, count in largest_first}


def report(stretch: Stretch, run: Run, reference: float) -> None:
    """Print the main figures."""
    print(f"pushes            {stretch.pushes:>10,} between the first and the last look, in {stretch.seconds:.1f} s")
    print(f"throughput        {stretch.rate_s:>10,.0f} pushes/s, beside Kafka, the provider and this bench")
    print(f"CPU               {stretch.cpu_us:>10.1f} us a push")
    print(f"peak memory       {run.daemons[0].memory_mb('VmHWM'):>10.1f} MB")
    print(f"reference loop    {reference * 1000:>10.0f} ms of CPU, Python {sys.version.split()[0]}")
    print("cores kept busy   " + ", ".join(f"{name} {share:.0%}" for name, share in stretch.busy().items()))


def report_profile(profile: Profile, stretch: Stretch) -> None:
    """Print the split of the CPU time by part, and the functions that took most."""
    total = max(sum(profile.parts.values()), 1)
    print(f"\n{total:,} samples     us a push   share")
    for part, used_us in shares_us(profile, stretch).items():
        print(f"{part:18}{used_us:>10.1f}  {used_us / stretch.cpu_us:>6.1%}")
    for function, count in list(profile.functions.items())[:15]:
        print(f"  {count / total * stretch.cpu_us:6.1f} us  {function}")


def report_latency(measured: Latency, rate_s: float) -> None:
    """Print median and 99th percentile."""
    print(f"\nlatency at {rate_s:,.0f}/s, from Kafka's timestamp      p50      p99      max   pushes")
    for name, values in (("accepted by the provider", measured.accepted), ("feedback written", measured.fed_back)):
        figures = "".join(f"{percentile(values, share):>9.1f}" for share in (0.5, 0.99, 1))
        print(f"  to {name:38}{figures} {len(values):>8,} (ms)")


def bench(arguments: argparse.Namespace, directory: Path, cleanup: contextlib.ExitStack) -> int:
    """Run the measurement in a directory; what has to be stopped goes to cleanup. Returns the exit status."""
    service = SERVICES[arguments.service]
    source, brokers = service.source(), (ground := Ground(directory, cleanup)).kafka.brokers
    provider = ground.started(service.provider(ground.fresh("provider"), log_arrivals=arguments.rate is not None))
    ground.create(source, service.feedbacks())
    topics.fill(brokers, source, messages(service.platform, arguments.pushes, seed=1))
    settings = RECOMMENDED[arguments.service] | dict(pair.split("=", 1) for pair in arguments.set)
    work = Work(service, provider, [source], settings=settings)
    run = cleanup.enter_context(Run(ground, work, profile=arguments.profile))
    print(f"first push        {run.first_push_s():>10.2f} s after the start")
    if arguments.profile:
        run.daemons[0].start_profile()
    before = run.look()
    run.await_pushes(arguments.pushes)
    stretch = Stretch(before, run.look())
    profile = run.daemons[0].end_profile() if arguments.profile else None
    report(stretch, run, reference_s())
    if profile is not None:
        report_profile(profile, stretch)
    ids = [message.members[service.id_member] for message in run.feedbacks.read()]
    if arguments.rate is not None:
        number = int(arguments.rate * arguments.seconds)
        requests = cleanup.enter_context(contextlib.closing(topics.Watcher(brokers, source)))
        topics.write(brokers, source, messages(service.platform, number, seed=2), rate_s=arguments.rate)
        run.await_pushes(arguments.pushes + number)
        report_latency(latency(requests, run.feedbacks, provider, service), arguments.rate)
    print(f"\nstopped in {run.stop():.1f} s")
    missing = arguments.pushes - len(set(ids))
    print(f"{len(ids):,} feedbacks, {len(set(ids)):,} distinct, {missing:,} missing")
    return int(missing != 0)


@contextlib.contextmanager
def workspace(*, keep: bool = False) -> Iterator[Path]:
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
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep logs and configuration, and say where")
    arguments = parser.parse_args()
    with workspace(keep=arguments.keep) as directory, contextlib.ExitStack() as cleanup:
        return bench(arguments, directory, cleanup)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}")
