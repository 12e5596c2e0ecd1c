"""The stack of every greenlet, for a process that does not work as it should.

Frames only: gevent's own listing shows arguments as well, and those hold tokens and payloads.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from greenlet import getcurrent, greenlet

from pusher.telemetry.runtime import live_greenlets


def stacks() -> list[str]:
    """One text a greenlet: its name and its frames, the outermost first. Lets other greenlets run in between."""
    return ["\n".join(_lines(one)) for one in live_greenlets()]


def _lines(one: greenlet) -> Iterator[str]:
    name = getattr(one, "name", "") or type(one).__name__
    yield f"{name}{' (this one)' if one is getcurrent() else ''}"
    for frame in traceback.extract_stack(one.gr_frame) if one.gr_frame else ():
        yield f"  {frame.filename}:{frame.lineno} {frame.name}"
