"""The platform ``acme`` as a user has it: the command ``pusher`` and a server of Acme's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pusher.sim.certificate import server_context, tls_files
from pusher.sim.http2_link import Reply, Request
from pusher.sim.http2_server import Http2Server

PUSHER = [sys.executable, "-m", "pusher"]


class Acme:
    """A server that takes the key "secret", and knows of one token that is dead."""

    def __init__(self, directory: Path) -> None:
        files = tls_files(directory)
        self.ca_file = files.ca
        self.bodies: list[bytes] = []
        self._server = Http2Server(self._serve, server_context(files))
        self._server.start()
        self.port = self._server.port

    def stop(self) -> None:
        self._server.stop()

    def _serve(self, request: Request) -> None:
        self.bodies.append(request.body)
        request.link.respond(request.stream_id, self._answer(request))

    def _answer(self, request: Request) -> Reply:
        if request.headers.get(b"authorization") != b"Bearer secret":
            return Reply(401, body=b'{"error": "unknown-key"}')
        if request.path == b"/v1/push/dead":
            return Reply(410, body=b'{"error": "gone"}')
        return Reply(201)


class Place:
    """A directory with a configuration for the app ``game``, and a broker in a file."""

    def __init__(self, directory: Path, acme: Acme) -> None:
        self.directory, self.acme = directory, acme
        (directory / "config").mkdir()
        (directory / "config/default.yaml").write_text(
            f"""
acme: {{apps: [game], endpoint: "https://localhost:{acme.port}", caFile: {acme.ca_file}, keys: {{game: secret}}}}
queue: {{brokers: "sqlite:///{directory}/q.db", topics: ["push-game_acme-single"], offsetResetStrategy: earliest}}
feedback: {{reporters: [kafka], kafka: {{brokers: "sqlite:///{directory}/q.db"}}}}
admin.port: 0
"""
        )

    def pusher(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PUSHER, *arguments],
            cwd=self.directory,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def sends(self, *messages: dict[str, object]) -> list[dict[str, object]]:
        """The feedbacks of messages, as the daemon writes them."""
        lines = "".join(f"{json.dumps(message)}\n" for message in messages)
        self.pusher("enqueue", "push-game_acme-single", given=lines)
        daemon = subprocess.Popen([*PUSHER, "acme"], cwd=self.directory, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            found: list[str] = []
            while len(found) < len(messages) and time.monotonic() < deadline:
                tail = ["tail", "push-game-acme-feedbacks", "--from-start", "-n", str(len(messages))]
                with subprocess.Popen(
                    [*PUSHER, *tail], cwd=self.directory, stdout=subprocess.PIPE, text=True
                ) as reader:
                    assert reader.stdout is not None
                    found = [line for _ in messages if (line := reader.stdout.readline())]
                    reader.send_signal(signal.SIGINT)
            return [json.loads(line) for line in found]
        finally:
            daemon.terminate()
            assert daemon.wait(30) == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    acme = Acme(tmp_path / "tls")
    yield Place(tmp_path, acme)
    acme.stop()


def test_pushes_end_as_acme_says(place: Place) -> None:
    alive, dead = place.sends(
        {"token": "ab12", "title": "Hello", "metadata": {"job": 7}}, {"token": "dead", "body": "Is anybody there?"}
    )
    assert json.loads(place.acme.bodies[0]) == {"title": "Hello"}
    assert (alive["token"], alive["delivered"], alive["metadata"]["job"]) == ("ab12", True, 7)  # type: ignore[index]
    assert (dead["delivered"], dead["reason"], dead["metadata"]["deleteToken"]) == (False, "gone", True)  # type: ignore[index]


def test_send_prints_the_outcome(place: Place) -> None:
    done = place.pusher("send", "acme", "--app", "game", "--token", "ab12", "--title", "Hello")
    assert (done.returncode, json.loads(done.stdout)["delivered"]) == (0, True)
    refused = place.pusher("send", "acme", "--app", "game", "--token", "ab12", "--title", "Hi", "--acme.keys.game=old")
    assert (refused.returncode, json.loads(refused.stdout)["reason"]) == (1, "unknown-key")


def test_check_connects_and_names_the_door(place: Place) -> None:
    done = place.pusher("acme", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "door    pusher.providers acme (pusher-example-provider 1.0)" in done.stdout
    assert "ok      acme.keys.game: " in done.stdout
    missing = place.pusher("acme", "--check", "--acme.apps=other")
    assert (missing.returncode, "failed  acme.keys.other: set acme.keys.other" in missing.stdout) == (2, True)


def test_settings_are_shown_and_keys_are_not(place: Place) -> None:
    shown = place.pusher("settings").stdout
    assert "acme.endpoint" in shown
    assert "secret" not in shown
