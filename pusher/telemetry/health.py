"""Whether a process can do all its work now, from the health of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pusher.telemetry.log import logger

log = logger(__name__)


class Health(NamedTuple):
    """Whether a part works; if not, one line says why and where."""

    ready: bool
    reason: str = ""


class Condition(NamedTuple):
    """The state of this moment. None where the provider has no such thing."""

    #: Open connections that take pushes.
    links: int
    #: The provider refuses the credentials.
    refused: bool
    #: Age of the token that the process itself signs.
    token_age_s: float | None = None
    #: Unix time at which the client certificate ends.
    certificate_ends_s: float | None = None
    #: Pushes a second that may be sent now: 0 while a quota is used up. None: as many as there are.
    pace_per_s: float | None = None
    #: Pushes a second that the provider took between the last two times that it filled its quota.
    quota_per_s: float | None = None


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
