"""``replay`` as users run it, on the embedded broker: what is chosen, what the copies are, and nothing sent twice."""

from __future__ import annotations

import logging
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from lab.processes import ROOT
from pusher.broker.interface import Header, Record
from pusher.broker.offsets import Commit
from pusher.broker.sqlite import SqlitePublisher, SqliteReader, SqliteSource
from pusher.commands import cli
from pusher.commands.replay import known
from pusher.commands.replay.copying import CopyRate, with_expiry
from pusher.commands.replay.known import DELIVERED, FAILED, WANTED, Finished, Known
from pusher.commands.replay.message import origin_ms, read_feedback, read_request, source_topic
from pusher.commands.replay.places import parse_place
from pusher.providers.apns.message import ApnsParser
from pusher.push.origin import ORIGIN_HEADER, origin, origin_headers
from pusher.push.push import derived_id
from tests.contract.brokers import receive, until
from tests.publisher import Clock
from tests.records import record

TOPIC, GROUP = "push-game_apns-single", "senders"
FEEDBACKS, INVALID, HELD = "push-game-apns-feedbacks", "push-game-apns-invalid", "push-game-apns-held"
GCM, GCM_FEEDBACKS = "push-game_gcm-single", "push-game-gcm-feedbacks"
TOKEN = "a1" * 32


class Stage:
    """An embedded broker, settings, and the command."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory, self._capture = directory, capture
        self.url = f"sqlite:///{directory}/queue.db"
        self.settings: dict[str, Any] = {
            "queue.brokers": self.url,
            "queue.group": GROUP,
            "feedbackListeners.queue.brokers": self.url,
            "feedbackListeners.queue.group": "listeners",
            "feedback.kafka.brokers": self.url,
            "feedback.reporters": ["kafka"],
            "apns.apps": "game,other",
            "gcm.apps": "game",
        }

    def write(self, topic: str, *values: object, headers: tuple[Header, ...] = ()) -> list[Record]:
        """Stores values, bytes as they are and all else as JSON; returns their records."""
        with closing(SqlitePublisher(self.url)) as publisher:
            for value in values:
                raw = value if isinstance(value, bytes) else orjson.dumps(value)
                publisher.publish(topic, raw, lambda _: None, headers)
            assert publisher.flush(20) == 0
        return self.read(topic)[-len(values) :]

    def push(self, count: int = 1, topic: str = TOPIC, **fields: object) -> list[Record]:
        return self.write(topic, *[{"DeviceToken": TOKEN, "Payload": {"n": n}, **fields} for n in range(count)])

    def read(self, topic: str) -> list[Record]:
        found: list[Record] = []
        with closing(SqliteReader(self.url, topic)) as reader:
            while more := reader.read(0):
                found += more
        return found

    def copies(self, topic: str = TOPIC) -> list[Record]:
        return [found for found in self.read(topic) if "pusher-origin" in dict(found.headers)]

    def finish(self, *, topic: str = TOPIC, but: tuple[int, ...] = (), group: str = GROUP) -> None:
        """The group reads the topic to its end, and finishes all ``but`` these offsets."""
        with closing(SqliteReader(self.url, topic)) as reader:
            end = reader.offsets("latest")[0]
            done = reader.committed(group).get(0, Commit(0, ""))
        source = SqliteSource(self.url, group, [topic], lambda _: True, offset_reset="earliest")
        finished = Finished({0: done})
        waiting = sum(not finished.has(0, found.offset) for found in self.read(topic) if found.offset < end)
        for tracker, delivered in receive(source, waiting):
            for found in delivered:
                if found.offset not in but:
                    tracker.finish(found.offset)
        source.close()
        self._capture.readouterr()

    def feed_back(self, records: list[Record], reason: str = "", key: str = "", *, dead: bool = False) -> None:
        """Outcomes of pushes to Apple; successes without a reason."""
        values = [
            {
                "Sent": not reason,
                "StatusCode": 503 if reason else 200,
                "Reason": reason,
                "ApnsID": derived_id(origin(found)),
                "Err": {"Key": key, "Description": ""} if reason else None,
                "DeviceToken": TOKEN,
                "timestamp": 1,
                "metadata": {"deleteToken": True} if dead else {},
            }
            for found in records
        ]
        self.write(FEEDBACKS, *values)

    def replay(self, *arguments: str, start: str = "earliest", topic: str = TOPIC) -> str:
        """Runs it to a good end; what it printed."""
        code, output, error = self.run("--topic", topic, "--from", start, *arguments)
        assert (code, error) == (0, ""), (code, output, error)
        return output

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = cli.main(["replay", *self.flags(), *arguments])
        output = self._capture.readouterr()
        return code, output.out, output.err

    def flags(self) -> list[str]:
        path = self.directory / "settings.yaml"
        path.write_bytes(orjson.dumps(self.settings))
        return ["--config", str(path)]


@pytest.fixture
def stage(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name in [name for name in os.environ if name.startswith("PUSHER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Stage(tmp_path, capsys)
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def rows(output: str) -> dict[str, int]:
    """The summary's table."""
    return {
        match[1].strip(): int(match[2].replace(",", ""))
        for match in re.finditer(r"^  (\S.*?)  +([\d,]+)$", output, re.MULTILINE)
    }


