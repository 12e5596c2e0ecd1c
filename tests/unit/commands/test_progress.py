"""Progress without a terminal: lines that a log can keep, and not too many."""

from __future__ import annotations

import pytest

from pusher.commands.progress import progress


def test_a_line_every_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with progress("enqueued", "B", 2_000, lambda: now) as bar:
        for second in range(11):
            now = float(second)
            bar.update(100)
    assert (
        capsys.readouterr().err == "pusher: enqueued: 600 of 2,000 B (30%)\npusher: enqueued: 1,100 of 2,000 B (55%)\n"
    )


def test_without_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with progress("read", "records", None, lambda: now) as bar:
        now = 5.0
        bar.update(3)
    assert capsys.readouterr().err == "pusher: read: 3 records\n"
