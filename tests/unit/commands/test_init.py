"""`pusher init`: what is written is what the daemon reads, and nothing is written that it could not use."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lab.processes import PUSHER
from pusher import config
from pusher.config.settings import QUEUE, of_provider
from pusher.providers.apns import settings as apns
from pusher.providers.google import settings as google

APNS = ("init", "apns", "--key-id", "1234567890", "--team-id", "TEAM123456", "--topic", "com.example.game")


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "AuthKey.p8").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    return tmp_path


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
    return subprocess.run(
        [*PUSHER, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )


def answered(directory: Path, arguments: Sequence[str], answers: str) -> tuple[int, str]:
    """Runs a command on a terminal and types the answers; its exit status and what the terminal showed."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*PUSHER, *arguments], cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    try:
        status = child.wait(60)
    finally:
        child.kill()
    shown = os.read(ours, 65_536).decode()  # little enough for the terminal to keep
    os.close(ours)
    return status, shown


def test_what_the_flags_give_is_what_the_daemon_reads(directory: Path) -> None:
    done = run(directory, *APNS, "--key", "AuthKey.p8", "--app", "arena")
    assert (done.returncode, done.stderr) == (0, "")
    assert "pusher apns --check" in done.stdout
    found = config.load(str(directory / "config/default.yaml"))
    assert found.warnings == ()
    assert found[of_provider("apns").apps] == ("arena",)
    assert found.of(apns.KEY_ID, "arena") == "1234567890"
    assert found.of(apns.AUTH_KEY_PATH, "arena") == str(directory / "AuthKey.p8")
    assert found[QUEUE.brokers] == "sqlite:///queue.db"
    assert (directory / "config/default.yaml").stat().st_mode & 0o777 == 0o600


def test_a_person_is_asked_again_until_the_answer_can_be_used(directory: Path) -> None:
    answers = "game\nAuthKey.p8\nA B\nABC1234567\nTEAM123456\ncom.example.game\nkafka:9092\n"
    status, shown = answered(directory, ["init", "apns"], answers)
    assert status == 0, shown
    assert shown.count("id of the key") == 2
    found = config.load(str(directory / "config/default.yaml"))
    assert found.of(apns.KEY_ID, "game") == "ABC1234567"
    assert found[QUEUE.brokers] == "kafka:9092"


def test_fcm(directory: Path) -> None:
    account = {
        "type": "service_account",
        "project_id": "demo",
        "client_email": "pusher@demo.example",
        "private_key": pem(rsa.generate_private_key(65_537, 2_048)).decode(),
    }
    (directory / "account.json").write_text(json.dumps(account))
    assert run(directory, "init", "fcm", "--credentials", "account.json", "--output", "fcm.yaml").returncode == 0
    found = config.load(str(directory / "fcm.yaml"))
    assert found.of(google.FIREBASE_CREDENTIALS, "game") == str(directory / "account.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (APNS, "--key is missing"),
        ((*APNS, "--key", "missing.p8"), "missing.p8: No such file"),
        ((*APNS, "--key", "notes.txt"), "notes.txt is not a PKCS#8 PEM key"),
        ((*APNS, "--key", "AuthKey.p8", "--app", "a/b"), "--app expects"),
        ((*APNS, "--key", "AuthKey.p8", "--brokers", "kafka:port"), "--brokers expects"),
        (("init", "fcm", "--credentials", "notes.txt"), "notes.txt: not JSON"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line_and_nothing_is_written(
    directory: Path, arguments: Sequence[str], words: str
) -> None:
    (directory / "notes.txt").write_text("no key")
    done = run(directory, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (directory / "config").exists()


def test_a_file_that_exists_is_kept(directory: Path) -> None:
    (directory / "config").mkdir()
    (directory / "config/default.yaml").write_text("queue: {group: mine}\n")
    done = run(directory, *APNS, "--key", "AuthKey.p8")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (directory / "config/default.yaml").read_text() == "queue: {group: mine}\n"
    printed = run(directory, *APNS, "--key", "AuthKey.p8", "--output", "-")
    assert config.parse(printed.stdout)[of_provider("apns").apps] == ("game",)
