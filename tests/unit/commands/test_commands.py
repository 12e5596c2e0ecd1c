"""``enqueue`` and ``tail`` as users run them: the real program, on the embedded broker and on Kafka."""

from __future__ import annotations

import argparse
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from lab.processes import ROOT
from pusher import config
from pusher.broker.sqlite import SqliteReader
from pusher.commands import load
from pusher.commands import topics as commands
from tests.contract.brokers import SqliteBroker, until

TOPIC = "push-game_apns-single"
PUSHER = [sys.executable, str(ROOT / "pusher.py")]


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqliteBroker:
    """A broker that the program uses without being told."""
    found = SqliteBroker(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "default.yaml").write_text("")
    monkeypatch.setenv("PUSHER_QUEUE_BROKERS", found.url)
    monkeypatch.setenv("PUSHER_FEEDBACK_KAFKA_BROKERS", f"sqlite:///{tmp_path}/feedback.db")
    monkeypatch.chdir(tmp_path)
    return found


def pusher(*arguments: str, feed: bytes = b"") -> tuple[int, bytes, str]:
    """Runs a command: its exit code, what it printed and what it complained of."""
    done = subprocess.run([*PUSHER, *arguments], input=feed, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def enqueue(*arguments: str, feed: bytes = b"") -> tuple[int, bytes, str]:
    return pusher("enqueue", "--force", *arguments, feed=feed)


def stored(url: str, topic: str = TOPIC) -> list[bytes]:
    with closing(SqliteReader(url, topic)) as reader:
        return [record.value for record in reader.read(0)]


# --- enqueue


def test_lines_become_messages_as_they_are(broker: SqliteBroker) -> None:
    feed = b'{"a": 1}\n\n \t\n\xff\x00 \r\nlast'
    assert enqueue(TOPIC, feed=feed) == (0, f"enqueued 3 messages to {TOPIC}\n".encode(), "")
    assert stored(broker.url) == [b'{"a": 1}', b"\xff\x00 \r", b"last"]


@pytest.mark.parametrize("name", ["-", "lines"])
def test_lines_come_from_a_file_or_standard_input(broker: SqliteBroker, tmp_path: Path, name: str) -> None:
    (tmp_path / "lines").write_bytes(b"from file\n")
    assert enqueue(TOPIC, name, feed=b"from input\n")[:2] == (0, f"enqueued 1 message to {TOPIC}\n".encode())
    assert stored(broker.url) == [b"from input" if name == "-" else b"from file"]


def test_lines_longer_than_what_is_read_at_once_stay_whole(broker: SqliteBroker) -> None:
    lines = [bytes([65 + number]) * (70_000 + number) for number in range(5)]
    assert enqueue(TOPIC, feed=b"\n".join(lines))[0] == 0
    assert stored(broker.url) == lines


def test_nothing_is_nothing(broker: SqliteBroker) -> None:
    assert enqueue(TOPIC) == (0, f"enqueued 0 messages to {TOPIC}\n".encode(), "")


def test_what_was_read_is_stored_while_more_is_waited_for(broker: SqliteBroker) -> None:
    with subprocess.Popen([*PUSHER, "enqueue", TOPIC], stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        until(broker.path.exists)
        until(lambda: pusher("tail", TOPIC, "--from-start", "-n", "1") == (0, b"one\n", ""))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == (b"", b"")
        assert process.returncode == 130


def test_a_message_that_is_refused_is_told_and_the_others_are_stored(broker: SqliteBroker) -> None:
    code, output, error = enqueue(TOPIC, feed=b"one\n" + b"x" * 2_000_000 + b"\ntwo\n")
    assert code == 1
    assert output == f"enqueued 2 messages to {TOPIC}\n".encode()
    assert error == f"pusher: 1 refused, the first one because: {TOPIC}: 2000000 bytes, 1048576 are allowed\n"
    assert stored(broker.url) == [b"one", b"two"]


def test_a_topic_that_cannot_be_is_refused(broker: SqliteBroker) -> None:
    code, _, error = enqueue("a topic", feed=b"one\n")
    assert code == 1
    assert "1 refused, the first one because: a topic: not the name of a topic" in error


def test_the_file_of_a_broker_is_relative_or_from_the_root(broker: SqliteBroker, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for address in ("sqlite:///sub/queue.db", f"sqlite:///{tmp_path}/sub/queue.db"):
        assert enqueue(TOPIC, "--brokers", address, feed=b"one\n")[0] == 0
    assert len(stored(f"sqlite:///{tmp_path}/sub/queue.db")) == 2


@pytest.mark.parametrize("command", ["enqueue", "tail", "apns"])
def test_a_file_in_no_directory_is_refused_at_once(broker: SqliteBroker, tmp_path: Path, command: str) -> None:
    (tmp_path / "sub").mkdir()
    meant = f"{tmp_path}/sub/queue.db".removeprefix("/")
    arguments = [command] if command == "apns" else [command, TOPIC]
    for path, hint in ((meant, f"from the root it is sqlite:////{meant}"), ("/nowhere/queue.db", "create it first")):
        os.environ["PUSHER_QUEUE_BROKERS"] = f"sqlite:///{path}"
        code, _, error = pusher(*arguments, feed=b"one\n")
        assert code == 2
        assert error.strip().splitlines()[-1].endswith(f"there is no directory {(tmp_path / path).parent}; {hint}")


def test_another_broker_may_be_named(broker: SqliteBroker, tmp_path: Path) -> None:
    assert enqueue(TOPIC, "--brokers", "sqlite:///other.db", feed=b"one\n")[0] == 0
    assert stored(f"sqlite:///{tmp_path}/other.db") == [b"one"]
    assert not broker.path.exists()


def test_feedbacks_have_a_broker_of_their_own(broker: SqliteBroker, tmp_path: Path) -> None:
    topic = "push-game-apns-feedbacks"
    assert enqueue(topic, feed=b"one\n")[0] == 0
    assert stored(f"sqlite:///{tmp_path}/feedback.db", topic) == [b"one"]
    assert pusher("tail", topic, "--from-start", "-n", "1") == (0, b"one\n", "")


def test_enqueue_gives_up_when_nothing_is_stored(
    broker: SqliteBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "_PATIENCE_S", 0.3)
    lines = tmp_path / "lines"
    lines.write_bytes(b"one\n")
    (tmp_path / "folder").mkdir()
    args = argparse.Namespace(topic=TOPIC, file=str(lines), force=True, brokers=f"sqlite:///{tmp_path}/folder")
    assert commands.run_enqueue(args, config.load("config/default.yaml", {}, [])) == 1
    output = capsys.readouterr()
    assert output.out == f"enqueued 0 messages to {TOPIC}\n"
    assert "gave up, nothing stored for 0.3 s" in output.err
    assert "folder: unable to open database file" in output.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["enqueue", TOPIC, "missing"], "pusher: cannot read missing: No such file or directory"),
        (["enqueue", TOPIC, "."], "pusher: cannot read .: Is a directory"),
        (["enqueue"], "the following arguments are required: TOPIC"),
        (["enqueue", TOPIC, "--brokers", "http://x"], "'http://x': expects host:port"),
        (["tail", TOPIC, "-n", "-1"], "'-1': expects a number of messages"),
        (["tail", TOPIC], f"pusher: cannot read {TOPIC}: "),
        (["tail"], "the following arguments are required: TOPIC"),
    ],
)
def test_what_cannot_begin_says_why_and_ends_with_2(broker: SqliteBroker, arguments: list[str], complaint: str) -> None:
    code, output, error = pusher(*arguments)
    assert (code, output) == (2, b"")
    assert complaint in error
    assert "Traceback" not in error


