"""The stage that each scenario plays on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Its provider is the simulated FCM."""
    with Stage(tmp_path) as found:
        yield found
