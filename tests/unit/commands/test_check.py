"""``--check`` in the process: one line a finding, exit code 0 or 2."""

from pathlib import Path

import pytest

from pusher import config
from pusher.broker import connect
from pusher.commands.check import check_listener, check_sender
from pusher.config import settings


def lines_of(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = check_sender("apns", config.parse(text))
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("host", "code", "finding"),
    [
        ("127.0.0.1", 0, "ok      stats.reporters statsd: stats.statsd.host: 127.0.0.1 is 127.0.0.1"),
        ("localhost", 0, "ok      stats.reporters statsd: stats.statsd.host: localhost is "),
        (
            "no-such-host.invalid",
            2,
            "failed  stats.reporters statsd: stats.statsd.host: no-such-host.invalid does not resolve (",
        ),
        (f"{'x' * 64}.invalid", 2, "failed  "),
    ],
)
def test_the_host_of_statsd_is_looked_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, code: int, finding: str
) -> None:
    text = f"queue.brokers: sqlite:///{tmp_path}/q.db\nstats.reporters: [statsd]\nstats.statsd.host: {host}:8125\n"
    found, lines = lines_of(text, capsys)
    assert found == code
    assert [line for line in lines if line.startswith(finding)]
    assert any(line.startswith("ok      feedback.reporters: no reporter is set") for line in lines)


def test_a_host_of_statsd_that_is_not_used_is_not_looked_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"queue.brokers: sqlite:///{tmp_path}/q.db\nstats.statsd.host: no-such-host.invalid:1\n"
    code, lines = lines_of(text, capsys)
    assert code == 0
    assert not [line for line in lines if "stats.statsd" in line]


def test_a_listener_without_guard_or_archive_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"feedbackListeners.queue.brokers: sqlite:///{tmp_path}/q.db\nfeedbackListeners.guard.enabled: false\n"
    text += "invalidToken.pg: {host: 127.0.0.1, port: 1, connectionTimeout: 100}\n"
    assert check_listener(config.parse(text)) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok      feedbackListeners.guard.enabled: the guard is off") for line in lines)
    assert any(line.startswith("ok      feedbackListeners.archive.table: no archive") for line in lines)


def made(tmp_path: Path, *names: str) -> str:
    """The address of an embedded broker with these topics."""
    address = f"sqlite:///{tmp_path}/queue.db"
    broker = connect.broker(config.parse(""), settings.QUEUE.at, address)
    publisher = broker.publisher()
    for name in names:
        publisher.publish(name, b"{}", lambda _: None)
    assert publisher.flush(10.0) == 0
    publisher.close()
    return address


def test_which_topics_are_read_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("push-game_apns-single", "push-stranger_apns-single", "push-game_gcm-single", "push-game-apns-feedbacks")
    address = made(tmp_path, *names, "orders")
    _, lines = lines_of(f"apns.apps: game\nqueue.brokers: {address}", capsys)
    (found,) = [line for line in lines if "queue.topics" in line]
    assert found == (
        "ok      queue.topics: read now: push-game_apns-single; ignored, topics of other platforms: "
        "push-game_gcm-single; topics of games that are not configured, whose messages are invalid: "
        "push-stranger_apns-single"
    )


def test_what_a_new_group_leaves_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = made(tmp_path)
    text = f"queue: {{brokers: '{address}', group: mine, offsetResetStrategy: %s}}"
    _, lines = lines_of(text % "latest", capsys)
    assert any("if the group mine is new, it skips the messages that already wait" in line for line in lines)
    _, lines = lines_of(text % "earliest", capsys)
    assert not any("skips" in line for line in lines)


def test_feedbacks_of_failures_only_and_a_listener_that_does_not_delete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = made(tmp_path, "push-game-apns-feedbacks")
    feedback = f"{{reporters: kafka, successes: false, kafka: {{brokers: '{address}'}}}}"
    _, lines = lines_of(f"queue: {{brokers: '{address}'}}\nfeedback: {feedback}", capsys)
    assert any("guard.successesExpected: false" in line for line in lines)
    check_listener(
        config.parse(
            f"feedbackListeners: {{queue: {{brokers: '{address}'}}, broker: {{invalidTokenEnabled: false}}, "
            "guard: {enabled: false}}"
        )
    )
    output = capsys.readouterr().out
    assert "read now: push-game-apns-feedbacks" in output
    assert "no token is deleted" in output
    assert "the guard is off" in output
