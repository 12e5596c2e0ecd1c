"""Who owns the greenlets that must run: an unexpected end of one of them ends the process, loudly and in order."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.pool import Group

from pusher.telemetry import sentry
from pusher.telemetry.log import logger

log = logger(__name__)


class Greenlets:
    """Named greenlets that are to run until they are stopped."""

    def __init__(self) -> None:
        self._group = Group()
        self._stopping = False
        #: The first greenlet that died, and why; "" while all run.
        self.failure = ""
        #: Set when one has died.
        self.died = Event()

    def spawn(self, name: str, run: Callable[..., object], *args: object) -> gevent.Greenlet:
        """Starts ``run``; its end, by return or by exception, is a failure unless ``stop`` was called."""
        greenlet = gevent.Greenlet(run, *args)
        greenlet.name = name
        greenlet.link(self._ended)
        self._group.start(greenlet)
        return greenlet

    def stop(self, timeout_s: float) -> list[str]:
        """Kills what still runs; waits up to ``timeout_s``. Returns the names of those that did not end."""
        self._stopping = True
        self._group.kill(block=True, timeout=timeout_s)
        return [greenlet.name for greenlet in self._group.greenlets]

    def _ended(self, greenlet: gevent.Greenlet) -> None:
        if self._stopping or isinstance(greenlet.value, gevent.GreenletExit):
            return
        reason = repr(greenlet.exception) if greenlet.exception else "it returned"
        self.failure = self.failure or f"{greenlet.name}: {reason}"
        log.error("a greenlet that must run has died, the process stops", greenlet=greenlet.name, error=reason)
        if greenlet.exc_info:
            sentry.report_exception(greenlet.exc_info, greenlet=greenlet.name)
        self.died.set()