def ids(records: list[Record]) -> list[str]:
    return [derived_id(origin(found)) for found in records]


# --- copies


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(stage: Stage) -> None:
    stage.push(5)
    output = stage.replay()
    assert output.splitlines()[0] == f"{TOPIC}, offsets 0: 0-4"
    assert rows(output) == {"in the range": 5, f"chosen for {TOPIC}": 5}
    assert output.endswith("dry run: nothing was sent; add --yes to send\n")
    assert len(stage.read(TOPIC)) == 5


def test_copies_have_the_values_headers_and_ids_of_what_they_copy(stage: Stage) -> None:
    originals = stage.write(TOPIC, b'{"DeviceToken": "a1",  "Payload": 1.50}', headers=(("trace", b"\xff"),))
    output = stage.replay("--yes")
    (copy,) = stage.copies()
    assert copy.value == originals[0].value
    assert list(copy.headers) == [
        ("trace", b"\xff"),
        *origin_headers(f"{TOPIC}/0/0/{originals[0].timestamp}", copy.value or b""),
    ]
    assert ids([copy]) == ids(originals)
    assert output.endswith("sent 1\n")


def test_a_replay_of_a_replay_keeps_the_first_origin(stage: Stage) -> None:
    (first,) = stage.push()
    second, third = "push-game_apns-second", "push-game_apns-third"
    stage.push(topic=second)
    stage.push(topic=third)
    stage.replay("--yes", "--to-topic", second)
    stage.replay("--yes", "--to-topic", third, topic=second, start="1")
    (copy,) = stage.copies(third)
    assert dict(copy.headers)["pusher-origin"] == f"{TOPIC}/0/0/{first.timestamp}".encode()


def test_what_was_replayed_is_not_sent_once_more_unless_it_is_asked_for(stage: Stage) -> None:
    stage.push(3)
    stage.replay("--yes", "--to", "2")
    assert rows(stage.replay("--yes"))["left out: replayed before (--again sends them)"] == 4
    assert [found.offset for found in stage.copies()] == [3, 4, 5]
    assert ids(stage.copies()) == ids(stage.read(TOPIC)[:3])

    stage.finish(but=(3,))
    assert rows(stage.replay("--yes"))["left out: replayed before (--again sends them)"] == 6
    output = stage.replay("--yes", "--again", "--to", "3")
    assert rows(output)["left out: a copy waits in the target topic"] == 1
    assert ids(stage.copies()[3:]) == ids(stage.read(TOPIC)[1:3])


