"""The most telling faults of each provider, with real processes: short forms of `python -m tests.faults`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.fcm_provider_runs import fcm_provider
from tests.faults.provider_runs import apns_provider
from tests.faults.result import Result
from tests.faults.xmpp_provider_runs import xmpp_provider

TELLING: dict[Callable[..., Result], tuple[str, ...]] = {
    apns_provider: (
        "GOAWAY, what is open is refused",
        "cut in the middle of a frame",
        "RST_STREAM of every code",
        "certificate of a stranger for 3 s",
        "provider token expired",
    ),
    fcm_provider: ("access token revoked, 401", "token endpoint answers 503 for 3 s", "storm of 500"),
    xmpp_provider: ("CONNECTION_DRAINING, closed after 50 ms", "broken XML", "login refused for a while"),
}


@pytest.mark.integration
@pytest.mark.parametrize("run", TELLING, ids=lambda run: run.__name__)
def test_nothing_is_lost(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run(tmp_path, seed=1, pushes=400, only=TELLING[run])
    assert result.good, "\n".join([result.line, *result.events])
