"""Whoever should read the log, and does not, costs lines: pushes, health and a stop go on."""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import pytest

from tests.hostile.stage import Stage, scenarios

OCTETS = 4_096
#: Each for a reason of its own, because five lines of one are enough.
RECORDS = [
    b"",
    b"{",
    b"[]",
    b'{"to":"\xff"}',
    b'{"to":7}',
    b'{"data":{"id":"1"}}',
    b'{"to":"a\\r\\nb: c"}',
    b'{"to":"a","data":7}',
    b'{"to":"a","push_expiry":"never"}',
    b'{"to":"a","metadata":7}',
    b'{"to":"a","data":{"a":' + b"[" * 500 + b"]" * 500 + b"}}",
    b'{"to":"a","notification":{"title":"' + b"t" * 70_000 + b'"}}',
] * 10


class Pipe:
    """A named pipe of the least size, and its reader, who does not read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._reading, fcntl.F_SETPIPE_SZ, OCTETS)

    @property
    def full(self) -> bool:
        """Whether it takes nothing more: octets lie in its only page, and a writer would have to wait."""
        writing = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            return not select.select([], [writing], [], 0)[1]
        finally:
            os.close(writing)

    def read_slowly(self) -> None:
        """An octet now and then."""
        while True:
            gevent.sleep(0.1)
            with suppress(BlockingIOError):
                os.read(self._reading, 1)

    def leave(self) -> None:
        """The reader goes away."""
        gevent.sleep(1.0)
        os.close(self._reading)
        self._reading = -1

    def close(self) -> None:
        if self._reading >= 0:
            os.close(self._reading)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    found = Pipe(tmp_path / "pipe")
    yield found
    found.close()


def wait(_: Pipe) -> None:
    """Nobody reads."""


#: Where the output goes, with {pipe} for the pipe, and what its reader does.
READERS: dict[str, tuple[str, Callable[[Pipe], object]]] = {
    "stderr that nobody reads": ("2>{pipe}", wait),
    "stdout and stderr that nobody reads": (">{pipe} 2>&1", wait),
    "stderr that is read an octet at a time": ("2>{pipe}", Pipe.read_slowly),
    "stderr whose reader goes away": ("2>{pipe}", Pipe.leave),
    "stderr on a full disk": ("2>/dev/full", wait),
    "stderr closed": ("2>&-", wait),
    "stdout closed": (">&-", wait),
    "stdin, stdout and stderr closed": ("<&- >&- 2>&-", wait),
}
#: What every run of the tests plays.
SHORT = ("stderr that nobody reads",)


@scenarios(READERS, SHORT)
def test_log_reader(stage: Stage, pipe: Pipe, tmp_path: Path, name: str) -> None:
    output, read = READERS[name]
    wrong = stage.play(
        records=RECORDS,
        account=str(stage.directory / "good.json"),
        output=output.format(pipe=tmp_path / "pipe"),
        meanwhile=lambda: read(pipe),
    )
    assert wrong == []
    if "{pipe}" in output and read is not Pipe.leave:
        assert pipe.full
