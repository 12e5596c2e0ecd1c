"""Native threads for calls that wait in C, and the way back from them to the hub.

Library calls that may wait run in a thread; the greenlet that asked waits without the hub. Callbacks of the library run
in such threads, where nothing of gevent may be used: they go through ``in_hub``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent import monkey
from gevent.hub import Hub
from gevent.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

_allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")


class ThreadResult:
    """The result or exception of a function in another thread."""

    __slots__ = ("_error", "_value")

    def __init__(self) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> ThreadResult:
        """Calls the function; never raises."""
        try:
            self._value = function(*args)
        except BaseException as error:  # noqa: BLE001  # the waiting greenlet gets it
            self._error = error
        return self

    def get(self) -> Any:
        """The value; raises what was raised."""
        if self._error is not None:
            raise self._error
        return self._value


class Threads:
    """A few native threads; calls beyond their number wait for one."""

    def __init__(self, number: int) -> None:
        self._pool = ThreadPool(number)

    def call(self, function: Callable[P, T], *args: P.args, **_none: P.kwargs) -> T:
        """Runs the function in a thread and returns or raises its result. The greenlet waits, the hub does not."""
        # The pool itself would print whatever is raised.
        outcome: ThreadResult = self._pool.apply(ThreadResult().run, (function, args))
        found: T = outcome.get()
        return found

    def call_within(self, timeout_s: float, function: Callable[[], T]) -> T:
        """The same; raises ``TimeoutError`` after ``timeout_s``, and the thread goes on until the library returns."""
        with gevent.Timeout(timeout_s, TimeoutError(f"no answer within {timeout_s:g} s")):
            return self.call(function)

    def close(self) -> None:
        """Lets threads end as soon as they are idle. Never waits."""
        self._pool.maxsize = 0


def in_hub(hub: Hub, function: Callable[P, T], *args: P.args, **_none: P.kwargs) -> T:
    """From another thread: what the function returns or raises in a greenlet of the hub. The thread waits."""
    outcome, ended = ThreadResult(), _allocate_lock()
    ended.acquire()

    def run() -> None:
        outcome.run(function, args)
        ended.release()

    hub.loop.run_callback_threadsafe(gevent.spawn, run)
    ended.acquire()
    found: T = outcome.get()
    return found
