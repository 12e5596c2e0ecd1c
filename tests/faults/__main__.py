"""Breaks pusher at full size, and counts: `python -m tests.faults kills group`, or `all`; --help lists them.

Needs Java and Maven's copy of Kafka, as `make test` does. The exit status is 1 when a message was lost.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - gevent patches first
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.faults import (  # noqa: E402
    disk_run,
    fcm_provider_runs,
    fcm_runs,
    group_runs,
    output_runs,
    provider_runs,
    runs,
    xmpp_provider_runs,
    xmpp_runs,
)
from tests.faults.supervised_run import supervised  # noqa: E402

RUNS = {
    **runs.RUNS,
    **group_runs.RUNS,
    **output_runs.RUNS,
    **disk_run.RUNS,
    **fcm_runs.RUNS,
    **xmpp_runs.RUNS,
    **provider_runs.RUNS,
    **fcm_provider_runs.RUNS,
    **xmpp_provider_runs.RUNS,
    "supervised": supervised,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", choices=[*RUNS, "all"], metavar="RUN", help=f"{', '.join(RUNS)}, or all")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule of faults (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, and say where")
    arguments = parser.parse_args()
    names = RUNS if "all" in arguments.runs else arguments.runs
    bad = [name for name in names if not one(name, arguments.seed, keep=arguments.keep)]
    return 1 if bad else 0


def one(name: str, seed: int, *, keep: bool) -> bool:
    """A run in a directory of its own, and its report."""
    directory = Path(tempfile.mkdtemp(prefix=f"pusher-{name}-"))
    say(f"{name}: {RUNS[name].__doc__}")
    try:
        result = RUNS[name](directory, seed)
    finally:
        if keep:
            say(f"kept: {directory}")
        else:
            shutil.rmtree(directory)
    for event in result.events:
        say(f"  {event}")
    say(f"{name}, seed {seed}: {'good' if result.good else 'BAD'}: {result.line}\n")
    return result.good


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
