"""An XMPP server that misbehaves costs its own app, and nobody else anything."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.stage import Stage, scenarios
from tests.hostile.xmpp_peer import PEERS, WITHOUT_TLS

PEER = Path(__file__).with_name("xmpp_peer.py")
#: What every run of the tests plays.
SHORT = ("flood of answers to nothing",)


@scenarios([*PEERS, *WITHOUT_TLS], SHORT)
def test_xmpp_server(stage: Stage, name: str) -> None:
    assert stage.play(**stage.xmpp_at(stage.peer(PEER, name))) == []
