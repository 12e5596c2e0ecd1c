"""``restore`` as a user meets it, with stores of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from pusher import config
from pusher.commands import restore
from pusher.commands.cli import main
from pusher.config import Config
from pusher.listener.store import DeadToken, Kept, NotDeleted, Restored, TokenStore, Wanted
from pusher.push.topics import TopicName

ARGUMENTS = ["restore", "--game", "game", "--platform", "apns", "--since", "2026-01-31"]


class Plain(TokenStore):
    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        return 0


class Keeping(Plain):
    """Has 2,500 rows, of which 100 are there again; breaks down after ``limit``."""

    def __init__(self, limit: int = 2_500) -> None:
        self.wanted: Wanted | None = None
        self.limit = limit

    def kept(self, wanted: Wanted) -> list[Kept]:
        self.wanted = wanted
        return [Kept("Unregistered", 2_000, "monday", "tuesday"), Kept("BadDeviceToken", 500, "monday", "monday")]

    def restore(self, wanted: Wanted) -> Iterator[Restored]:
        for rows in (1_000, 1_000, 500):
            if self.limit < rows:
                raise NotDeleted("the connection was lost")
            self.limit -= rows
            yield Restored(rows, rows - 100 * (rows == 500))


def run(monkeypatch: pytest.MonkeyPatch, stores: dict[str, TokenStore], *arguments: str) -> int:
    def opened(_: Config) -> dict[str, TokenStore]:
        return stores

    monkeypatch.setattr(restore, "open_stores", opened)
    monkeypatch.setattr(config, "load", lambda *_, **__: config.parse(""))
    return main([*ARGUMENTS, *arguments])


def test_without_an_archive_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(config, "load", lambda *_, **__: config.parse(""))
    assert main(ARGUMENTS) == 2
    text = "pusher: feedbackListeners.archive.table is not set: there is no archive, no row was kept\n"
    assert capsys.readouterr().err == text


def test_stores_that_keep_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, {"plain": Plain()}) == 2
    assert "keeps deleted rows: plain" in capsys.readouterr().err


def test_it_says_what_it_would_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    store = Keeping()
    assert run(monkeypatch, {"plain": Plain(), "rows": store}, "--reason", "Unregistered") == 0
    assert store.limit == 2_500
    assert store.wanted == Wanted(TopicName("game", "apns"), "2026-01-31", "", "Unregistered")
    assert capsys.readouterr().out.splitlines() == [
        "rows: 2,000 rows deleted as Unregistered from monday to tuesday",
        "rows: 500 rows deleted as BadDeviceToken from monday to monday",
        "rows: 2,500 rows would be restored; add --yes to do it",
    ]


def test_it_does_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, {"rows": Keeping()}, "--yes") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "rows: 2,400 rows restored, 100 already existed"


def test_what_broke_down_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, {"rows": Keeping(limit=1_500)}, "--yes") == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "rows: 1,000 rows restored, 1,500 are left: the connection was lost; run the command again"
