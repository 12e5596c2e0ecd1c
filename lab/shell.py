"""A shell in which commands of the documentation run as a reader types them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.processes import PUSHER

#: A job is a group of processes of its own (bash -m).
KILL_JOBS = "for job in $(jobs -p); do kill -KILL -- -$job 2> /dev/null || true; done"


def run(commands: str, directory: Path, variables: Mapping[str, str], end: str = ":", timeout_s: float = 60) -> str:
    """What they print, errors aside; `end` runs at their end in any case. AssertionError when one of them fails."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "pusher").write_text(f'#!/bin/sh\nexec setpriv --pdeathsig KILL {" ".join(PUSHER)} "$@"\n')
    (programs / "pusher").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", shutil.which("bash") or "bash", "-euxm", "-o", "pipefail"],
        input=f"trap '{end}; {KILL_JOBS}' EXIT\n{commands}",
        cwd=directory,
        env=environment | dict(variables) | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
