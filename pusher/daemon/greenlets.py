"""Who owns the greenlets that must run: an unexpected end of one of them ends the process, loudly and in order."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent.pool import Group

from pusher.telemetry import sentry
from pusher.telemetry.log import logger

log = logger(__name__)


class Greenlets:
    """Named greenlets that are to run until they are stopped. ``on_death`` is called when one ends before."""

    def __init__(self, on_death: Callable[[], object]) -> None:
        self._group = Group()
        self._on_death = on_death
        #: Set when the process stops: greenlets may now return.
        self.may_end = False
        #: The first greenlet that died, and why; "" while all run.
        self.failure = ""

    def spawn(self, name: str, run: Callable[[], object]) -> None:
        """Starts ``run``; its end, by return or by exception, is a death while it must run."""
        greenlet: gevent.Greenlet[[], object] = gevent.Greenlet(run)
        greenlet.name = name
        greenlet.link(self._ended)
        self._group.start(greenlet)

    def stop(self, timeout_s: float) -> list[str]:
        """Kills what still runs; waits up to ``timeout_s``. Returns the names of those that did not end."""
        self.may_end = True
        self._group.kill(block=True, timeout=timeout_s)
        return [greenlet.name for greenlet in self._group.greenlets]

    def _ended(self, greenlet: gevent.Greenlet[[], object]) -> None:
        if self.may_end and greenlet.exception is None:
            return
        reason = repr(greenlet.exception) if greenlet.exception else "it returned"
        self.failure = self.failure or f"{greenlet.name}: {reason}"
        log.error("a greenlet that must run has died, the process stops", greenlet=greenlet.name, error=reason)
        if greenlet.exc_info:
            sentry.report_exception(greenlet.exc_info, greenlet=greenlet.name)
        self._on_death()
