"""pusher's daemons and simulators as processes: started, killed, frozen and watched through /proc."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).resolve().parents[1]
PUSHER = (sys.executable, str(ROOT / "pusher.py"))


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str] = "it did not come to that", timeout_s: float = 30
) -> None:
    """Polls until the condition holds. AssertionError that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


def cpu_s(pid: int) -> float:
    """CPU time that all threads of a process used so far, user and system."""
    # clock_getcpuclockid(3) makes the number of the clock in this way; /proc/PID/stat counts in ticks of 10 ms
    return time.clock_gettime((~pid << 3) | 2)


class Process:
    """A child that may be started again and again. Its output goes to one log; it never outlives this process."""

    def __init__(self, directory: Path, name: str, command: tuple[str, ...]) -> None:
        self.name = name
        self._command = command
        self._log = directory / f"{name}.log"
        self._log.touch()
        self._child: subprocess.Popen[bytes] | None = None
        #: Where the log of the present run begins.
        self._began_at = 0

    def start(self) -> None:
        """Returns at once."""
        # Variables of the caller's own pusher must not change what is tested.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
        self._began_at = self._log.stat().st_size
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def child(self) -> subprocess.Popen[bytes]:
        """The running one, or the last one."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        """Kill -9, and waits for the end."""
        self.child.kill()
        self.child.wait()

    def wait(self, timeout_s: float = 30) -> int:
        """Waits for its end; the exit status."""
        return self.child.wait(timeout_s)

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and waits for the end; the exit status."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def end(self) -> None:
        """For clean-up: no process is left."""
        if self.running:
            self.kill()

    def log(self) -> str:
        """What the present run has written."""
        with self._log.open("rb") as log:
            log.seek(self._began_at)
            return log.read().decode(errors="replace")

    def logs(self) -> str:
        """What all runs have written."""
        return self._log.read_text(errors="replace")

    def wait_for(self, words: str, timeout_s: float = 30) -> None:
        """Waits until the present run has written these words."""
        wait_until(
            lambda: words in self.log() or not self.running,
            lambda: f"{self.name} did not write {words!r}:\n{self.log()[-3000:]}",
            timeout_s,
        )
        assert words in self.log(), f"{self.name} ended before it wrote {words!r}:\n{self.log()[-3000:]}"

    def memory_mb(self, entry: str = "VmRSS") -> float:
        """Resident memory now (VmRSS) or at its highest (VmHWM)."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(entry))
        return int(line.split()[1]) / 1024

    @property
    def pid(self) -> int:
        """Of the process, which may have ended."""
        return self.child.pid

    def cpu_s(self) -> float:
        """CPU time of the present run."""
        return cpu_s(self.pid)


class Daemon(Process):
    """`pusher.py COMMAND -p` with these settings."""

    def __init__(
        self,
        directory: Path,
        name: str,
        settings: dict[str, Any],
        command: str = "apns",
        program: tuple[str, ...] = PUSHER,
        flags: tuple[str, ...] = ("-p",),
    ) -> None:
        self.settings_file = directory / f"{name}.yaml"
        self.settings_file.write_text(yaml.safe_dump(settings, allow_unicode=True))
        super().__init__(directory, name, (*program, command, *flags, "--config", str(self.settings_file)))

    def wait_until_started(self) -> None:
        self.wait_for("sender started")


class Simulator(Process):
    """`pusher.py simulate PLATFORM` on a free port, which stays the same when it is started again."""

    def __init__(self, directory: Path, *flags: str, platform: str = "apns", name: str = "simulator") -> None:
        self.directory = directory
        self.platform = platform
        self._flags = flags
        self.port = 0
        super().__init__(directory, name, ())

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")

    def start(self) -> None:
        """Waits until it listens."""
        self._command = (
            *PUSHER,
            "simulate",
            self.platform,
            "--port",
            str(self.port),
            "--tls-dir",
            str(self.directory),
            "--admin-port",
            "0",
            "--ledger-limit",
            "1000000",
            *self._flags,
        )
        super().start()
        self.wait_for("admin on http")
        listening = re.search(r"listening on (?:https?://)?[^:]+:(\d+)", self.log())
        endpoint = re.search(r"admin on (http://\S+)", self.log())
        assert listening, self.log()
        assert endpoint, self.log()
        self.port, self._endpoint = int(listening[1]), endpoint[1]

    def counts(self) -> dict[str, Any]:
        """Answers, faults, deliveries, in numbers."""
        counts: dict[str, Any] = self._ask("/counts")
        return counts

    def received(self) -> list[tuple[str, str, int, str]]:
        """Every request: id, token, status, reason."""
        return [tuple(entry) for entry in self._ask("/ledger")["received"]]

    def set_faults(self, *script: str) -> None:
        self._ask("/faults", "\n".join(script))

    def _ask(self, path: str, body: str | None = None) -> Any:
        data = None if body is None else body.encode()
        request = urllib.request.Request(self._endpoint + path, data, method="GET" if data is None else "POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return orjson.loads(answer.read())
