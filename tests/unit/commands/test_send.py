"""One push from the command line, through each provider."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.processes import ROOT
from pusher import config
from pusher.commands import send
from pusher.errors import StartError
from tests.contract.test_provider_contract import PROVIDERS, Provider
from tests.faults.driver import nested

APNS, FCM, XMPP = PROVIDERS
APNS_TOKEN = "ab" * 32


class Provided:
    """A simulator, and the settings of an app "game" that is served through it."""

    def __init__(self, provider: Provider, directory: Path, *faults: str) -> None:
        self.platform = provider.platform
        self.simulator, settings = provider.open(faults, directory)
        self.settings = nested(settings)

    def send(self, *arguments: str, token: str = APNS_TOKEN, app: str = "game") -> int:
        parser = argparse.ArgumentParser()
        send.add_arguments(parser)
        args = parser.parse_args([self.platform, "--app", app, "--token", token, *arguments])
        return send.run(args, config.parse(yaml.safe_dump(self.settings), {}))


Provide = Callable[..., Provided]


@pytest.fixture
def provide(tmp_path: Path) -> Iterator[Provide]:
    opened: list[Provided] = []

    def open_one(provider: Provider, *faults: str) -> Provided:
        opened.append(Provided(provider, tmp_path, *faults))
        return opened[-1]

    yield open_one
    for provided in opened:
        provided.simulator.close()


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    feedback: dict[str, Any] = json.loads(line)
    return feedback


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_an_accepted_push(provide: Provide, provider: Provider, capsys: pytest.CaptureFixture[str]) -> None:
    provided = provide(provider)
    assert provided.send("--title", "Hello", "--body", "World", "--data", "level=7", "--data", "a=b=c") == 0
    feedback = printed(capsys)
    assert feedback.get("Sent") or feedback["message_type"] == "ack"
    assert [entry[1] for entry in provided.simulator.ledger.received] == [APNS_TOKEN]


@pytest.mark.parametrize(
    ("provider", "fault", "member", "value"),
    [
        (APNS, "410 Unregistered", "Reason", "Unregistered"),
        (FCM, "404 UNREGISTERED", "error", "DEVICE_UNREGISTERED"),
        (XMPP, "nack DEVICE_UNREGISTERED", "error", "DEVICE_UNREGISTERED"),
    ],
)
def test_a_refused_push(
    provide: Provide, provider: Provider, fault: str, member: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provide(provider, fault).send("--title", "Hello") == 1
    assert printed(capsys)[member] == value


@pytest.mark.parametrize(
    ("provider", "fault", "words"),
    [(APNS, "400 BadDeviceToken", "--production"), (FCM, "404 UNREGISTERED", "use its new token")],
)
def test_what_to_do_about_a_refusal_is_said(
    provide: Provide, provider: Provider, fault: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    provide(provider, fault).send("--title", "Hello")
    assert words in capsys.readouterr().err


def test_it_is_tried_again_as_the_daemon_does(provide: Provide, capsys: pytest.CaptureFixture[str]) -> None:
    assert provide(FCM, "503,once").send("--title", "Hello") == 0
    assert printed(capsys)["message_type"] == "ack"


def test_a_dry_run_delivers_nothing(provide: Provide, capsys: pytest.CaptureFixture[str]) -> None:
    provided = provide(FCM)
    assert provided.send("--title", "Hello", "--dry-run") == 0
    assert printed(capsys)["message_type"] == "ack"
    assert provided.simulator.ledger.delivered == {}


def test_apple_has_no_dry_run(provide: Provide) -> None:
    provided = provide(APNS)
    with pytest.raises(StartError, match="Apple does not support --dry-run"):
        provided.send("--title", "Hello", "--dry-run")
    assert provided.simulator.ledger.received == []


def test_success_is_printed_where_it_is_not_fed_back(provide: Provide, capsys: pytest.CaptureFixture[str]) -> None:
    provided = provide(FCM)
    provided.settings["feedback"] = {"successes": False}
    assert provided.send("--title", "Hello") == 0
    assert printed(capsys)["message_type"] == "ack"


def test_no_outcome_in_time(provide: Provide, capsys: pytest.CaptureFixture[str]) -> None:
    provided = provide(FCM, "503,retry-after=30")
    assert provided.send("--title", "Hello", "--timeout", "0.5") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "pusher: no outcome: 0.5 s were not enough: the push waits for its answer or a retry\n"


def test_a_provider_that_does_not_answer_is_named(provide: Provide, capsys: pytest.CaptureFixture[str]) -> None:
    provided = provide(APNS)
    provided.simulator.stop()
    assert provided.send("--title", "Hello", "--timeout", "0.5") == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--app", "other", "--title", "x"], "--app other: gcm.apps has game"),
        ([], "the push has no content"),
        (["--data", "novalue"], "--data is KEY=VALUE"),
        (["--token", "no token", "--title", "x"], "bad-token"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(provide: Provide, arguments: list[str], words: str) -> None:
    with pytest.raises(StartError, match=words):
        provide(FCM).send(*arguments)


def test_as_a_command(provide: Provide, tmp_path: Path) -> None:
    provided = provide(FCM)
    path = tmp_path / "pusher.yaml"
    path.write_text(yaml.safe_dump(provided.settings))
    command = [sys.executable, "pusher.py", "send", "gcm", "--app", "game", "--token", "t", "--config", str(path)]
    done = _run([*command, "--title", "Hello"])
    assert (done.returncode, json.loads(done.stdout)["message_type"]) == (0, "ack")
    done = _run(command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pusher: the push has no content: give --title, --body or --data\n"


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
