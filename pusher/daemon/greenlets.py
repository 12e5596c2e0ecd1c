"""The owner of the required greenlets.

If a required greenlet ends unexpectedly, the process logs this and stops in order. If a greenlet of a single app ends,
only that app is affected: the greenlet starts again after a while. After many failures in a row the process gives up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent.pool import Group

from pusher.backoff import BackOff
from pusher.daemon.troubles import internal_error
from pusher.telemetry import sentry
from pusher.telemetry.log import logger

log = logger(__name__)

#: Wait before a part of an app starts again.
_BACK_OFF = BackOff(min_s=1.0, max_s=60.0)
#: One that ran so long has recovered.
_RECOVERED_S = 600.0
#: Failures in a row after which the process ends, so that its supervisor restarts it: a quarter of an hour.
_MOST_FAILURES = 20


class Greenlets:
    """Named greenlets that are to run until they are stopped. ``on_death`` is called when one ends before."""

    def __init__(self, on_death: Callable[[], object]) -> None:
        self._group = Group()
        self._on_death = on_death
        self._of_apps: dict[str, list[gevent.Greenlet[[], object]]] = {}
        #: Set when the process stops: greenlets may now return.
        self.may_end = False
        #: The first greenlet that died, and why; "" while all run.
        self.failure = ""

    def spawn(self, name: str, run: Callable[[], object]) -> None:
        """Starts ``run``; its end, by return or by exception, is a death while it must run."""
        self._start(name, run)

    def _start(self, name: str, run: Callable[[], object]) -> gevent.Greenlet[[], object]:
        greenlet: gevent.Greenlet[[], object] = gevent.Greenlet(run)
        greenlet.name = name
        greenlet.link(self._ended)
        self._group.start(greenlet)
        return greenlet

    def spawn_for(self, app: str, name: str, run: Callable[[], object], trouble: Callable[[str], object]) -> None:
        """Starts ``run``, which serves one app; when it ends it is started again after a back-off.

        ``trouble`` gets the reason in one line when it begins to wait, in the greenlet of ``run``, and "" when it goes
        on.
        """
        greenlet = self._start(f"{app} {name}", lambda: self._begin_again(app, name, run, trouble))
        self._of_apps.setdefault(app, []).append(greenlet)

    def end_app(self, app: str, timeout_s: float) -> None:
        """Ends what ``spawn_for`` has started for an app; waits up to ``timeout_s``."""
        ending = self._of_apps.pop(app, [])
        for greenlet in ending:
            greenlet.unlink(self._ended)
        gevent.killall(ending, timeout=timeout_s)

    def fail(self, name: str, error: BaseException) -> None:
        """Reports that something without a greenlet here has failed: the process stops in order. Does not wait."""
        self._give_up(name, repr(error))
        sentry.report_exception((type(error), error, error.__traceback__), greenlet=name)

    def _begin_again(self, app: str, name: str, run: Callable[[], object], trouble: Callable[[str], object]) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                run()
                reason = "it returned"
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                log.exception("a part of an app has failed and starts again", game=app, part=name)
                sentry.report_exception(None, greenlet=f"{app} {name}")
                failures = 1 if time.monotonic() - began > _RECOVERED_S else failures + 1
                if failures > _MOST_FAILURES:
                    raise
            if self.may_end:
                return
            wait_s = _BACK_OFF.delay_s(max(1, failures))
            trouble(internal_error(name, reason))
            gevent.sleep(wait_s)
            trouble("")

    def stop(self, timeout_s: float) -> list[str]:
        """Kills what still runs; waits up to ``timeout_s``. Returns the names of those that did not end."""
        self.may_end = True
        self._group.kill(block=True, timeout=timeout_s)
        return [greenlet.name for greenlet in self._group.greenlets]

    def _ended(self, greenlet: gevent.Greenlet[[], object]) -> None:
        if self.may_end and greenlet.exception is None:
            return
        self._give_up(greenlet.name, repr(greenlet.exception) if greenlet.exception else "it returned")
        if greenlet.exc_info:
            sentry.report_exception(greenlet.exc_info, greenlet=greenlet.name)

    def _give_up(self, name: str, reason: str) -> None:
        self.failure = self.failure or f"{name}: {reason}"
        log.error("a required greenlet has died, the process stops", greenlet=name, error=reason)
        self._on_death()
