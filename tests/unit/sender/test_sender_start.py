"""Apps are set up side by side: one whose token endpoint says nothing delays neither the others nor a stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.processes import wait_until
from pusher.sim.fcm import FcmSimulator
from tests.faults.driver import nested
from tests.unit.daemon.test_start import started


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A token endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener


def account_of(silent: socket.socket, simulator: FcmSimulator) -> str:
    account = simulator.oauth.new_account("silent")
    return json.dumps(account | {"token_uri": f"https://127.0.0.1:{silent.getsockname()[1]}/token"})


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[FcmSimulator]:
    with FcmSimulator(tls_dir=str(tmp_path)) as found:
        yield found


def daemon(folder: Path, simulator: FcmSimulator, accounts: dict[str, str], **changes: Any) -> subprocess.Popen[bytes]:
    flat = {
        "gcm.apps": ",".join(accounts),
        "gcm.fcm.endpoint": f"https://localhost:{simulator.port}",
        "gcm.fcm.caFile": simulator.ca_file,
        "queue.brokers": f"sqlite:///{folder}/queue.db",
        "feedback.reporters": [],
        "admin.port": 0,
        **{f"gcm.firebaseCredentials.{app}": account for app, account in accounts.items()},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(nested(flat)))
    with (folder / "log").open("wb") as log:
        return started(folder, "gcm", "--config", "config.yaml", stderr=log)


def test_a_silent_token_endpoint_delays_no_other_app(
    tmp_path: Path, simulator: FcmSimulator, silent: socket.socket
) -> None:
    accounts = {f"silent{n}": account_of(silent, simulator) for n in range(4)}
    accounts["game"] = json.dumps(simulator.oauth.new_account("project"))
    process = daemon(tmp_path, simulator, accounts)
    try:
        wait_until(lambda: all(f"game={app}" in log(tmp_path) for app in accounts), lambda: log(tmp_path))
    finally:
        process.terminate()
        assert process.wait(30) == 0
    lines = log(tmp_path).splitlines()
    (start,) = [number for number, line in enumerate(lines) if "sender started" in line]
    assert " apps=game " in lines[start]
    later = [line for line in lines[start:] if "app is served" in line and "game=silent" in line]
    assert len(later) == 4, log(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_set_ups(
    tmp_path: Path, simulator: FcmSimulator, silent: socket.socket, number: signal.Signals
) -> None:
    process = daemon(tmp_path, simulator, {"one": account_of(silent, simulator), "two": account_of(silent, simulator)})
    silent.settimeout(30)
    asked, _ = silent.accept()
    with asked:
        process.send_signal(number)
        assert process.wait(30) == 0
    text = log(tmp_path)
    assert "stopped gracefully" in text
    assert "sender started" not in text
    assert "Traceback" not in text


def test_accounts_that_are_all_refused_end_the_start_in_one_line(tmp_path: Path, simulator: FcmSimulator) -> None:
    accounts = {}
    for app in ("one", "two"):
        account = simulator.oauth.new_account(app)
        simulator.oauth.remove_account(account["client_email"])
        accounts[app] = json.dumps(account)
    process = daemon(tmp_path, simulator, accounts)
    assert process.wait(30) == 2
    (line,) = [line for line in log(tmp_path).splitlines() if line.startswith("pusher: ")]
    assert "one: " in line
    assert "two: " in line


def log(folder: Path) -> str:
    return (folder / "log").read_text()