def test_a_message_whose_copies_are_in_the_range_is_sent_once(stage: Stage) -> None:
    stage.push(2)
    stage.replay("--yes")
    stage.finish()
    output = stage.replay("--yes", "--again")
    assert rows(output)["left out: copies of other messages in the range"] == 2
    assert len(stage.read(TOPIC)) == 6


def test_only_the_range_is_replayed(stage: Stage) -> None:
    stage.push(10)
    stage.replay("--yes", "--partition", "0", "--to", "7", start="4")
    assert ids(stage.copies()) == ids(stage.read(TOPIC)[4:7])
    assert "nothing to send" in stage.replay("--to", "5", start="5")
    assert rows(stage.replay("--to", "1000", "--again", start="0"))["in the range"] == 13


def test_a_range_may_be_given_as_times(stage: Stage) -> None:
    stage.push(3)
    assert rows(stage.replay(start="-1h"))["in the range"] == 3
    assert rows(stage.replay("--to", "-1h"))["in the range"] == 0
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    assert rows(stage.replay("--to", moment))["in the range"] == 3
    assert rows(stage.replay(start=moment))["in the range"] == 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("17", 17),
        ("latest", "latest"),
        ("-90s", 910.0),
        ("-1.5m", 910.0),
        ("1970-01-01T00:10", 600.0),
        ("1970-01-01 01:10:00.5+01:00", 600.5),
    ],
)
def test_places(text: str, place: object) -> None:
    assert parse_place(text, 1000.0) == place


# --- by outcome


def test_only_failures_are_sent_and_not_once_more_when_they_succeed(stage: Stage) -> None:
    pushes = stage.push(6)
    stage.finish()
    stage.feed_back(pushes[:2])
    stage.feed_back(pushes[2:4], "ServiceUnavailable", "service-unavailable")
    stage.feed_back(pushes[4:5], "Unregistered", "unregistered", dead=True)
    output = stage.replay("--failed-only", "--yes")
    assert rows(output) == {
        "in the range": 6,
        "left out: delivered": 2,
        "left out: they have no feedback": 1,
        "left out: dead tokens (--reason sends them)": 1,
        f"chosen for {TOPIC}": 2,
    }
    assert ids(stage.copies()) == ids(pushes[2:4])

    # They wait in the topic.
    assert rows(stage.replay("--failed-only"))["left out: a copy waits in the target topic"] == 4
    stage.finish()
    stage.feed_back(stage.copies()[:1])
    stage.feed_back(stage.copies()[1:], "InternalServerError", "internal-server-error")
    stage.replay("--failed-only", "--yes")
    assert ids(stage.copies()[2:]) == ids(pushes[3:4])


def test_what_was_once_delivered_has_not_failed(stage: Stage) -> None:
    pushes = stage.push(1)
    stage.finish()
    stage.feed_back(pushes)
    stage.feed_back(pushes, "Timeout", "timeout")
    assert "nothing to send" in stage.replay("--failed-only")


@pytest.mark.parametrize("reason", ["BadDeviceToken", "baddevicetoken", "bad-device-token"])
def test_a_reason_is_the_providers_word_or_ours_and_sends_dead_tokens_too(stage: Stage, reason: str) -> None:
    pushes = stage.push(3)
    stage.finish()
    stage.feed_back(pushes[:1], "BadDeviceToken", "bad-device-token", dead=True)
    stage.feed_back(pushes[1:2], "ServiceUnavailable", "service-unavailable")
    output = stage.replay("--reason", reason, "--yes")
    assert ids(stage.copies()) == ids(pushes[:1])
    assert rows(output)["left out: failed for other reasons"] == 1


