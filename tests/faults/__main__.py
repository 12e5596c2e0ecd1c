"""Breaks pusher at full size, and counts: `python -m tests.faults kills group`, or `all`; --help lists them.

Needs Java and Maven's copy of Kafka, as `make test` does. The exit status is 1 when anything was not as it must be.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - gevent patches first
import random  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.faults import (  # noqa: E402
    cluster_runs,
    disk_run,
    fcm_provider_runs,
    fcm_quota_runs,
    fcm_runs,
    group_runs,
    limits_run,
    listener_failover_run,
    listener_run,
    outage_run,
    output_runs,
    provider_runs,
    rack_run,
    runs,
    xmpp_provider_runs,
    xmpp_runs,
)
from tests.faults.driver import CLIENTS, Driver  # noqa: E402
from tests.faults.report import Row, append, row, table  # noqa: E402
from tests.faults.result import failed  # noqa: E402
from tests.faults.supervised_run import supervised  # noqa: E402

RUNS = {
    **runs.RUNS,
    **group_runs.RUNS,
    **cluster_runs.RUNS,
    **rack_run.RUNS,
    **output_runs.RUNS,
    **disk_run.RUNS,
    **limits_run.RUNS,
    **listener_run.RUNS,
    **listener_failover_run.RUNS,
    **fcm_runs.RUNS,
    **fcm_quota_runs.RUNS,
    **xmpp_runs.RUNS,
    **provider_runs.RUNS,
    **outage_run.RUNS,
    **fcm_provider_runs.RUNS,
    **xmpp_provider_runs.RUNS,
    "supervised": supervised,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", choices=[*RUNS, "all"], metavar="RUN", help=f"{', '.join(RUNS)}, or all")
    parser.add_argument("--seed", type=int, help="of the schedule of faults; drawn if it is not given")
    parser.add_argument("--client", choices=CLIENTS, default=Driver.client)
    parser.add_argument("--keep", action="store_true", help="keep logs and data, and say where")
    parser.add_argument("--results", type=Path, metavar="FILE", help="append a line for each run")
    arguments = parser.parse_args()
    Driver.client = arguments.client
    names = RUNS if "all" in arguments.runs else arguments.runs
    seed = random.randrange(10_000) if arguments.seed is None else arguments.seed
    rows = []
    for name in names:
        rows.append(one(name, seed, keep=arguments.keep))
        if arguments.results:
            append(arguments.results, rows[-1])
    say(table(rows))
    bad = [row.run for row in rows if not row.good]
    say(f"{len(rows)} runs, seed {seed}: " + (f"BAD: {' '.join(bad)}" if bad else "all good"))
    return 1 if bad else 0


def one(name: str, seed: int, *, keep: bool) -> Row:
    """A run in a directory of its own, and its report. One that fails on the way is bad too."""
    directory = Path(tempfile.mkdtemp(prefix=f"pusher-{name}-"))
    say(f"{name}: {RUNS[name].__doc__}")
    try:
        result = RUNS[name](directory, seed)
    except Exception:  # noqa: BLE001 - the others are still run
        result = failed(traceback.format_exc())
    finally:
        if keep:
            say(f"kept: {directory}")
        else:
            shutil.rmtree(directory)
    for event in result.events:
        say(f"  {event}")
    say(f"{name}, seed {seed}: {'good' if result.good else 'BAD'}: {result.line}\n")
    return row(name, RUNS[name].__doc__ or "", Driver.client, seed, result)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
