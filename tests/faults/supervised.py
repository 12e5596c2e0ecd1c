"""pusher under supervisord, as config/supervisord.conf starts it: killed, restarted one by one, and stopped."""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml

from lab.processes import ROOT, Process, wait_until

SHIPPED = ROOT / "config" / "supervisord.conf"
SECTIONS = ("supervisord", "unix_http_server", "rpcinterface:supervisor", "supervisorctl")
#: supervisord waits for `stopwaitsecs` before it kills.
_STOP_S = 60.0


class State(NamedTuple):
    """One line of `supervisorctl status`."""

    name: str
    state: str
    pid: int


class Supervised:
    """Some programs of the shipped file, unchanged, beside these settings. Nothing of it outlives the block."""

    def __init__(self, directory: Path, settings: dict[str, Any], programs: Sequence[str]) -> None:
        self._directory = directory / "supervised"
        for part in ("config", "log"):
            (self._directory / part).mkdir(parents=True)
        (self._directory / ".venv").symlink_to(sys.prefix)
        (self._directory / "pusher.py").symlink_to(ROOT / "pusher.py")
        (self._directory / "config" / "default.yaml").write_text(yaml.safe_dump(settings))
        # the path of a socket, which stands beside the file, is at most 107 octets long
        self._short = Path(tempfile.mkdtemp(prefix="pusher-"))
        (self._short / "run").symlink_to(self._directory)
        self._file = self._short / "run" / "config" / "supervisord.conf"
        with self._file.open("w") as file:
            _only(SHIPPED, {*SECTIONS, *(f"program:{program}" for program in programs)}).write(file)
        self._supervisord = Process(directory, "supervisord", (_program("supervisord"), "-n", "-c", str(self._file)))

    def __enter__(self) -> Self:
        self._supervisord.start()
        try:
            self.wait_until_running()
        except BaseException:
            self._end()  # nobody leaves a block that was not entered
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._supervisord.running:
            self.stop()
        shutil.rmtree(self._short)

    def states(self) -> list[State]:
        """Of each process, running or not."""
        return [_state(line) for line in self._control("status").splitlines()]

    def wait_until_running(self) -> None:
        """Until supervisord counts every process as started."""

        def all_run() -> bool:
            assert self._supervisord.running, self._supervisord.log()
            return {state.state for state in self.states()} == {"RUNNING"}

        wait_until(all_run, lambda: f"{self.states()}\n{self.logs()[-3000:]}")

    def kill(self, number: int) -> int:
        """kill -9 of a process as soon as it is one; its pid. Does not wait for its successor."""
        return self._signal(number, signal.SIGKILL)

    def terminate(self, number: int) -> None:
        """SIGTERM to a process, and waits until its successor runs."""
        self.wait_until_replaced(number, self._signal(number, signal.SIGTERM))

    def wait_until_replaced(self, number: int, pid: int) -> None:
        """Until supervisord counts the successor of this pid as started."""

        def replaced() -> bool:
            return self.states()[number].pid not in (0, pid)

        wait_until(replaced, lambda: f"{pid} was not replaced: {self.states()}", _STOP_S)

    def stop(self) -> int:
        """Stops supervisord, which stops all processes; its exit status. No process of them is left."""
        pids = [state.pid for state in self.states() if state.pid]
        status = self._supervisord.stop(_STOP_S)
        left = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"processes outlived supervisord: {left}"
        return status

    def logs(self) -> str:
        """What all processes have written, and supervisord."""
        files = sorted((self._directory / "log").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def _signal(self, number: int, signal_number: int) -> int:
        # supervisorctl tells the pid of a process that has run for `startsecs`
        wait_until(lambda: self.states()[number].pid, lambda: f"process {number} does not run: {self.states()}")
        pid = self.states()[number].pid
        os.kill(pid, signal_number)
        return pid

    def _control(self, *command: str) -> str:
        line = [_program("supervisorctl"), "-c", str(self._file), *command]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _only(file: Path, sections: set[str]) -> configparser.RawConfigParser:
    """The file without other sections."""
    found = configparser.RawConfigParser()
    found.read(file)
    for section in found.sections():
        if section not in sections:
            found.remove_section(section)
    return found


def _state(line: str) -> State:
    """From such as "pusher-apns:pusher-apns-0   RUNNING   pid 12, uptime 0:00:05"."""
    name, state, *rest = line.split()
    return State(name, state, int(rest[1].rstrip(",")) if rest[:1] == ["pid"] else 0)
