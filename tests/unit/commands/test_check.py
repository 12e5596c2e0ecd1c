"""``--check`` in the process: one line a finding, exit code 0 or 2."""

from pathlib import Path

import pytest

from pusher import config
from pusher.commands.check import check_listener, check_sender


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
    assert any(line.startswith("ok      feedback.reporters: none is named") for line in lines)


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
