"""The progress of a long command: a bar on a terminal, else a line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

_PERIOD_S = 5.0


class Progress(Protocol):
    """What is reported for each step."""

    def update(self, number: int) -> object:
        """So many units more are done. Never waits."""
        ...


@contextmanager
def progress(
    text: str, unit: str, total: int | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Shows the progress on stderr. ``unit`` is "B" for bytes; ``total`` None: it is not known."""
    if not sys.stderr.isatty():
        yield _Lines(text, unit, total, clock)
        return
    tqdm.monitor_interval = 0  # its thread would only look whether this one is still alive
    with tqdm(total=total, desc=text, unit=unit, unit_scale=unit == "B", leave=False) as bar:
        yield bar


class _Lines:
    """A line every ``_PERIOD_S``: a log keeps it, which a bar would spoil."""

    def __init__(self, text: str, unit: str, total: int | None, clock: Callable[[], float]) -> None:
        self._text, self._unit, self._total, self._clock = text, unit, total, clock
        self._done = 0
        self._next_at = clock() + _PERIOD_S

    def update(self, number: int) -> None:
        """See ``Progress``."""
        self._done += number
        if self._clock() < self._next_at:
            return
        self._next_at = self._clock() + _PERIOD_S
        of = f" of {self._total:,}" if self._total is not None else ""
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        sys.stderr.write(f"pusher: {self._text}: {self._done:,}{of} {self._unit.strip()}{share}\n")
        sys.stderr.flush()