def test_the_last_reason_counts(stage: Stage) -> None:
    pushes = stage.push(1)
    stage.finish()
    stage.feed_back(pushes, "ServiceUnavailable", "service-unavailable")
    stage.feed_back(pushes, "BadDeviceToken", "bad-device-token")
    assert "nothing to send" in stage.replay("--reason", "ServiceUnavailable")
    assert (
        rows(stage.replay("--reason", "ServiceUnavailable", "--reason", "BadDeviceToken"))[f"chosen for {TOPIC}"] == 1
    )


def test_where_successes_are_not_fed_back_a_failure_is_replayed_once_only(stage: Stage) -> None:
    stage.settings["feedback.successes"] = False
    pushes = stage.push(1)
    stage.finish()
    stage.feed_back(pushes, "Timeout", "timeout")
    stage.replay("--failed-only", "--yes")
    stage.finish()
    assert "nothing to send" in stage.replay("--failed-only")


# --- by missing feedback


def test_what_is_finished_and_has_no_feedback_is_sent(stage: Stage) -> None:
    now_ms = int(time.time() * 1000)
    pushes = stage.push(6)
    expired = stage.push(1, push_expiry=now_ms - 1)
    bad = stage.write(TOPIC, b"rubbish", {"DeviceToken": TOKEN, "game": "unknown when it came"})
    stage.write(INVALID, b"{}", headers=tuple(origin_headers(origin(bad[1]), b"{}")))
    stage.finish(but=(2, 5))
    stage.feed_back(pushes[:1])
    stage.feed_back(pushes[1:2], "Timeout", "timeout")
    output = stage.replay("--missing-feedback", "--yes")
    assert rows(output) == {
        "in the range": 9,
        "left out: the group has not finished them": 2,
        "left out: they have a feedback": 2,
        "left out: can never be sent": 2,
        "left out: expired (--expiry-seconds sends them)": 1,
        f"chosen for {TOPIC}": 2,
    }
    assert ids(stage.copies()) == ids(pushes[3:5])
    assert rows(stage.replay("--missing-feedback"))["left out: a copy waits in the target topic"] == 2

    # The copies are through, and one has no feedback either.
    stage.finish(but=(2, 5))
    stage.feed_back(stage.copies()[:1])
    stage.replay("--missing-feedback", "--yes", "--expiry-seconds", "60")
    assert ids(stage.copies()[2:]) == ids(pushes[4:5] + expired)


@pytest.mark.parametrize("limit", [{"apns.rateLimit.rpm": 20}, {"dedup": {"games": '{"game": 100}', "action": "drop"}}])
def test_what_may_have_been_limited_is_left_out_and_said_so(stage: Stage, limit: dict[str, Any]) -> None:
    pushes = stage.push(3)
    stage.finish()
    stage.feed_back(pushes[:1])
    stage.settings |= limit
    found = rows(stage.replay("--missing-feedback"))
    assert found["left out: possibly limited, which has no feedback (--limited sends them)"] == 2
    assert rows(stage.replay("--missing-feedback", "--limited"))[f"chosen for {TOPIC}"] == 2
    stage.settings |= {"apns.rateLimit.rpm": 0, "dedup": {"games": '{"game": 100}', "action": "count"}}
    assert rows(stage.replay("--missing-feedback"))[f"chosen for {TOPIC}"] == 2


def test_producers_may_give_ids_to_pushes_for_google(stage: Stage) -> None:
    pushes = stage.push(3, topic=GCM, to="t1:x", message_id="m1") + stage.push(1, topic=GCM, to="t1:x")
    stage.finish(topic=GCM)
    common = {"from": "t1:x", "category": "", "timestamp": 1, "metadata": {}}
    stage.write(
        GCM_FEEDBACKS,
        {
            "message_id": derived_id(origin(pushes[3])),
            "message_type": "nack",
            "error": "INTERNAL_SERVER_ERROR",
            **common,
        },
        {"message_id": derived_id(origin(pushes[3])), "message_type": "receipt", **common},
    )
    assert rows(stage.replay("--missing-feedback", topic=GCM))[f"chosen for {GCM}"] == 3
    stage.write(GCM_FEEDBACKS, {"message_id": "m1", "message_type": "ack", **common})
    assert "nothing to send" in stage.replay("--missing-feedback", topic=GCM)
    assert rows(stage.replay("--reason", "internal_server_error", topic=GCM))[f"chosen for {GCM}"] == 1