def test_progress_is_shown_on_a_terminal(broker: SqliteBroker, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"line\n" * 20_000)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    try:
        process = subprocess.Popen([*PUSHER, "enqueue", TOPIC, "lines"], stdout=subprocess.PIPE, stderr=end)
        os.close(end)
        shown = b""
        while select.select([terminal], [], [], 20)[0]:
            try:
                shown += os.read(terminal, 65_536)
            except OSError:  # the other end is closed
                break
        assert process.communicate(timeout=20)[0] == f"enqueued 20000 messages to {TOPIC}\n".encode()
    finally:
        os.close(terminal)
    assert b"0%|" in shown
    assert b"100k" in shown


# --- doubts


def configure(directory: Path, text: str) -> None:
    (directory / "config" / "default.yaml").write_text(text)


PUSH = b'{"DeviceToken": "ab", "Payload": {"aps": {"alert": "hi"}}}'


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("push-gaem_apns-single", "apns.apps does not contain gaem"),
        ("push-game_apns-slow", "does not match it"),
        ("orders", "its name is not push-<game>_<platform>..."),
    ],
)
def test_a_topic_that_nobody_reads_is_warned_of(broker: SqliteBroker, tmp_path: Path, topic: str, words: str) -> None:
    configure(tmp_path, "apns: {apps: game}")
    code, output, error = pusher("enqueue", topic, feed=PUSH)
    assert (code, output) == (0, f"enqueued 1 message to {topic}\n".encode())
    assert error.startswith(f"pusher: warning: no sender with these settings reads {topic}: ")
    assert words in error
    assert error.count("\n") == 1


