"""How the cost of a push grows, with the window, the provider's latency, apps, partitions, size, errors and the rate.

    python -m bench.growth [--seconds 4] [--only window apps ...] [--redraw]

Writes bench/growth.json, the charts in docs/images and the tables of docs/performance.md. About five minutes.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import growth_report, topics
from bench.create_bench import messages
from bench.ground import Ground, Run, Work, reference_s
from bench.services import RECOMMENDED, SERVICES
from bench.throughput import latency, percentile, workspace
from lab.nginx import Nginx

DATA = Path(__file__).parent / "growth.json"
APNS = SERVICES["apns"]
WARM_UP_S = 1.0

Point = dict[str, float]


class Growth:
    """The ground and the points that are measured on it."""

    def __init__(self, ground: Ground, seconds: float) -> None:
        self.ground = ground
        self.seconds = seconds
        self.nginx = ground.started(Nginx(ground.fresh("nginx")))

    def backlog(self, kind: str, texts: list[str], number: int, *, partitions: int, app: str = "game") -> str:
        """A topic with so many messages, copies of these texts."""
        source = APNS.source(app, kind)
        self.ground.create(source, partitions=partitions)
        topics.fill(self.ground.kafka.brokers, source, texts, copies=max(1, number // len(texts)))
        return source

    def point(self, work: Work) -> Point:
        """Work off a backlog for a while."""
        reference = reference_s()
        with Run(self.ground, work) as run:
            run.first_push_s()
            time.sleep(WARM_UP_S)
            stretch = run.stretch(self.seconds)
            peak_mb = run.daemons[0].memory_mb("VmHWM")
            run.stop()
        busy = {f"{name}_busy": share for name, share in stretch.busy().items()}
        figures = {"rate_s": stretch.rate_s, "cpu_us": stretch.cpu_us, "peak_mb": peak_mb}
        return {**figures, **busy, "reference_ms": reference * 1000}

    def work(self, *sources: str, **settings: int) -> Work:
        """These topics, at a provider that answers at once."""
        return Work(APNS, self.nginx, sources, settings={**RECOMMENDED["apns"], **settings})


def plain(number: int) -> list[str]:
    """Ordinary messages."""
    return list(messages("apns", number, seed=1))


def window(growth: Growth) -> Iterator[Point]:
    """Requests in flight at once, at providers of several latencies."""
    source = growth.backlog("window", plain(100_000), 500_000, partitions=3)
    for latency_ms in (10, 50, 200):
        provider = growth.ground.started(Nginx(growth.ground.fresh("nginx"), latency_ms=latency_ms))
        for in_flight in (10, 30, 100, 300, 1000):
            work = growth.work(source, **{"apns.concurrentWorkers": in_flight})._replace(provider=provider)
            yield {"latency_ms": latency_ms, "window": in_flight, **growth.point(work)}


def apps(growth: Growth) -> Iterator[Point]:
    """Apps of one process, each with a topic of one partition, a lane and a link."""
    for number in (1, 10, 100):
        names = [f"game{number}x{n}" for n in range(number)]
        growth.ground.create(*map(APNS.feedbacks, names))
        texts = plain(max(1, 100_000 // number))
        sources = [growth.backlog("apps", texts, 200_000 // number, partitions=1, app=name) for name in names]
        yield {"apps": number, **growth.point(growth.work(*sources)._replace(apps=names))}


def partitions(growth: Growth) -> Iterator[Point]:
    """Partitions of one topic."""
    for number in (1, 10, 100):
        source = growth.backlog(f"partitions-{number}", plain(100_000), 200_000, partitions=number)
        yield {"partitions": number, **growth.point(growth.work(source))}


def size(growth: Growth) -> Iterator[Point]:
    """Octets of a message, padded in its alert."""
    for octets in (200, 1000, 4000):
        texts = [padded(text, octets) for text in plain(20_000)]
        source = growth.backlog(f"size-{octets}", texts, 160_000, partitions=3)
        yield {"octets": octets, **growth.point(growth.work(source))}


def padded(text: str, octets: int) -> str:
    """A message with so long an alert that it is as large as that, or as it was."""
    return text.replace("come play!", "come play!" + "!" * max(0, octets - len(text)), 1)


def errors(growth: Growth) -> Iterator[Point]:
    """Share of tokens that Apple refuses with status 410."""
    for percent in (0, 10, 50):
        texts = [refused(text) if n % 10 < percent // 10 else text for n, text in enumerate(plain(100_000))]
        source = growth.backlog(f"errors-{percent}", texts, 200_000, partitions=3)
        yield {"percent": percent, **growth.point(growth.work(source))}


def refused(text: str) -> str:
    """The same message to a token that nginx refuses."""
    return text.replace('"DeviceToken":"', '"DeviceToken":"dead', 1)


def rate(growth: Growth) -> Iterator[Point]:
    """Pushes a second that come in; nothing waits."""
    nginx = growth.ground.started(Nginx(growth.ground.fresh("nginx"), log_arrivals=True))
    for rate_s in (100, 1000, 3000):
        source = growth.backlog(f"rate-{rate_s}", plain(1), 0, partitions=3)
        work = growth.work(source)._replace(provider=nginx)
        yield {"offered_s": rate_s, **at_a_rate(growth, work, rate_s)}


def at_a_rate(growth: Growth, work: Work, rate_s: int) -> Point:
    """Latency and CPU time while so many requests a second come in."""
    brokers, number = growth.ground.kafka.brokers, int(rate_s * growth.seconds)
    reference = reference_s()
    with Run(growth.ground, work) as run, contextlib.closing(topics.Watcher(brokers, work.topics[0])) as requests:
        run.first_push_s()
        before = run.look()
        topics.write(brokers, work.topics[0], messages("apns", number, seed=rate_s), rate_s=rate_s)
        run.await_pushes(number + 1)
        used_s = run.look().pusher_s - before.pusher_s
        measured = latency(requests, run.feedbacks, work.provider, APNS).accepted
        run.stop()
    times = {"p50_ms": percentile(measured, 0.5), "p99_ms": percentile(measured, 0.99)}
    return {"cpu_us": used_s / number * 1e6, **times, "reference_ms": reference * 1000}


SERIES: dict[str, Callable[[Growth], Iterator[Point]]] = {
    "window": window,
    "apps": apps,
    "partitions": partitions,
    "size": size,
    "errors": errors,
    "rate": rate,
}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="of each point, default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES), metavar="SERIES")
    parser.add_argument("--redraw", action="store_true", help="measure nothing, draw what was measured")
    return parser.parse_args()


def main() -> None:
    """Measure and draw."""
    arguments = parsed()
    measured: dict[str, list[Point]] = json.loads(DATA.read_text()) if DATA.exists() else {}
    if not arguments.redraw:
        with workspace() as directory, contextlib.ExitStack() as cleanup:
            growth = Growth(Ground(directory, cleanup), arguments.seconds)
            growth.ground.create(APNS.feedbacks())
            for name in arguments.only:
                measured[name] = []
                for point in SERIES[name](growth):
                    measured[name].append({key: round(value, 3) for key, value in point.items()})
                    print(name, measured[name][-1], flush=True)
                DATA.write_text(json.dumps(measured, indent=1) + "\n")
    growth_report.write(measured)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}")
