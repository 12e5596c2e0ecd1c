"""A server of HTTP/2 that misbehaves to one app costs that app, and nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.http2_peer import PEERS
from tests.hostile.stage import Stage, scenarios

PEER = Path(__file__).with_name("http2_peer.py")
#: What every run of the tests plays.
SHORT = ("100 a second: settings of 2,700 parameters", "no streams")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, "apns") as found:
        yield found


@scenarios(PEERS, SHORT)
def test_http2_server(stage: Stage, name: str) -> None:
    certificate = stage.certificate()
    assert stage.play(certificate=certificate, port=stage.peer(PEER, name, stage.good.port)) == []
