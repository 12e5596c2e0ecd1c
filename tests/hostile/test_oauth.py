"""A token endpoint that misbehaves costs its own app, and nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.oauth_peer import PEERS
from tests.hostile.stage import Stage

PEER = Path(__file__).with_name("oauth_peer.py")
#: What every run of the tests plays.
SHORT = ("flood of 100 Continue",)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.hostile) for name in PEERS]
)
def test_token_endpoint(stage: Stage, name: str) -> None:
    assert stage.play(account=stage.account_at(stage.peer(PEER, name))) == []
