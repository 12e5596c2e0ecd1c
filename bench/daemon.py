"""The pusher that is measured: a process of its own, watched through /proc."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]


class Profile(NamedTuple):
    """What the sampling profiler counted."""

    parts: dict[str, int]
    functions: dict[str, int]


def cpu_s(pid: int) -> float:
    """CPU time that all threads of a process used so far, user and system."""
    # clock_getcpuclockid(3) makes the number of the clock in this way; /proc/PID/stat counts in ticks of 10 ms
    return time.clock_gettime((~pid << 3) | 2)


def memory_mb(pid: int, line: str) -> float:
    """Memory of a process: VmRSS is what it holds now, VmHWM the most that it ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = next(text for text in status.splitlines() if text.startswith(line))
    return int(found.split()[1]) / 1024


class Daemon:
    """`pusher.py COMMAND -p` with the given settings, under the profiler when profile is set."""

    def __init__(self, directory: Path, command: str, settings: dict[str, Any], *, profile: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._report = directory / "profile.json"
        self._log = directory / "pusher.log"
        configuration = directory / "pusher.yaml"
        configuration.write_text(yaml.safe_dump(settings))
        program = [str(ROOT / "bench" / "profiled.py"), str(self._report)] if profile else [str(ROOT / "pusher.py")]
        arguments = [sys.executable, *program, command, "-p", "--config", str(configuration)]
        # variables of the caller's own pusher must not change what is measured
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """Of the process, which may have ended."""
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU time that it used so far."""
        return cpu_s(self.pid)

    def memory_mb(self) -> float:
        """What it holds now."""
        return memory_mb(self.pid, "VmRSS")

    def peak_memory_mb(self) -> float:
        """The most memory that it ever held."""
        return memory_mb(self.pid, "VmHWM")

    def start_profile(self) -> None:
        """Begin to sample."""
        self._process.send_signal(signal.SIGURG)

    def end_profile(self, timeout_s: float = 10) -> Profile:
        """Cease to sample and return what was counted."""
        self._process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + timeout_s
        while not self._report.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("the profiler wrote no report")
            time.sleep(0.02)
        return Profile(**json.loads(self._report.read_text()))

    def check(self) -> None:
        """RuntimeError with the end of its log when it is not running any more."""
        if self._process.poll() is not None:
            raise RuntimeError(f"pusher ended with status {self._process.returncode}; {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return f"its log ends:\n{self._log.read_text(errors='replace')[-3000:]}"

    def kill(self) -> None:
        """End it as the kernel does when memory runs out: kill -9."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        self._process.terminate()

    def wait(self, timeout_s: float = 60) -> int:
        """Wait until it has ended, kill it after timeout_s. Returns its exit status."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def stop(self) -> tuple[int, float]:
        """End it as a supervisor does. Returns exit status and seconds."""
        began = time.monotonic()
        self.terminate()
        return self.wait(), time.monotonic() - began