def test_missing_feedback_is_refused_where_it_cannot_be_known(stage: Stage) -> None:
    stage.push(1)
    flags = ("--topic", TOPIC, "--from", "0", "--missing-feedback")
    assert stage.run(*flags)[2] == f"pusher: the group {GROUP} has committed nothing in {TOPIC}\n"
    stage.finish()
    assert FEEDBACKS in stage.run(*flags)[2]

    stage.write(FEEDBACKS, {"old": 1})
    stage.replay("--missing-feedback")
    with sqlite3.connect(stage.directory / "queue.db") as connection:
        (number,) = connection.execute("SELECT id FROM topic WHERE name = ?", (FEEDBACKS,)).fetchone()
        connection.execute("DELETE FROM record WHERE id >> 40 = ?", (number,))
    connection.close()
    assert "does not reach back" in stage.run(*flags)[2]

    stage.settings["feedback.successes"] = False
    assert "feedback.successes is false" in stage.run(*flags)[2]
    stage.settings["feedback.reporters"] = []
    code, output, error = stage.run(*flags)
    assert (code, output) == (2, "")
    assert error == "pusher: feedback.reporters is empty: messages have no feedback\n"


# --- further choices


def test_a_token_may_be_chosen_by_its_beginning(stage: Stage) -> None:
    stage.write(TOPIC, *[{"devicetoken": f"{n}abc"} for n in range(3)])
    output = stage.replay("--token-prefix", "1a", "--yes")
    assert rows(output)["left out: other tokens"] == 2
    assert ids(stage.copies()) == ids(stage.read(TOPIC)[1:2])


def test_a_copy_is_not_born_expired(stage: Stage) -> None:
    now_ms = int(time.time() * 1000)
    stage.push(1, Push_Expiry=now_ms - 1)
    stage.push(1, push_expiry=now_ms + 3_600_000)
    stage.push(1)
    stage.push(1, topic="push-game_apns-other")
    output = stage.replay("--yes")
    assert rows(output)["left out: expired (--expiry-seconds sends them)"] == 1
    assert [found.value for found in stage.copies()] == [found.value for found in stage.read(TOPIC)[1:3]]

    output = stage.replay(
        "--yes", "--again", "--to-topic", "push-game_apns-other", "--expiry-seconds", "100", "--to", "3"
    )
    assert rows(output)["of these expired; they get 100 s to live"] == 1
    values = [orjson.loads(found.value or b"") for found in stage.copies("push-game_apns-other")[:2]]
    assert all(now_ms + 100_000 <= value["push_expiry"] < now_ms + 160_000 for value in values)
    assert all("Push_Expiry" not in value for value in values)


def test_numbers_keep_their_value_when_the_expiry_is_set() -> None:
    value = with_expiry(b'{"n": 1180591620717411303424, "f": 0.1, "PUSH_EXPIRY": 1}', 5)
    assert value == b'{"n":1180591620717411303424,"f":0.1,"push_expiry":5}'
    assert with_expiry(b"rubbish", 5) == b"rubbish"


# --- back from the invalid topic and from the held one
GOOD = {"DeviceToken": TOKEN}


def invalid_headers(
    source: str, error: str = "unknown-game: no app", offset: int = 0, value: object = GOOD
) -> tuple[Header, ...]:
    return (
        ("error", error.encode()),
        ("source-topic", source.encode()),
        ("source-partition", b"0"),
        ("source-offset", b"%d" % offset),
        ("source-timestamp", b"5"),
        *origin_headers(f"{source}/0/{offset}/5", orjson.dumps(value)),
    )


