"""What stands in the place of Redis and misbehaves delays nobody, and every push goes."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.redis_peer import PEERS
from tests.hostile.stage import Stage, scenarios

PEER = Path(__file__).with_name("redis_peer.py")
#: What every run of the tests plays.
SHORT = ("flood of zeros",)


@scenarios(PEERS, SHORT)
def test_redis(stage: Stage, name: str) -> None:
    account = str(stage.directory / "good.json")
    # what asks it is the good app itself
    assert stage.play(account=account, records=[b"{}"], redis_port=stage.peer(PEER, name)) == []
