"""The credentials in use, and the old ones to return to until the provider has accepted the new ones.

Credentials that can be read may still be refused by the provider; only the first answer shows it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

C = TypeVar("C")


class Rotation(Generic[C]):
    """``current`` is to be used now."""

    def __init__(self, first: C) -> None:
        self.current = first
        self._proved: C | None = None
        #: No answer has shown yet that the present ones are good.
        self.on_trial = False

    def change(self, new: C) -> None:
        """Uses new ones; those that were not proved are forgotten."""
        if self._proved is None:
            self._proved = self.current
        self.current, self.on_trial = new, True

    def accepted(self) -> None:
        """The provider takes the present ones."""
        self._proved, self.on_trial = None, False

    def go_back(self) -> bool:
        """The provider refuses the current credentials; returns false if there are no others."""
        if self._proved is None:
            return False
        self.current, self._proved, self.on_trial = self._proved, None, False
        return True
