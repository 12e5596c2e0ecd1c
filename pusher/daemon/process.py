"""The common part of every long-running command: signals, waiting for an end, an ordered stop with a time limit."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from pusher.daemon import early
from pusher.daemon.greenlets import Greenlets
from pusher.telemetry import sentry
from pusher.telemetry.log import flush, logger
from pusher.telemetry.stacks import stacks

log = logger(__name__)

#: New containers between two looks at the youngest for cycles, which hardly any are part of. The interpreter's own 700
#: makes a look every few pushes, through the thousands that are in hand: a fifth of all CPU time.
_CONTAINERS_BETWEEN_COLLECTIONS = 50_000
#: What flushing outcomes and the last commit get, even when the grace time is used up.
FLUSH_AT_LEAST_S = 2.0
#: What the last log line gets to be written.
_LAST_LINE_S = 0.2
EXIT_STOPPED = 0
EXIT_FAILED = 1


class Step(NamedTuple):
    """A part of the stop order. ``run`` gets the seconds that are left and returns what did not end, or ""."""

    name: str
    run: Callable[[float], str]
    #: Seconds it gets even when the grace time is used up: without them finished work would be repeated.
    at_least_s: float = 0.0


class Daemon:
    """Runs until SIGINT or SIGTERM, or until a greenlet that must run has died.

    SIGHUP calls ``reload``, one call at a time; SIGUSR1 writes the stacks of all greenlets into the log.
    """

    def __init__(self, name: str, grace_s: float, reload: Callable[[], None]) -> None:
        _collect_seldom()
        self.name = name
        self._over = Event()
        self.greenlets = Greenlets(self._over.set)
        self._grace_s = grace_s
        self._signals = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._signalled, number)
        self._reload = reload
        self._reloading = BoundedSemaphore()
        gevent.signal_handler(signal.SIGHUP, self.reload)
        gevent.signal_handler(signal.SIGUSR1, _log_stacks)
        for noted in early.taken():
            self._signalled(noted)

    @property
    def stopping(self) -> bool:
        """Whether a signal, or the death of a greenlet, ends the process."""
        return self._over.is_set()

    def run(self, stop_order: Sequence[Step]) -> int:
        """Waits for the end, stops in order and returns the exit code. Waits up to the grace time, and little more."""
        self._over.wait()
        self.greenlets.may_end = True
        began = time.monotonic()
        left_over = [self._step(step, began) for step in stop_order]
        unfinished = [text for text in left_over if text]
        took = f"{time.monotonic() - began:.1f}s"
        if unfinished:
            log.warning("stopped, but not everything finished in time", took=took, unfinished="; ".join(unfinished))
        else:
            log.info("stopped gracefully", took=took)
        sentry.flush(2.0)
        return EXIT_FAILED if self.greenlets.failure else EXIT_STOPPED

    def failure(self) -> str:
        """The first greenlet that died, and why; "" while all run."""
        return self.greenlets.failure

    def end_greenlets(self, left_s: float) -> str:
        """A step of the stop order."""
        return ", ".join(self.greenlets.stop(left_s))

    def _step(self, step: Step, began: float) -> str:
        left_s = max(step.at_least_s, began + self._grace_s - time.monotonic())
        try:
            left_over = step.run(left_s)
        except Exception as error:  # noqa: BLE001 - the steps that follow must still run
            log.error("a step of the shutdown failed", step=step.name, error=repr(error))
            sentry.report_exception(None, step=step.name)
            return f"{step.name}: {error!r}"
        return f"{step.name}: {left_over}" if left_over else ""

    def reload(self) -> None:
        """Reloads, as SIGHUP does. Waits for its turn and for the reload; raises nothing."""
        with self._reloading:
            try:
                self._reload()
            except Exception:
                log.exception("reloading failed, nothing has changed")
                sentry.report_exception(None, signal="SIGHUP")

    def _signalled(self, number: int) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals > 1:
            log.warning("second signal, exiting at once", signal=name)
            flush(_LAST_LINE_S)
            os._exit(EXIT_FAILED)
        log.warning("stopping", signal=name, grace=f"{self._grace_s:g}s")
        self._over.set()


def _collect_seldom() -> None:
    """What the imports have made stays, and is never looked at again. Greenlets, which are counted, come later."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_CONTAINERS_BETWEEN_COLLECTIONS)


def _log_stacks() -> None:
    """A line for each frame, since line ends inside of a message are escaped."""
    for stack in stacks():
        for line in stack.split("\n"):
            log.warning(line)
