"""Measures all that has a goal, prints goal and measured side by side, and writes bench/results.md.

Real Kafka, real PostgreSQL, nginx as Apple and FCM, the simulator as Google's XMPP service, all started here and
stopped in the end. The measurements take turns, each beside the reference loop, so that drift of the machine is seen.
"""

import argparse
import contextlib
import shlex
import sys
import time
from pathlib import Path

from bench.document import markdown
from bench.goals import GOALS
from bench.ground import Ground, reference_s
from bench.measurements import FULL, MEASUREMENTS, ONCE, PROFILED, QUICK, Bench
from bench.results import Results, document, goal_table, missed
from bench.throughput import workspace

OUTPUT = Path(__file__).parent / "results.md"


def take_turns(bench: Bench, results: Results, names: list[str], repeats: int) -> None:
    """Run every measurement so many times."""
    for repeat in range(repeats):
        bench.repeat = repeat
        for name in names:
            if repeat and name in ONCE:
                continue
            before, began = reference_s(), time.monotonic()
            figures = MEASUREMENTS[name](bench)
            results.add(name, (before + reference_s()) / 2, figures)
            print(line(results, name, time.monotonic() - began), flush=True)


def line(results: Results, name: str, seconds: float) -> str:
    """The last values of a measurement's goals."""
    goals = [goal for goal in GOALS if goal.figure.startswith(f"{name}.")]
    figures = (f"{goal.figure.partition('.')[2]} {goal.shown(results.values[goal.figure][-1])}" for goal in goals)
    return f"{name:10} reference {results.references_ms[name][-1]:.0f} ms, {', '.join(figures)}  ({seconds:.0f} s)"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat of short measurements, a small backlog")
    parser.add_argument("--repeats", type=int, help="default: 3, quick 1")
    parser.add_argument("--backlog", type=int, help="messages that wait for Apple, default: 5,000,000 (1.2 GB of disk)")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--no-profile", action="store_true", help="do not split the CPU time by part")
    parser.add_argument("--output", type=Path, help="default: bench/results.md, nothing with --quick or --only")
    return parser.parse_args()


def main() -> int:
    """Measure. The exit status is 1 when a goal is missed."""
    arguments = parsed()
    extent = QUICK if arguments.quick else FULL
    extent = extent._replace(backlog=arguments.backlog or extent.backlog)
    names = arguments.only or list(MEASUREMENTS)
    results = Results(f"python -m bench {shlex.join(sys.argv[1:])}".strip(), extent.backlog)
    with workspace() as directory, contextlib.ExitStack() as cleanup:
        bench = Bench(Ground(directory, cleanup), extent, cleanup)
        take_turns(bench, results, names, arguments.repeats or (1 if arguments.quick else 3))
        results.busy = bench.busy
        for service in () if arguments.no_profile else [name for name in PROFILED if name in names]:
            results.profiles[service] = bench.profile(service)
    text = document(results)
    print(text if arguments.output is None and (arguments.quick or arguments.only) else markdown(goal_table(results)))
    output = arguments.output or (None if arguments.quick or arguments.only else OUTPUT)
    if output is not None:
        output.write_text(text)
        print(f"written: {output}")
    return int(bool(missed(results)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}")
