"""Whether a process can do all its work now; a line in the log whenever that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pusher.broker.interface import Health
from pusher.telemetry.log import logger

log = logger(__name__)


def reasons(parts: Mapping[str, Health]) -> list[str]:
    """Why parts do not work, one line each."""
    return [f"{name}: {health.reason}" for name, health in parts.items() if not health.ready]


class Readiness:
    """Follows ``unready``, the reasons why the process is not ready."""

    def __init__(self, unready: Callable[[], Sequence[str]]) -> None:
        self._unready = unready
        self._before = ""

    def report(self) -> None:
        """Called about once a second."""
        now = "; ".join(self._unready())
        if now and not self._before:
            log.warning("not ready", reason=now)
        elif self._before and not now:
            log.info("ready")
        self._before = now
