"""Choices drawn from bytes: the same bytes make the same choices, and a byte changed changes one choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Reads an input from its beginning; when that is used up every number is 0 and every flag false."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._position)

    def number(self, below: int) -> int:
        """0 <= number < below, of as few octets as that takes."""
        octets = self.octets(((below - 1).bit_length() + 7) // 8)
        return int.from_bytes(octets, "big") % below

    def flag(self) -> bool:
        return self.number(256) & 1 == 1

    def one_in(self, times: int) -> bool:
        """Seldom true; never when the input is used up."""
        return self.number(256) % times == 1

    def choice(self, things: Sequence[T]) -> T:
        return things[self.number(len(things))]

    def octets(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        self._position += count
        return taken

    def short(self) -> bytes:
        """At most 255 octets."""
        return self.octets(self.number(256))

    def rest(self) -> bytes:
        return self.octets(self.left)
