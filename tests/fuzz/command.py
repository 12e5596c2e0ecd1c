"""The command line of the fuzzers. Atheris is imported only where it runs."""

from __future__ import annotations

import argparse
import logging
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

#: Where inputs grow and crashes are put; not under version control.
WORK = Path(".fuzz")
#: An input that takes longer hangs.
LIMIT_S = 30
MEMORY_MB = 1_024


def main() -> None:
    """Ends the process with 0, or 1 when a target found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="a target, `all`, or `list`")
    parser.add_argument("inputs", nargs="*", type=Path, help="files to run through the target, instead of fuzzing")
    parser.add_argument("--seconds", type=int, default=60, help="of fuzzing, with `all` together")
    parser.add_argument(
        "--minimise", action="store_true", help="take over what grew into the corpus, instead of fuzzing"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's choices; 0: another each time")
    arguments = parser.parse_args()
    if arguments.target not in ("all", "list"):
        if arguments.inputs:
            _run(arguments.target, arguments.inputs)
        elif arguments.minimise:
            _minimise(arguments.target)
        else:
            _fuzz(arguments.target, arguments.seconds, arguments.seed)
        return
    from tests.fuzz.targets import TARGETS

    if arguments.target == "list":
        for name, target in TARGETS.items():
            print(f"{name:16} weight {target.weight}: {', '.join(target.modules)}")
        return
    shares = {name: max(1, arguments.seconds * target.weight // _weights()) for name, target in TARGETS.items()}
    options = ["--minimise"] if arguments.minimise else []
    failed = [name for name, seconds in shares.items() if not _run_apart(name, seconds, options)]
    sys.exit(f"faults found by: {', '.join(failed)}; see {WORK}/crashes" if failed else 0)


def _weights() -> int:
    from tests.fuzz.targets import TARGETS

    return sum(target.weight for target in TARGETS.values())


def _run_apart(name: str, seconds: int, options: Sequence[str]) -> bool:
    """A target in a process of its own; one line of figures. False when it found a fault."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), *options]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    log = WORK / f"{name}.log"
    WORK.mkdir(exist_ok=True)
    log.write_text(ended.stdout)
    if options:
        print(ended.stdout.strip(), flush=True)
        return ended.returncode == 0
    executions = re.findall(r"number_of_executed_units: (\d+)", ended.stdout)
    covered = re.findall(r"cov: (\d+)", ended.stdout)
    verdict = "no fault" if ended.returncode == 0 else f"FAULT, see {log}"
    print(
        f"{name:16} {time.monotonic() - began:6.0f} s  {executions[-1] if executions else '?':>9} executions"
        f"  {covered[-1] if covered else '?':>5} edges  {verdict}",
        flush=True,
    )
    return ended.returncode == 0


def _target(name: str) -> Target:
    from tests.fuzz.targets import TARGETS

    if name not in TARGETS:
        sys.exit(f"no target {name}; there are {', '.join(TARGETS)}")
    return TARGETS[name]


def _run(name: str, inputs: Sequence[Path]) -> None:
    target = _target(name)
    for path in inputs:
        target.run(path.read_bytes())
        print(f"{path}: no fault")


def _minimise(name: str) -> None:
    from tests.fuzz import corpus

    target = _target(name)
    files, octets = corpus.minimise(name, WORK / name)
    lines = corpus.lines_of(target)
    steps = set().union(*(corpus.reached(target, path.read_bytes()) for path in corpus.inputs(name)))
    reached = {(file, line) for file, _, line in steps} & lines
    share = 100 * len(reached) // len(lines)
    print(f"{name:16} {files:4} inputs {octets:7} octets  {len(reached)} of {len(lines)} lines ({share} %)")


def _fuzz(name: str, seconds: int, seed: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    logging.disable()
    with atheris.instrument_imports(include=["pusher"], enable_loader_override=False):
        target = _target(name)
    from tests.fuzz.corpus import ROOT

    grown, crashes = WORK / name, WORK / "crashes"
    for directory in (grown, crashes, ROOT / name):
        directory.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.max_octets}",
        f"-timeout={LIMIT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={crashes}/{name}-",
        f"-seed={seed}",
        "-len_control=20",
        "-print_final_stats=1",
    ]

    def mutator(data: bytes, max_octets: int, choice: int) -> bytes:
        source = random.Random(choice)
        if target.mutate is None or source.random() < 0.5:
            return bytes(atheris.Mutate(data, max_octets))
        return target.mutate(data, source)[:max_octets]

    atheris.Setup([sys.argv[0], str(grown), str(ROOT / name), *options], target.run, custom_mutator=mutator)
    atheris.Fuzz()
