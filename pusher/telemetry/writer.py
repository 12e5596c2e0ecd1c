"""Writes lines to a descriptor from its own thread, so that a blocked reader stops nothing else.

A pipe holds 64 KiB, or as little as 4 KiB; then a write waits for its reader. Under gevent the whole process would
wait. The queue between them is limited in bytes; lines that do not fit are dropped and counted, and the count is
written when the reader continues. This is the one real thread of pusher's own: it touches nothing but its queue and its
descriptor.
"""

from __future__ import annotations

import _queue  # the C type itself: gevent replaces the name in `queue`, and this queue is between real threads
import os
import time
from collections.abc import Callable

from gevent.monkey import get_original

#: Octets that wait to be written: some 5,000 lines.
MAX_WAITING = 1 << 20
_LOOK_S = 0.01
#: Lines written at once: what a pipe of the usual size takes.
_MAX_CHUNK = 1 << 16

_start_thread = get_original("_thread", "start_new_thread")


class LineWriter:
    """Takes lines in any number and never waits. ``left_out(n)`` makes the line that says how many are missing."""

    def __init__(self, descriptor: int, left_out: Callable[[int], bytes], max_waiting: int = MAX_WAITING) -> None:
        self._descriptor, self._left_out, self._max_waiting = descriptor, left_out, max_waiting
        self._queue: _queue.SimpleQueue[bytes] = _queue.SimpleQueue()
        # Each of these is changed by one thread alone.
        self._taken = self._written = 0
        self._missing = 0
        self._started = False

    def write(self, line: bytes) -> None:
        """Queues a line, its end included. Never waits, never raises."""
        if self._taken - self._written + len(line) > self._max_waiting:
            self._missing += 1
            return
        if self._missing:
            line = self._left_out(self._missing) + line
            self._missing = 0
        self._taken += len(line)
        self._queue.put(line)
        if not self._started:
            self._started = True
            _start_thread(self._run, ())

    def flush(self, timeout_s: float) -> bool:
        """Waits, up to ``timeout_s``, until all is written; says whether it is. Lets other greenlets run."""
        if self._missing and self._taken == self._written:
            self.write(b"")
        deadline = time.monotonic() + timeout_s
        while self._written < self._taken:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True

    def _run(self) -> None:
        while True:
            chunk = self._queue.get()
            while len(chunk) < _MAX_CHUNK and not self._queue.empty():
                chunk += self._queue.get()
            self._write_all(chunk)
            self._written += len(chunk)

    def _write_all(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # another process has made the shared file description non-blocking
                _sleep(_LOOK_S)
            except OSError:
                # The reader or the descriptor is gone: the line cannot be written anywhere.
                return


_sleep = get_original("time", "sleep")
