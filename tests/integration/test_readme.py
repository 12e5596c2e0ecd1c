"""What the README says to type works as it is written, from top to bottom, against the simulators.

Its blocks marked ``sh`` are run by one shell in one directory. What is not: ``make``, which
works on a clone; ``pip install pusherd``, which ``scripts/release`` tries; and the sending of a push to Google with
Google's own addresses, which the variables of the shell replace by a simulator's as they do Apple's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import pages
from lab.processes import PUSHER, ROOT, Process

README = (ROOT / "README.md").read_text()
INSTALL = "pip install pusherd"
MOST_LINES = 150


def blocks() -> list[str]:
    return [block.text for block in pages.blocks("sh") if block.page == "README.md" and "make demo" not in block.text]


def port(simulator: Process) -> str:
    found = re.findall(r" listening on \S*?:(\d+)", simulator.log())
    return str(found[0])


@pytest.fixture
def simulators(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables that lead to a simulated Apple and Google."""
    tls = str(tmp_path / "tls")
    key, account = str(tmp_path / "AuthKey_ABC123DEFG.p8"), str(tmp_path / "service-account.json")
    apns = Process(tmp_path, "apns", (*PUSHER, "simulate", "apns", "--port", "0", "--tls-dir", tls, "--write-key", key))
    fcm_arguments = ("--port", "0", "--oauth-port", "0", "--tls-dir", tls, "--write-credentials", account)
    fcm = Process(tmp_path, "fcm", (*PUSHER, "simulate", "fcm", *fcm_arguments))
    started = [apns, fcm]
    try:
        for simulator in started:
            simulator.start()
            simulator.wait_for("listening")
        yield {
            "PUSHER_APNS_HOST": "localhost",
            "PUSHER_APNS_PORT": port(apns),
            "PUSHER_APNS_CAFILE": f"{tls}/ca.pem",
            "PUSHER_GCM_FCM_ENDPOINT": f"https://localhost:{port(fcm)}",
            "PUSHER_GCM_FCM_CAFILE": f"{tls}/ca.pem",
        }
    finally:
        for simulator in started:
            simulator.kill()


def test_it_is_short() -> None:
    assert len(README.splitlines()) < MOST_LINES


def test_what_it_links_to_is_there() -> None:
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README)}
    assert len(targets) > 10
    assert [target for target in targets if target and not (ROOT / target).exists()] == []


def test_it_works_as_it_is_written(tmp_path: Path, simulators: dict[str, str]) -> None:
    commands = "".join(blocks())
    assert commands.count(INSTALL) == 1
    assert commands.count("pusher send") == 2
    place = tmp_path / "bin"
    place.mkdir()
    (place / "pusher").write_text(f'#!/bin/sh\nexec {" ".join(PUSHER)} "$@"\n')
    (place / "pusher").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", shutil.which("bash") or "bash", "-euxm"],
        input=re.sub(rf"^{INSTALL}.*$", "", commands, flags=re.MULTILINE),
        cwd=tmp_path,
        env=environment | simulators | {"PATH": f"{place}:{os.environ['PATH']}", "PUSHER_ADMIN_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "failed  " not in done.stdout
    assert done.stdout.count('"Sent":true') == 2, done.stdout
    assert done.stdout.count('"message_type":"ack"') == 1, done.stdout
