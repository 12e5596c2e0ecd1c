"""The first second of a process, whatever it is started with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from lab.processes import ROOT, wait_until

Process: TypeAlias = subprocess.Popen[bytes]

PROGRAM = [sys.executable, str(ROOT / "pusher.py")]
#: On the embedded broker, with a key that is no key yet: enough to start and to be stopped.
DAEMON = ["apns", "--queue.brokers=sqlite:///queue.db", "--admin.port=0", "--feedback.reporters=", "--apns.apps=game"]


def started(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None, **how: Any) -> Process:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
    return subprocess.Popen([*PROGRAM, *arguments], cwd=folder, env=own | dict(environ or {}), **how)


def wait_until_it_takes_signals(process: Process) -> None:
    """Until then Python itself starts, and a signal ends it as it ends any program."""
    status = Path(f"/proc/{process.pid}/status")

    def takes() -> bool:
        (caught,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")]
        return bool(int(caught, 16) >> signal.SIGTERM - 1 & 1)

    wait_until(takes, "it takes no signals")


@pytest.fixture
def daemon_settings(tmp_path: Path) -> Path:
    from pusher.sim.certificate import make_p8

    (tmp_path / "key.p8").write_bytes(make_p8())
    (tmp_path / "config.yaml").write_text(
        "apns: {host: 127.0.0.1, port: 1, certs: {game: {authKeyPath: key.p8, keyID: KEY1234567, teamID: T}}}\n"
    )
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 1.1])
def test_a_daemon_that_is_stopped_while_it_starts_stops_in_order(
    daemon_settings: Path, number: signal.Signals, after_s: float
) -> None:
    process = started(daemon_settings, *DAEMON, "--config", "config.yaml", stderr=subprocess.PIPE)
    wait_until_it_takes_signals(process)
    time.sleep(after_s)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors


def test_other_signals_while_it_starts_end_nothing(daemon_settings: Path) -> None:
    process = started(daemon_settings, *DAEMON, "--config", "config.yaml", stderr=subprocess.PIPE)
    wait_until_it_takes_signals(process)
    for number in (signal.SIGHUP, signal.SIGUSR1) * 3:
        time.sleep(0.1)
        process.send_signal(number)
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=30) == 0
    process.communicate()


def test_a_command_that_ends_by_itself_keeps_the_usual_meaning_of_signals(tmp_path: Path) -> None:
    process = started(tmp_path, "tail", "--brokers", "sqlite:///queue.db", "topic", stderr=subprocess.DEVNULL)
    time.sleep(0.15)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 1, 2)])
def test_missing_descriptors_become_dev_null(daemon_settings: Path, missing: tuple[int, ...]) -> None:
    def close() -> None:
        for descriptor in missing:
            os.close(descriptor)

    process = started(daemon_settings, *DAEMON, "--config", "config.yaml", preexec_fn=close)
    try:
        deadline = time.monotonic() + 30
        while not (daemon_settings / "queue.db").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for descriptor in missing:
            assert str(Path(f"/proc/{process.pid}/fd/{descriptor}").readlink()) == "/dev/null"
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_full_stdout_is_one_line_and_a_failure(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = started(tmp_path, "version", stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, b"pusher: output: No space left on device\n")


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_python_without_checks_is_refused_in_one_line(tmp_path: Path, option: str) -> None:
    command = [sys.executable, option, str(ROOT / "pusher.py"), "version"]
    refused = subprocess.run(command, capture_output=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.count(b"\n") == 1
    assert b"python -O" in refused.stderr


def test_warnings_of_libraries_end_nothing(tmp_path: Path) -> None:
    process = started(tmp_path, "settings", stdout=subprocess.PIPE, environ={"PYTHONWARNINGS": "error"})
    process.communicate(timeout=30)
    assert process.returncode == 0
