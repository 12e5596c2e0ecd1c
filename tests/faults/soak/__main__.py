"""One long run at a fixed rate with mild faults: `python -m tests.faults.soak --minutes 60 --rate 4000`.

A daemon of each command (`apns` with three apps, `gcm`, `start-feedback-listener`) runs against a Kafka, a PostgreSQL
and providers of its own. Every minute something goes wrong, drawn from a seed. Every few seconds memory, file
descriptors, greenlets, CPU time and latency are noted, a JSON line each, in the file that --samples names; `python -m
tests.faults.soak.chart` draws it. The exit status is 1 when a message was lost or a figure grew.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - gevent patches first
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from tests.faults.driver import CLIENTS  # noqa: E402
from tests.faults.soak.run import Soak  # noqa: E402
from tests.faults.soak.streams import Stream  # noqa: E402

#: Shares of the rate: three apps at Apple.
APPLE = {"game": 0.6, "puzzle": 0.3, "quiz": 0.1}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="(%(default)g)")
    parser.add_argument("--rate", type=float, default=2000, help="pushes/s to Apple (%(default)g)")
    parser.add_argument("--google-rate", type=float, default=50, help="messages/s to Google, XMPP (%(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (%(default)s)")
    parser.add_argument("--client", choices=CLIENTS, default=CLIENTS[0], help="of Kafka, of all daemons (%(default)s)")
    parser.add_argument("--broker-minutes", type=int, default=15, help="between restarts of Kafka (%(default)s)")
    parser.add_argument("--samples", type=Path, default=Path("soak.jsonl"), help="(%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, and say where")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="pusher-soak-"))
    streams = [Stream(app, "apns", arguments.rate * share) for app, share in APPLE.items()]
    streams.append(Stream("game", "gcm", arguments.google_rate))
    try:
        with arguments.samples.open("w") as samples:
            soak = Soak(
                directory,
                streams,
                samples,
                arguments.minutes,
                arguments.seed,
                arguments.broker_minutes,
                arguments.client,
            )
            return 0 if _until_told_to_stop(soak) else 1
    finally:
        if arguments.keep:
            sys.stdout.write(f"kept: {directory}\n")
        else:
            shutil.rmtree(directory)


def _until_told_to_stop(soak: Soak) -> bool:
    """Runs it in a greenlet that SIGTERM and SIGINT end in order, so that nothing is left behind."""
    running = gevent.spawn(soak.run)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, running.kill, block=False)
    return running.get() is True


if __name__ == "__main__":
    sys.exit(main())
