"""A platform as a user would write it, in one file from docs/plugins.md: the commands of pusher have it at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pusher.sim.certificate import server_context, tls_files
from pusher.sim.http2_link import Reply, Request
from pusher.sim.http2_server import Http2Server

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("fifth_provider.py")


class Gateway:
    """Takes the password "secret" and knows no number that begins with 0."""

    def __init__(self, directory: Path) -> None:
        files = tls_files(directory)
        self.ca_file = files.ca
        self.server = Http2Server(self._serve, server_context(files))
        self.server.start()

    def _serve(self, request: Request) -> None:
        body = json.loads(request.body)
        if request.headers[b"x-password"] != b"secret":
            reply = Reply(403, body=b'{"code": "E_PASSWORD"}')
        elif body["to"].startswith("0"):
            reply = Reply(404, body=b'{"code": "E_GONE"}')
        else:
            reply = Reply(202)
        request.link.respond(request.stream_id, reply)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    found = Gateway(tmp_path / "tls")
    yield found
    found.server.stop()


def pusher(place: Path, gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with the file beside it as a package that is installed."""
    metadata = place / "pusher_carrier-0.1.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pusher-carrier\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(
        "[pusher.providers]\ncarrier = pusher_carrier:PROVIDER\n[pusher.settings]\ncarrier = pusher_carrier\n"
    )
    (place / "pusher_carrier.py").write_bytes(SOURCE.read_bytes())
    settings = {
        "apps": "game",
        "gateway": f"localhost:{gateway.server.port}",
        "caFile": gateway.ca_file,
        "passwords.game": "secret",
    }
    flags = [f"--carrier.{key}={value}" for key, value in settings.items()] + [
        f"--queue.brokers=sqlite:///{place}/q.db"
    ]
    return subprocess.run(
        [sys.executable, str(ROOT / "pusher.py"), *arguments, *flags],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_is_short() -> None:
    assert len(SOURCE.read_text().splitlines()) < 150


@pytest.mark.parametrize(("number", "status", "outcome"), [("4912", 0, True), ("0012", 1, False)])
def test_it_sends(tmp_path: Path, gateway: Gateway, number: str, status: int, outcome: bool) -> None:
    send = ("send", "carrier", "--app", "game", "--token", number, "--body", "Hello")
    done = pusher(tmp_path, gateway, *send)
    assert done.returncode == status, done.stderr
    found = json.loads(done.stdout)
    assert (found["token"], found["delivered"], found["metadata"].get("deleteToken", False)) == (
        number,
        outcome,
        not outcome,
    )


def test_it_is_checked_and_listed(tmp_path: Path, gateway: Gateway) -> None:
    done = pusher(tmp_path, gateway, "carrier", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "door    pusher.providers carrier (pusher-carrier 0.1)" in done.stdout
    assert "ok      carrier game: localhost:" in done.stdout
    assert "carrier " in pusher(tmp_path, gateway, "--help").stdout
