"""Every input that fuzzing has kept, and some changes to each, through its target; no fuzzer is needed for that."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

CALLS_AN_OCTET = 200
#: All inputs together.
MAX_OCTETS = 400_000


@contextmanager
def counted(limit: int) -> Iterator[None]:
    """Counts calls, not seconds: more than ``limit`` is a fault, however fast the machine is."""
    calls = 0

    def count(*_event: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert calls <= limit


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_show_no_fault_and_cost_no_more_than_their_size_allows(name: str) -> None:
    kept = corpus.inputs(name)
    assert len(kept) >= 2
    for path in kept:
        data = path.read_bytes()
        with counted(TARGETS[name].calls + CALLS_AN_OCTET * len(data)):
            TARGETS[name].run(data)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.mutate])
def test_inputs_that_are_changed_show_no_fault(name: str) -> None:
    target = TARGETS[name]
    assert target.mutate is not None
    changed = set[bytes]()
    for seed, path in enumerate(corpus.inputs(name)):
        data = target.mutate(path.read_bytes(), random.Random(seed))
        changed.add(data)
        target.run(data[: target.max_octets])
    assert len(changed) > 1


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    assert {path.name for path in corpus.ROOT.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for name in TARGETS for path in corpus.inputs(name)) <= MAX_OCTETS
