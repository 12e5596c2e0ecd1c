"""Runs pusher with a resolver of our own and shorter waits: `altered.py CHANGES [pusher's arguments]`.

CHANGES (JSON) may have `hosts`, a file of lines "ADDRESS NAME" that is read at each look-up, so that a name may change
its addresses; `constants`, module constants and their values: minutes that a provider asks for become seconds; `clock`,
a file with the seconds by which the wall clock is ahead, read again and again.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import importlib  # noqa: E402 - gevent patches first
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.resolver.thread import Resolver  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

#: How often the clock's file is looked at.
_LOOK_S = 0.1


def jumping(path: Path, now: Callable[[], float] = time.time) -> Callable[[], float]:
    """The wall clock, ahead by as many seconds as the file says."""
    seen_at = ahead_s = 0.0

    def wall_clock() -> float:
        nonlocal seen_at, ahead_s
        if now() - seen_at > _LOOK_S:
            seen_at, ahead_s = now(), float(path.read_text() or ahead_s)
        return now() + ahead_s

    return wall_clock


class HostsFile(Resolver):
    """Looks names up in the file, and those that do not stand there as ever."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def getaddrinfo(self, host: str, *args: Any, **options: Any) -> list[Any]:
        """Of all addresses of the name, in the order of the file."""
        lines = [line.split() for line in self._path.read_text().splitlines()]
        addresses = [address for address, name in lines if name == host] or [host]
        return [
            found for address in addresses for found in super(HostsFile, self).getaddrinfo(address, *args, **options)
        ]


def run() -> int:
    changes = json.loads(Path(sys.argv[1]).read_text())
    if "clock" in changes:
        time.time = jumping(Path(changes["clock"]))
    if "hosts" in changes:
        gevent.get_hub().resolver = HostsFile(Path(changes["hosts"]))  # type: ignore[assignment]  # as gevent documents
    from pusher.commands.cli import main  # only now: some take the clock while they are imported

    for name, value in changes.get("constants", {}).items():
        module, _, constant = name.rpartition(".")
        if not hasattr(importlib.import_module(module), constant):
            raise SystemExit(f"{name} does not exist")
        setattr(importlib.import_module(module), constant, value)
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(run())
