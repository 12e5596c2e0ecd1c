"""Runs pusher with a resolver of our own and shorter waits: `altered.py CHANGES [pusher's arguments]`.

CHANGES (JSON) has `hosts`, a file of lines "ADDRESS NAME" that is read at each look-up, so that a name may change its
addresses, and `constants`, module constants and their values: minutes that a provider asks for become seconds.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import importlib  # noqa: E402 - gevent patches first
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.resolver.thread import Resolver  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from pusher.cli import main  # noqa: E402


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
    gevent.get_hub().resolver = HostsFile(Path(changes["hosts"]))  # type: ignore[assignment]  # as gevent documents
    for name, value in changes["constants"].items():
        module, _, constant = name.rpartition(".")
        if not hasattr(importlib.import_module(module), constant):
            raise SystemExit(f"{name} does not exist")
        setattr(importlib.import_module(module), constant, value)
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(run())
