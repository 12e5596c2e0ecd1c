"""What a fault in one app's part costs, and how long."""

from __future__ import annotations

import pytest

from pusher.daemon.troubles import Troubles, internal_error


def broken() -> int:
    raise ValueError("no\ngood " * 100)


def test_a_fault_is_a_reason_of_one_short_line_until_the_part_works(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    assert troubles.contain("game", "upkeep", broken, 7) == 7
    assert troubles.contain("other", "upkeep", lambda: 3, 7) == 3
    (reason,) = troubles.reasons()
    assert reason.startswith("game: internal error in its upkeep: ValueError: no good no good")
    assert len(reason.splitlines()) == 1
    assert len(reason) < 400
    assert [troubles.is_in("game"), troubles.is_in("other"), troubles.apps("upkeep")] == [True, False, ["game"]]
    (line,) = [record for record in caplog.records if record.exc_info]
    assert vars(line)["fields"] == {"game": "game", "part": "upkeep"}
    assert troubles.contain("game", "upkeep", lambda: 3, 7) == 3
    assert troubles.reasons() == []


def test_a_fault_that_repeats_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    for _ in range(1_000):
        troubles.contain("repeating", "upkeep", broken, 7)
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_parts_of_an_app_have_troubles_of_their_own() -> None:
    troubles = Troubles()
    troubles.contain("game", "upkeep", broken, 0)
    troubles.note("game", "sender", internal_error("sender", "it returned"))
    troubles.contain("game", "upkeep", lambda: 0, 0)
    assert troubles.reasons() == ["game: internal error in its sender: it returned"]