def test_invalid_messages_go_back_to_where_they_came_from(stage: Stage) -> None:
    good = GOOD
    stage.write("push-other_apns-single", {"first": 1})
    stage.push(1)
    stage.write(INVALID, good, headers=invalid_headers(TOPIC))
    stage.write(INVALID, good, headers=invalid_headers("push-other_apns-single", offset=7))
    stage.write(INVALID, {"DeviceToken": "a/b"}, headers=invalid_headers(TOPIC, "bad-token: x", 8))
    stage.write(INVALID, good, headers=invalid_headers("strange", offset=9))
    stage.write(INVALID, good)
    output = stage.replay("--yes", topic=INVALID)
    assert rows(output) == {
        "in the range": 5,
        "left out: no sender reads their topic": 2,
        "left out: can never be sent": 1,
        f"chosen for {TOPIC}": 1,
        "chosen for push-other_apns-single": 1,
    }
    for topic, number in ((TOPIC, 0), ("push-other_apns-single", 7)):
        (copy,) = stage.copies(topic)
        assert list(copy.headers) == [
            ("source-topic", topic.encode()),
            *origin_headers(f"{topic}/0/{number}/5", copy.value or b""),
        ]
    assert rows(stage.replay(topic=INVALID))["left out: replayed before (--again sends them)"] == 2


def test_invalid_messages_may_be_chosen_by_their_reason(stage: Stage) -> None:
    stage.push(1)
    stage.write(INVALID, {"DeviceToken": TOKEN}, headers=invalid_headers(TOPIC))
    stage.write(INVALID, {"DeviceToken": TOKEN}, headers=invalid_headers(TOPIC, "bad-token: x", 1))
    stage.replay("--yes", "--reason", "bad-token", topic=INVALID)
    (copy,) = stage.copies()
    assert dict(copy.headers)["pusher-origin"] == f"{TOPIC}/0/1/5".encode()


def test_held_feedbacks_go_back_to_the_feedbacks_unchanged(stage: Stage) -> None:
    pushes = stage.push(3)
    stage.feed_back(pushes[:2], "BadDeviceToken", "bad-device-token", dead=True)
    stage.feed_back(pushes[2:], "TopicDisallowed", "topic-disallowed")
    held = stage.read(FEEDBACKS)
    stage.finish(topic=FEEDBACKS, group="listeners")
    stage.write(HELD, *[found.value for found in held])
    stage.replay("--yes", "--reason", "BadDeviceToken", topic=HELD)
    assert [found.value for found in stage.copies(FEEDBACKS)] == [found.value for found in held[:2]]
    assert rows(stage.replay(topic=HELD))[f"chosen for {FEEDBACKS}"] == 1
    stage.finish(topic=FEEDBACKS, group="listeners")
    assert rows(stage.replay(topic=HELD))["left out: replayed before (--again sends them)"] == 2


# --- interruptions


def start(stage: Stage, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "pusher.py"), "replay", *stage.flags(), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_an_interrupted_replay_goes_on_where_it_was(stage: Stage) -> None:
    stage.push(60)
    flags = ("--topic", TOPIC, "--from", "0", "--to", "60", "--yes")
    for number in (signal.SIGINT, signal.SIGKILL):
        before = len(stage.copies())
        with start(stage, *flags, "--rate", "40/s") as process:
            until(lambda before=before: len(stage.copies()) > before + 5)  # type: ignore[misc]
            process.send_signal(number)
            output, error = process.communicate(timeout=30)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert error == b"pusher: interrupted, 0 not stored; run the same command to continue\n"
            assert f"sent {len(stage.copies())}\n" in output.decode()
    assert 10 < len(stage.copies()) < 60
    with start(stage, *flags) as process:
        output, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (0, b"")
    assert sorted(ids(stage.copies())) == sorted(ids(stage.read(TOPIC)[:60]))


