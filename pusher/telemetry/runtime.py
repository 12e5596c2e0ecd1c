"""How big the process is: greenlets, memory, objects."""

from __future__ import annotations

import gc
import itertools
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gevent
from greenlet import greenlet

#: Objects looked at before other greenlets get their turn: about a millisecond.
_SLICE = 20_000


class Runtime(NamedTuple):
    """Figures of this moment."""

    greenlets: int
    resident_bytes: int
    blocks: int
    peak_bytes: int


def sample_runtime() -> Runtime:
    """Measures the process. Lets other greenlets run in between."""
    return Runtime(
        greenlets=sum(1 for _ in live_greenlets()),
        resident_bytes=_resident_bytes(),
        blocks=sys.getallocatedblocks(),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def live_greenlets() -> Iterator[greenlet]:
    """Greenlets that have not ended; only the garbage collector knows them all. Lets others run in between."""
    objects = iter(gc.get_objects())
    while part := list(itertools.islice(objects, _SLICE)):
        yield from [item for item in part if isinstance(item, greenlet) and not item.dead]
        gevent.sleep(0)


def _resident_bytes() -> int:
    """The second field of statm is the number of resident pages (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
