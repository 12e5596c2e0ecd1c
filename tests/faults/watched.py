"""Runs pusher and watches its hub: `watched.py REPORT [pusher's arguments]`.

Between SIGURG and SIGUSR2 each stretch between two switches of greenlets is measured, and REPORT (JSON) says how long
the longest ones were. Stretches count by the CPU time of the thread, which other processes on the machine do not
lengthen. A stretch outside the hub that lasted long and gave up the processor by itself has waited in a call that
blocks.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - gevent patches first
import resource  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import greenlet  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from pusher.commands.cli import main  # noqa: E402

#: A blocking call shorter than this does not matter.
LONG_S = 0.05
TICK_S = 0.01


class Watch:
    """Measures stretches between switches."""

    def __init__(self) -> None:
        self.switches = 0
        self.longest_cpu_s = 0.0
        self.longest_in = ""
        self.blocked: list[str] = []
        self.largest_lateness_s = 0.0
        self._hub = gevent.get_hub()

    def begin(self, *_: object) -> None:
        """Measures from now on."""
        self._since()
        greenlet.settrace(self._switched)
        self._ticker = gevent.spawn(self._tick)

    def end(self) -> None:
        """Measures no more."""
        greenlet.settrace(None)
        self._ticker.kill(block=False)

    def report(self) -> dict[str, Any]:
        """What was found."""
        return {
            "switches": self.switches,
            "longest_cpu_ms": self.longest_cpu_s * 1000,
            "longest_in": self.longest_in,
            "blocked": self.blocked,
            "largest_lateness_ms": self.largest_lateness_s * 1000,
        }

    def _since(self) -> None:
        self._cpu, self._clock, self._waits = time.thread_time(), time.monotonic(), waits()

    def _switched(self, _event: str, args: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        origin = args[0]
        cpu_s, clock_s = time.thread_time() - self._cpu, time.monotonic() - self._clock
        self.switches += 1
        if cpu_s > self.longest_cpu_s:
            self.longest_cpu_s, self.longest_in = cpu_s, where(origin)
        if clock_s > LONG_S and origin is not self._hub and waits() > self._waits:
            self.blocked.append(f"{clock_s * 1000:.0f} ms in {where(origin)}")
        self._since()

    def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_S
            gevent.sleep(TICK_S)
            self.largest_lateness_s = max(self.largest_lateness_s, time.monotonic() - due)


def waits() -> int:
    """How often this thread gave up the processor by itself."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def where(origin: greenlet.greenlet) -> str:
    """A greenlet, and where it was left."""
    frame = origin.gr_frame
    calls: list[str] = []
    while frame is not None and len(calls) < 6:
        calls.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return f"{origin!r}: {' < '.join(calls)}"


def run() -> int:
    watch = Watch()
    report = Path(sys.argv[1])

    def end(*_: object) -> None:
        watch.end()
        partial = report.with_suffix(".partial")
        partial.write_text(json.dumps(watch.report()))
        partial.rename(report)

    signal.signal(signal.SIGURG, watch.begin)
    signal.signal(signal.SIGUSR2, end)
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(run())