def test_messages_that_a_sender_would_refuse_are_warned_of_and_stored(broker: SqliteBroker, tmp_path: Path) -> None:
    configure(tmp_path, "apns: {apps: game}")
    feed = PUSH + b'\n{"broken": \n' + PUSH + b"\n{}\n"
    code, output, error = pusher("enqueue", TOPIC, feed=feed)
    assert (code, output) == (0, f"enqueued 4 messages to {TOPIC}\n".encode())
    assert error.startswith(
        "pusher: warning: a sender would refuse 2 of 4 messages as invalid; the first is message 2 (not-json"
    )
    assert pusher("enqueue", TOPIC, "--force", feed=feed)[2] == ""
    assert len(stored(broker.url)) == 8


def test_where_there_are_no_doubts_nothing_is_said(broker: SqliteBroker, tmp_path: Path) -> None:
    configure(tmp_path, "apns: {apps: game}")
    assert pusher("enqueue", TOPIC, feed=PUSH)[2] == ""
    assert pusher("enqueue", "push-game-apns-feedbacks", feed=b"{}")[2] == ""


# --- tail


def test_tail_prints_from_the_start_and_follows_until_it_is_interrupted(broker: SqliteBroker) -> None:
    enqueue(TOPIC, feed=b"one\n\xff\n")
    with subprocess.Popen([*PUSHER, "tail", TOPIC, "--from-start"], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"one\n", b"\xff\n"]
        enqueue(TOPIC, feed=b"two\n")
        assert process.stdout.readline() == b"two\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_tail_ends_after_a_number_of_messages(broker: SqliteBroker) -> None:
    enqueue(TOPIC, feed=b"\n".join(b"%d" % number for number in range(1000)))
    assert pusher("tail", TOPIC, "--from-start", "-n", "3") == (0, b"0\n1\n2\n", "")
    assert pusher("tail", TOPIC, "--from-start", "--number", "700")[1].count(b"\n") == 700
    assert pusher("tail", TOPIC, "-n", "0") == (0, b"", "")


def test_tail_waits_for_a_topic_and_leaves_none_of_it_out(broker: SqliteBroker) -> None:
    enqueue("push-other_apns-single", feed=b"another\n")
    with subprocess.Popen([*PUSHER, "tail", TOPIC, "--wait", "-n", "1"], stdout=-1, stderr=-1) as process:
        assert process.stderr is not None
        assert b"waiting for it" in process.stderr.readline()
        enqueue(TOPIC, feed=b"first\n")
        assert process.communicate(timeout=60) == (b"first\n", b"")
        assert process.returncode == 0


def test_tail_begins_at_the_next_message(broker: SqliteBroker) -> None:
    enqueue(TOPIC, feed=b"old\n")
    with subprocess.Popen([*PUSHER, "tail", TOPIC, "-n", "1"], stdout=-1) as process:
        while process.poll() is None:
            enqueue(TOPIC, feed=b"new\n")
        assert process.communicate()[0] == b"new\n"


def test_tail_into_a_closed_pipe_ends_quietly(broker: SqliteBroker) -> None:
    enqueue(TOPIC, feed=b"line\n" * 100_000)
    done = subprocess.run(
        f"{' '.join(PUSHER)} tail {TOPIC} --from-start | head -n 1",
        shell=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"line\n", b"")


# --- Kafka


@pytest.mark.integration
def test_both_work_with_kafka(broker: SqliteBroker, kafka_brokers: str) -> None:
    topic = f"push-{uuid.uuid4().hex[:12]}_apns-single"
    lines = [b"%d" % number for number in range(500)]
    code, output, _ = enqueue(topic, "--brokers", kafka_brokers, feed=b"\n".join(lines))
    assert (code, output) == (0, f"enqueued 500 messages to {topic}\n".encode())
    code, output, _ = pusher("tail", topic, "--from-start", "-n", "500", "--brokers", kafka_brokers)
    assert code == 0
    assert sorted(output.splitlines()) == sorted(lines)
    assert not broker.path.exists()
