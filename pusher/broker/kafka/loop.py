"""What kafka-python's event loop waits in, made for gevent's hub: fewer turns, and no system calls but I/O.

The library's loop runs in a greenlet of its own and is woken through a pair of sockets; gevent's selector makes a new
watcher for each wait, and passes through the hub even where there is nothing to wait for. A message that arrives alone
then costs some twenty turns of the hub. Here a watcher lives as long as its socket, a wake-up is a flag, and a turn
that finds work at hand does not wait.
"""

from __future__ import annotations

import inspect
import logging
import math
import selectors
import threading
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from gevent import monkey
from gevent.hub import Waiter
from kafka import cluster, future
from kafka.consumer import subscription_state
from kafka.coordinator import base as coordinator
from kafka.net import selector
from kafka.producer import record_accumulator

#: The flags of a watcher are those of libev: 1 to read, 2 to write, as in ``selectors``.
_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE
#: After so long without a wait others have their turn, and I/O is looked at.
_TURN_S = 0.002
#: A wait whose end is later than what is to be done by no more than this need not be ended.
_SLACK_S = 0.005


class HubSelector(selectors.BaseSelector):
    """Waits for sockets, for a time, or for ``wake``. One greenlet waits; all are of one thread."""

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._watchers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        #: Watchers that have to be started before the next wait, by descriptor.
        self._resting: dict[int, Any] = {}
        #: What happened since the last wait, by descriptor.
        self._happened: dict[int, int] = {}
        self._waiter: Any = None
        self._woken = False
        self._waited_at = time.monotonic()
        #: When the wait that is going on ends at the latest (monotonic).
        self.waits_until = 0.0

    def wake(self) -> None:
        """Ends the wait that is going on, or else the next one. Never waits."""
        if not self._woken:
            self._woken = True
            if self._waiter is not None:
                self._hub.loop.run_callback(self._waiter.switch, None)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See ``selectors.BaseSelector``."""
        descriptor = fileobj.fileno()
        if descriptor < 0 or not events or events & ~_BOTH:
            raise ValueError(f"descriptor {descriptor}, events {events}")
        if descriptor in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        key = self._keys[descriptor] = selectors.SelectorKey(fileobj, descriptor, events, data)
        # A socket that is closed, whose number another one may get, is never waited for again.
        watcher = self._watchers.get(fileobj)
        if watcher is None:
            watcher = self._watchers[fileobj] = self._hub.loop.io(descriptor, events)
        elif watcher.events & _BOTH != events:
            watcher.events = events
        self._resting[descriptor] = watcher
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See ``selectors.BaseSelector``."""
        key = self.get_key(fileobj)
        del self._keys[key.fd]
        self._resting.pop(key.fd, None)
        self._happened.pop(key.fd, None)
        self._watchers[key.fileobj].stop()
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What happened; waits up to ``timeout`` s for something, for ever if None."""
        for descriptor, watcher in self._resting.items():
            watcher.start(self._note, descriptor, watcher, pass_events=True)
        self._resting.clear()
        if not self._happened and not self._woken and (timeout is None or timeout > 0):
            self._wait(timeout)
        elif time.monotonic() - self._waited_at > _TURN_S:
            gevent.sleep(0)
            self._waited_at = time.monotonic()
        self._woken = False
        happened, self._happened = self._happened, {}
        for descriptor in happened:
            self._resting[descriptor] = self._watchers[self._keys[descriptor].fileobj]
        return [(self._keys[descriptor], events) for descriptor, events in happened.items()]

    def _wait(self, timeout: float | None) -> None:
        waiter = self._waiter = Waiter(self._hub)
        timer, self.waits_until = None, math.inf
        if timeout is not None:
            self.waits_until = time.monotonic() + timeout
            timer = self._hub.loop.timer(timeout)
            timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            self._waiter, self.waits_until = None, 0.0
            self._waited_at = time.monotonic()
            if timer is not None:
                timer.stop()
                timer.close()

    def _note(self, events: int, descriptor: int, watcher: Any) -> None:
        """Called by the hub. The watcher rests until the loop has dealt with it, or it would fire again and again."""
        watcher.stop()
        self._happened[descriptor] = events
        if self._waiter is not None:
            self._waiter.switch(None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """See ``selectors.BaseSelector``. A closed socket is found too."""
        key = self._keys.get(fileobj.fileno())
        if key is None:
            key = next((key for key in self._keys.values() if key.fileobj is fileobj), None)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """By descriptor."""
        return self._keys

    def close(self) -> None:
        """Forgets all."""
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()
        self._keys.clear()
        self._resting.clear()
        self._happened.clear()


class _Threading:
    """The module ``threading`` with a lock that never waits.

    gevent's locks are written in Python, 2 us each time, and the library takes some sixty a message. Its greenlets are
    of one thread and wait for nothing while they hold one: a thread's own reentrant lock, which is C, does as well.
    """

    Lock = RLock = staticmethod(monkey.get_original("_thread", "RLock"))

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


def lighten() -> None:
    """Spares what the library does for threads and for those who debug it. May be called again."""
    for module in (cluster, coordinator, future, record_accumulator, subscription_state):
        module.threading = _Threading()
    selector.log_trace = _nothing
    selector._initialize_coro = _task_of  # noqa: SLF001
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("kafka.")]:
        logging.getLogger(name).debug = _nothing  # type: ignore[method-assign]  # pusher's log never shows it


_task_of_any = selector._initialize_coro  # noqa: SLF001
_SUSPENDED_CODE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _task_of(work: Any) -> Any:
    """What the library's loop runs: it asks six questions of a plain function, as each timer and call-back is one."""
    code = getattr(work, "__code__", None)
    return selector.yield_callback(work) if code and not code.co_flags & _SUSPENDED_CODE else _task_of_any(work)


def _nothing(*_: object, **__: object) -> None:
    pass


def wake_for_work(net: Any) -> None:
    """Wakes a loop that has got work from another greenlet, if it would begin with it too late."""
    scheduled = net._scheduled  # noqa: SLF001
    if net._ready or (scheduled and scheduled[0][0] < net._selector.waits_until - _SLACK_S):  # noqa: SLF001
        net.wakeup()
