"""What the commands `simulate apns`, `simulate gcm` and `simulate fcm` share: records, signals, the line when ready."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.event import Event

from pusher.sim import admin
from pusher.sim.simulator import Simulator


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of all simulators."""
    group = parser.add_argument_group("faults and records")
    group.add_argument(
        "--fault", action="append", default=[], metavar="TEXT", help="play this fault, see below; may be repeated"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the random generator (0)")
    group.add_argument("--ledger", metavar="FILE", help="at the end, write the received requests as JSON")
    group.add_argument(
        "--ledger-limit", type=int, default=100_000, metavar="N", help="maximum requests in the ledger (%(default)s)"
    )
    group.add_argument("--summary-every", type=float, metavar="S", help="print the counts every S seconds")
    group.add_argument(
        "--admin-port", type=int, metavar="PORT", help="port for GET /counts, GET /ledger and POST /ORDER"
    )


def run(name: str, address: str, make: Callable[[], Simulator], args: argparse.Namespace) -> int:
    """Runs a simulator until SIGINT or SIGTERM; waits. Returns the exit status.

    `address` is the form in which its address is printed, from {host} and {port}.
    """
    try:
        simulator = make()
        simulator.start()
    except (OSError, ValueError) as error:
        print(f"{name} simulator: {error}", file=sys.stderr)  # noqa: T201  # a command speaks to its terminal
        return 1
    where = address.format(host=args.host, port=simulator.port)
    endpoint = None if args.admin_port is None else admin.Admin(simulator, args.host, args.admin_port)
    say(f"{name} simulator listening on {where}  ca: {simulator.ca_file}")
    if endpoint is not None:
        say(f"{name} simulator admin on http://{args.host}:{endpoint.start()}")
    wait_for_signal(args.summary_every, lambda: say(json.dumps(simulator.counts())))
    if endpoint is not None:
        endpoint.stop()
    simulator.close()
    if args.ledger:
        Path(args.ledger).write_text(json.dumps(simulator.report()))
    return 0


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)  # noqa: T201  # a command speaks to its terminal


def wait_for_signal(every_s: float | None, do: Callable[[], None]) -> None:
    """Waits for SIGINT or SIGTERM; meanwhile calls do() every so many seconds (None: never)."""
    stop = Event()
    handlers = [gevent.signal_handler(number, stop.set) for number in (signal.SIGINT, signal.SIGTERM)]
    while not stop.wait(every_s):
        do()
    for handler in handlers:
        handler.cancel()
