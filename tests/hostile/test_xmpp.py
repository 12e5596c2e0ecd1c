"""An XMPP server that misbehaves costs its own app, and nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.stage import Stage
from tests.hostile.xmpp_peer import PEERS, WITHOUT_TLS

PEER = Path(__file__).with_name("xmpp_peer.py")
#: What every run of the tests plays.
SHORT = ("flood of answers to nothing",)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    "name",
    [name if name in SHORT else pytest.param(name, marks=pytest.mark.hostile) for name in [*PEERS, *WITHOUT_TLS]],
)
def test_xmpp_server(stage: Stage, name: str) -> None:
    assert stage.play(**stage.xmpp_at(stage.peer(PEER, name))) == []
