"""What is read is handed on in parts, so that heartbeats and other apps have their turn."""

from __future__ import annotations

import pytest

from pusher.broker.interface import Record
from pusher.daemon.consuming import slices
from tests.records import record

KIB = 1024


def sizes(parts: list[list[Record]]) -> list[int]:
    return [len(part) for part in parts]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([10] * 250, [100, 100, 50]),
        ([50 * KIB] * 5, [2, 2, 1]),
        ([50_000 * KIB] * 3, [1, 1, 1]),
        ([10, 50_000 * KIB, 10, 10], [1, 1, 2]),
        ([None, None], [2]),
    ],
)
def test_parts_are_bounded_in_number_and_octets(values: list[int | None], expected: list[int]) -> None:
    records = [record(None if size is None else bytes(size), offset) for offset, size in enumerate(values)]
    parts = [list(part) for part in slices(records)]
    assert sizes(parts) == expected
    assert [one for part in parts for one in part] == records
