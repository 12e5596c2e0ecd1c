"""A token endpoint that misbehaves costs its own app, and nobody else anything."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.oauth_peer import PEERS
from tests.hostile.stage import Stage, scenarios

PEER = Path(__file__).with_name("oauth_peer.py")
#: What every run of the tests plays.
SHORT = ("flood of 100 Continue",)


@scenarios(PEERS, SHORT)
def test_token_endpoint(stage: Stage, name: str) -> None:
    assert stage.play(account=stage.account_at(stage.peer(PEER, name))) == []
