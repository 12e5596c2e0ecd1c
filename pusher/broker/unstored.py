"""The state of every publisher: records that are neither stored nor refused, and the greenlets that work on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.pool import Group

from pusher.broker.interface import Done, Failed, PublishError
from pusher.telemetry.log import logger

log = logger(__name__)


class Taken(Protocol):
    """A record that a publisher has taken."""

    @property
    def done(self) -> Done:
        """Called once with the result of the record."""
        ...

    @property
    def size(self) -> int:
        """Its size in the buffer, in bytes."""
        ...


class Unstored:
    """Counts records from ``add`` to ``end``; more than ``buffer_kib`` of them are ``full``.

    ``failed`` is the owner of the publisher, such as ``Greenlets.fail``: it is told of a record whose ``done`` raises,
    for its offset would stay open for ever, and of a greenlet that dies, for nothing would be stored any more.
    """

    def __init__(self, buffer_kib: int, failed: Failed) -> None:
        self._limit_bytes, self._failed = buffer_kib * 1024, failed
        self.count = 0
        self._bytes = 0
        self._none = Event()
        self._none.set()
        self._greenlets = Group()
        #: Of a greenlet that died; "" while all run.
        self.failure = ""

    @property
    def full(self) -> bool:
        """Whether consuming should pause."""
        return self._bytes >= self._limit_bytes

    def add(self, record: Taken) -> None:
        """The publisher has taken a record."""
        if not self.count:
            self._none.clear()
        self.count += 1
        self._bytes += record.size

    def end(self, record: Taken, error: PublishError | None) -> None:
        """A record is stored, or refused for good. Raises nothing."""
        self.count -= 1
        self._bytes -= record.size
        try:
            record.done(error)
        except Exception as failure:  # noqa: BLE001 - the owner decides
            self._failed(failure)
        if not self.count:
            self._none.set()

    def wait(self, timeout_s: float) -> int:
        """Waits until there are none, up to ``timeout_s``; the number of those left."""
        self._none.wait(timeout_s)
        return self.count

    def start(self, name: str, run: Callable[[], object]) -> None:
        """Runs it in a greenlet of that name, which may end by itself but must not die."""
        greenlet: gevent.Greenlet[[], object] = gevent.Greenlet(run)
        greenlet.name = name
        greenlet.link_exception(self._died)
        self._greenlets.start(greenlet)

    def stop(self) -> None:
        """Kills the greenlets."""
        self._greenlets.kill()

    def give_up(self) -> None:
        """Logs how many records are left: their ``done`` is not called."""
        if self.count:
            log.warning("records were not published", records=self.count)

    def _died(self, greenlet: gevent.Greenlet[[], object]) -> None:
        error = greenlet.exception or RuntimeError(f"{greenlet.name} has ended")
        self.failure = repr(error)
        self._failed(error)
