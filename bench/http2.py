"""What a request costs the HTTP/2 engine: CPU of this process, sender and reader together, TLS included, no Kafka.

    python -m bench.http2 [--requests 100000] [--in-flight 300] [--body 200] [--runs 3] [--profile]

nginx answers every request with ":status 200" and its apns-id, over one connection. Times on a shared machine scatter
upwards: the minimum of the runs is the figure to compare.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - gevent patches first
import contextlib  # noqa: E402
import cProfile  # noqa: E402
import json  # noqa: E402
import pstats  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.queue import SimpleQueue  # noqa: E402

from lab.nginx import Nginx  # noqa: E402
from pusher.providers.http2 import End, Exchange, Fields, Origin, Pool, literal_field  # noqa: E402
from pusher.providers.tls import TlsTrust  # noqa: E402

ID = b"eabeae54-14a8-11e5-b60b-1697f925ec7b"
PATH = b"/3/device/740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad"
FIELDS = Fields(
    (b"authorization", b"bearer " + b"x" * 230),
    (b"apns-topic", b"com.example.game"),
    (b"apns-push-type", b"alert"),
)


def exercise(pool: Pool, answers: "SimpleQueue[list[Exchange]]", requests: int, body: bytes) -> None:
    """Send them all, as a service does: a sender greenlet, and a responder that reads lists of ended exchanges."""

    def send() -> None:
        sent = 0
        while sent < requests:
            count = min(pool.wait_for_room(10), 64, requests - sent)
            pool.send([Exchange(None, FIELDS, PATH, literal_field(b"apns-id", ID), body) for _ in range(count)])
            sent += count

    sender = gevent.spawn(send)
    answered = 0
    while answered < requests:
        for exchange in answers.get():
            if exchange.end is not End.RESPONSE or exchange.status != 200:
                sys.exit(f"unexpected: {exchange!r}")
            answered += 1
    sender.get()


def run(nginx: Nginx, requests: int, in_flight: int, body: bytes) -> tuple[float, float]:
    """CPU us a request, and requests a second, over one connection."""
    answers: SimpleQueue[list[Exchange]] = SimpleQueue()
    context = TlsTrust(str(nginx.certificate)).context
    pool = Pool(Origin("localhost", nginx.port), context, answers, max_in_flight=in_flight)
    pool.start()
    if not pool.wait_for_room(10):
        sys.exit(f"no link: {pool.state()}")
    cpu_s, clock_s = time.process_time(), time.monotonic()
    exercise(pool, answers, requests, body)
    cpu_s, clock_s = time.process_time() - cpu_s, time.monotonic() - clock_s
    pool.close(1)
    return cpu_s / requests * 1e6, requests / clock_s


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--in-flight", type=int, default=300)
    parser.add_argument("--body", type=int, default=200, help="octets")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the pairs of figures as JSON alone")
    parser.add_argument("--profile", action="store_true", help="show where the time goes; distorts the figures")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the figures."""
    options = parsed()
    profile = cProfile.Profile() if options.profile else contextlib.nullcontext()
    figures = []
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as cleanup:
        nginx = Nginx(Path(directory) / "nginx")
        cleanup.callback(nginx.stop)
        nginx.start()
        for _ in range(options.runs):
            with profile:
                figures.append(run(nginx, options.requests, options.in_flight, b"x" * options.body))
    if options.json:
        print(json.dumps(figures))
        return
    for cpu_us, rate_s in figures:
        print(f"{cpu_us:6.2f} us CPU a request, {rate_s:7.0f} requests/s")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"minimum {min(figures)[0]:.2f} us; peak memory {peak_mib:.1f} MiB")
    if isinstance(profile, cProfile.Profile):
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
