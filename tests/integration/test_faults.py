"""The most telling faults of the group, the outputs and the disk: short forms of `python -m tests.faults`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.faults.disk_run import disk_full
from tests.faults.group_runs import partitions, stops, truncated
from tests.faults.limits_run import limits
from tests.faults.output_runs import refused
from tests.faults.runs import kills

SHORT = {
    "kills": partial(kills, pushes=3_000, times=2),
    "stops": partial(stops, pushes=2_000, times=2),
    "partitions": partial(partitions, pushes=1_500),
    "truncated": partial(truncated, pushes=900),
    "refused": partial(refused, pushes=600),
    "limits": partial(limits, pushes=6_000, devices=60, next_minute=False),
    "disk-full": partial(disk_full, pushes=2_000),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    result = SHORT[name](tmp_path, seed=1)
    assert result.good, "\n".join([result.line, *result.events])