def test_progress_is_shown_on_a_terminal(stage: Stage) -> None:
    stage.push(50)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    command = [sys.executable, str(ROOT / "pusher.py"), "replay", *stage.flags(), "--topic", TOPIC, "--from", "0"]
    try:
        process = subprocess.Popen([*command, "--yes"], stdout=subprocess.PIPE, stderr=end)
        os.close(end)
        shown = b""
        while select.select([terminal], [], [], 20)[0]:
            try:
                shown += os.read(terminal, 65_536)
            except OSError:  # the other end is closed
                break
        assert b"sent 50\n" in process.communicate(timeout=20)[0]
    finally:
        os.close(terminal)
    assert b"reading:   0%|" in shown
    assert b"sending:   0%|" in shown


def test_ctrl_c_while_it_reads_ends_quietly(stage: Stage) -> None:
    stage.push(20_000)
    with start(stage, "--topic", TOPIC, "--from", "0", "--yes", "--token-prefix", "none") as process:
        until(lambda: b"queue.db" in open_files(process.pid))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130


def open_files(pid: int) -> bytes:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(bytes(link.readlink()))
    return b" ".join(found)


def test_the_script_is_the_same_command(stage: Stage) -> None:
    stage.push(2)
    command = [sys.executable, str(ROOT / "scripts" / "replay.py"), *stage.flags(), "--topic", TOPIC, "--from", "-1h"]
    done = subprocess.run([*command, "--yes"], capture_output=True, timeout=30, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("sent 2\n")
    assert len(stage.copies()) == 2


def test_no_more_than_so_many_in_a_second() -> None:
    clock = Clock(100.0)
    pace = CopyRate(4, clock)
    waits = []
    for now in (100.0, 100.1, 101.0, 101.0):
        clock.now = now
        waits.append(pace.wait_s)
        pace.take()
    assert waits == pytest.approx([0, 0.15, 0, 0.25])
    assert CopyRate(0, clock).wait_s == 0


# --- what cannot be done


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--topic", "push-gone_apns-single"], "cannot read push-gone_apns-single: there is no such topic in"),
        (["--topic", FEEDBACKS], f"{FEEDBACKS} contains outcomes, which cannot be sent again"),
        (["--topic", "strange"], "strange is not a topic of requests: push-<game>_<apns or gcm>..."),
        (["--topic", TOPIC, "--partition", "3"], f"{TOPIC} has no partition 3: it has 1"),
        (["--topic", TOPIC, "--to-topic", GCM], f"--to-topic {GCM}: the messages are for apns"),
        (["--topic", TOPIC, "--to-topic", FEEDBACKS], f"{FEEDBACKS} is not a topic of requests"),
        (
            ["--topic", TOPIC, "--to-topic", "push-game_apns-gone"],
            "cannot read push-game_apns-gone: there is no such topic",
        ),
        (["--topic", TOPIC, "--missing-feedback", "--failed-only"], "a message without feedback has no failure and no"),
        (["--topic", HELD, "--failed-only"], f"{HELD} contains held feedbacks: use only --reason and --token-prefix"),
        (
            ["--topic", HELD, "--to-topic", TOPIC],
            f"--to-topic {TOPIC}: held feedbacks can only go to a topic of feedbacks",
        ),
        (["--topic", HELD, "--expiry-seconds", "5"], "--expiry-seconds: a feedback does not expire"),
        (["--topic", INVALID, "--missing-feedback"], f"{INVALID} contains invalid messages: use only --reason"),
        (["--topic", TOPIC, "--failed-only"], f"cannot read {FEEDBACKS}: there is no such topic"),
        (["--topic", TOPIC, "--brokers", "sqlite:///missing.db"], "missing.db does not exist"),
    ],
)
def test_what_cannot_be_done_says_why_in_a_line_and_ends_with_2(
    stage: Stage, arguments: list[str], complaint: str
) -> None:
    stage.push(1)
    stage.write("strange", {})
    stage.write(HELD, {})
    stage.write(INVALID, {})
    stage.finish()
    code, output, error = stage.run("--from", "0", *arguments)
    assert (code, output) == (2, "")
    assert error.startswith("pusher: ")
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "yesterday"], "'yesterday': expects an offset, earliest, latest, a time such as"),
        (["--from", "0", "--rate", "0"], "'0': expects a number above 0, such as 100/s"),
        (["--from", "0", "--expiry-seconds", "x"], "'x': expects a number of seconds above 0"),
        ([], "the following arguments are required: --from"),
    ],
)
def test_what_is_written_wrongly_is_told(
    stage: Stage, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        stage.run("--topic", TOPIC, *arguments)
    assert complaint in capsys.readouterr().err


def test_what_the_broker_refuses_is_told(stage: Stage) -> None:
    # Its value fits, but not together with the copy's header.
    room = 1024 * 1024
    stage.write(TOPIC, b'{"DeviceToken":"a1","x":"' + b"y" * (room - 27) + b'"}')
    stage.push(1)
    code, output, error = stage.run("--topic", TOPIC, "--from", "0", "--yes")
    assert code == 1
    assert output.endswith("sent 1\n")
    assert error.startswith(f"pusher: 1 refused, the first one because: {TOPIC}: 10486")


def test_a_range_of_too_many_messages_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MAX_MESSAGES", 4)
    stage.push(5)
    assert stage.run("--topic", TOPIC, "--from", "0")[2] == ("pusher: more than 4 messages: replay a shorter range\n")
    assert stage.run("--topic", TOPIC, "--from", "0", "--to", "4")[0] == 0


# --- what is known


def test_the_last_failure_counts_whichever_is_read_first() -> None:
    facts = Known()
    facts.add(b"a")
    facts.mark_failure(b"a", WANTED, 2_000)
    facts.mark_failure(b"a", 0, 1_000)
    assert facts.of(b"a") == FAILED | WANTED
    facts.mark_failure(b"a", 0, 3_000)
    facts.mark(b"a", DELIVERED)
    facts.mark_failure(b"stranger", 0, 1)
    assert facts.of(b"a") == FAILED | DELIVERED
    assert facts.of(b"stranger") == 0


def test_ranges_above_a_commit_are_finished() -> None:
    finished = Finished({0: Commit(10, "pusher1:2.3"), 2: Commit(5, "another program's")})
    assert [offset for offset in range(8, 18) if finished.has(0, offset)] == [8, 9, 12, 13, 14]
    assert finished.has(2, 4)
    assert not finished.has(1, 0)
    assert finished.starts == {0: 10, 2: 5}


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    "value",
    [
        b'{"ApnsID":%b,"DeviceToken":%b}' % (nested(900), nested(900)),
        b'{"message_type":"ack","message_id":%b,"from":7}' % nested(900),
    ],
)
def test_ids_and_tokens_of_other_types_are_none(value: bytes) -> None:
    feedback = read_feedback(value)
    assert feedback is not None
    assert (feedback.id, feedback.token) == ("", "")


@pytest.mark.parametrize("time_ms", [b"9" * 5_000, b"x", "\u0661".encode()])
def test_a_time_in_an_origin_that_is_none(time_ms: bytes) -> None:
    assert origin_ms(record(b"{}", headers=origin_headers("t/0/1/" + time_ms.decode(), b"{}"))) == -1


def test_headers_without_a_value_say_nothing() -> None:
    headers = [("error", b""), ("source-topic", b""), (ORIGIN_HEADER, b"")]
    odd = record({"DeviceToken": TOKEN, "Payload": {}}, headers=headers)
    assert source_topic(odd) == ""
    message = read_request(odd, TOPIC, ApnsParser(""))
    assert (message.reasons, message.invalid) == (("",), False)
    assert message.key == read_request(odd._replace(headers=()), TOPIC, ApnsParser("")).key
