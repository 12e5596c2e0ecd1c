"""The publishers of a process: one for each broker's address, since several kinds of records may go to one broker."""

from __future__ import annotations

import time

from pusher.broker.connect import open_publisher
from pusher.broker.interface import Failed, Publisher
from pusher.config import Config
from pusher.telemetry.health import Health


class Publishers:
    """Opens a publisher when it is first asked for. ``failed`` gets the error of a record whose end failed."""

    def __init__(self, config: Config, failed: Failed) -> None:
        self._config, self._failed = config, failed
        self._opened: dict[str, Publisher] = {}

    def at(self, address: str) -> Publisher:
        """The publisher of a broker. Does not wait for it."""
        if address not in self._opened:
            self._opened[address] = open_publisher(self._config, address, self._failed)
        return self._opened[address]

    @property
    def full(self) -> bool:
        """Whether one of them has no room, so that consuming should pause."""
        return any(publisher.full for publisher in self._opened.values())

    def health(self) -> dict[str, Health]:
        """Of each, by name."""
        return {f"publisher {address}": publisher.health() for address, publisher in self._opened.items()}

    def pending(self) -> dict[str, int]:
        """Records of each that are neither stored nor refused, by address."""
        return {address: publisher.pending for address, publisher in self._opened.items()}

    def flush(self, left_s: float) -> str:
        """A step of the stop order: waits until all is stored."""
        deadline = time.monotonic() + left_s
        left = sum(p.flush(max(0.0, deadline - time.monotonic())) for p in self._opened.values())
        return f"{left} records are not acknowledged" if left else ""

    def close(self, _left_s: float) -> str:
        """A step of the stop order."""
        for publisher in self._opened.values():
            publisher.close()
        return ""
