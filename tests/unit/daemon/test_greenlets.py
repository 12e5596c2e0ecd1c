"""Who owns greenlets: what one app's costs, and what everybody's."""

from __future__ import annotations

import gevent
import pytest

from lab.processes import wait_until
from pusher.backoff import BackOff
from pusher.daemon.greenlets import Greenlets


class Ends:
    """Counts deaths and keeps the troubles of an app."""

    def __init__(self) -> None:
        self.deaths = 0
        self.troubles: list[str] = []
        self.greenlets = Greenlets(self.died)

    def died(self) -> None:
        self.deaths += 1


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    monkeypatch.setattr("pusher.daemon.greenlets._BACK_OFF", BackOff(0.01, 0.01))
    return Ends()


def raising() -> None:
    raise ValueError("no good")


def returning() -> None:
    return


@pytest.mark.parametrize("run", [raising, returning])
def test_the_end_of_a_greenlet_that_must_run_ends_the_process(ends: Ends, run: object) -> None:
    ends.greenlets.spawn("stats", run)  # type: ignore[arg-type]
    wait_until(lambda: ends.deaths == 1, "the end")
    assert ends.greenlets.failure.startswith("stats: ")


def test_what_serves_one_app_begins_again_and_says_so_meanwhile(ends: Ends) -> None:
    began = 0

    def run() -> None:
        nonlocal began
        began += 1
        if began <= 3:
            raise ValueError("no good")
        gevent.sleep(60)

    ends.greenlets.spawn_for("game", "sender", run, ends.troubles.append)
    wait_until(lambda: began == 4, "four beginnings")
    assert ends.troubles == ["internal error in its sender: ValueError: no good", ""] * 3
    assert not ends.greenlets.failure
    assert ends.greenlets.stop(5) == []
    assert ends.deaths == 0


def test_what_fails_without_end_ends_the_process(ends: Ends) -> None:
    ends.greenlets.spawn_for("game", "sender", raising, ends.troubles.append)
    wait_until(lambda: ends.deaths == 1, "the end")
    assert "game sender" in ends.greenlets.failure


def test_a_failure_without_a_greenlet_ends_the_process_too(ends: Ends) -> None:
    ends.greenlets.fail("publisher", ValueError("no good"))
    assert ends.deaths == 1
    assert ends.greenlets.failure == "publisher: ValueError('no good')"
