"""The hash against a plain loop over the bytes, and the examples of the contract."""

from __future__ import annotations

import random

import pytest

from pusher.push.limits.fnv import fnv1a_64


def plainly(text: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in text:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found


def test_the_sample_of_a_device() -> None:
    (found,) = fnv1a_64([b"device123"])
    assert found == 14658911448323689405
    assert (found >> 48) % 100 == 78


def test_the_mark_of_a_push() -> None:
    assert fnv1a_64([b"device123|message123"]) == [14335911260761313854]


@pytest.mark.parametrize("number", [0, 1, 2, 63, 64, 65, 300])
def test_many_at_once_are_hashed_as_each_alone(number: int) -> None:
    draw = random.Random(number)
    texts = [draw.randbytes(draw.choice((0, 1, 5, 64, 129, 700))) for _ in range(number)]
    assert fnv1a_64(texts) == [plainly(text) for text in texts]


def test_octets_of_zero_count() -> None:
    texts = [b"\0", b"\0\0", b"", b"\0a", b"a\0"]
    assert fnv1a_64(texts) == [plainly(text) for text in texts]
