"""The pusher that is measured: a process of its own, watched through /proc."""

import json
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from lab.processes import PUSHER, ROOT, Daemon, wait_until


class Profile(NamedTuple):
    """What the sampling profiler counted."""

    parts: dict[str, int]
    functions: dict[str, int]


class Measured(Daemon):
    """`pusher.py COMMAND -p` with the given settings, running, under the profiler when profile is set."""

    def __init__(self, directory: Path, command: str, settings: dict[str, Any], *, profile: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._report = directory / "profile.json"
        profiled = (sys.executable, str(ROOT / "bench" / "profiled.py"), str(self._report))
        super().__init__(directory, "pusher", settings, command, program=profiled if profile else PUSHER)
        self.start()

    def start_profile(self) -> None:
        """Begin to sample."""
        self.signal(signal.SIGURG)

    def end_profile(self, timeout_s: float = 10) -> Profile:
        """Cease to sample and return what was counted."""
        self.signal(signal.SIGUSR2)
        wait_until(self._report.exists, "the profiler wrote no report", timeout_s)
        return Profile(**json.loads(self._report.read_text()))

    def check(self) -> None:
        """RuntimeError with the end of its log when it is not running any more."""
        if not self.running:
            raise RuntimeError(f"pusher ended with status {self.wait()}; {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return f"its log ends:\n{self.log()[-3000:]}"
