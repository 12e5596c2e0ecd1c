"""A StatsD server that adds up the counters which the daemons of a run send, and keeps the last of each gauge."""

from __future__ import annotations

import socket
from collections import Counter
from types import TracebackType
from typing import Self

import gevent


class StatsD:
    """Listens on a free UDP port while it is entered."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        #: (name, tags) -> sum.
        self.counters: Counter[tuple[str, frozenset[str]]] = Counter()
        #: name -> last value.
        self.gauges: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._greenlet = gevent.spawn(self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more. May be called again."""
        self._greenlet.kill()
        self._socket.close()

    def count(self, name: str, *tags: str) -> int:
        """The sum of a counter over all series that have these tags ("game:x")."""
        wanted = frozenset(tags)
        return sum(n for (found, have), n in self.counters.items() if found == name and wanted <= have)

    def _receive(self) -> None:
        while True:
            for line in self._socket.recv(65_535).decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind, tags = rest.split("|", 2)
                if kind == "c":
                    self.counters[name, frozenset(tags.lstrip("#").split(","))] += int(value)
                elif kind == "g":
                    self.gauges[name] = float(value)
