"""What a process needs before its first import: signals that are not lost, and descriptors 0 to 2.

Imports take most of a second. A signal that arrives meanwhile is noted and takes effect when its handler is ready: a
daemon (``taken``), or Python itself for a command that ends by itself (``hand_over``). Imports nothing of pusher.
"""

import os
import signal
import sys
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_STOP = (signal.SIGINT, signal.SIGTERM)
_taken: list[int] = []
_noting: list[signal.Signals] = []


def take_signals() -> None:
    """Notes signals from now on; one that the parent had ignored (nohup) stays so."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)
            _noting.append(number)


def taken() -> tuple[int, ...]:
    """SIGINT and SIGTERM that were noted so far."""
    return tuple(number for number in _taken if number in _STOP)


def hand_over() -> None:
    """Gives the signals their usual meaning, and lets the first that was noted have its effect."""
    for noted in _noting:
        signal.signal(noted, signal.default_int_handler if noted == signal.SIGINT else signal.SIG_DFL)
    _noting.clear()
    for number in taken()[:1]:
        os.kill(os.getpid(), number)


def open_standard_descriptors() -> None:
    """Opens /dev/null where 0, 1 or 2 is closed: else a socket or file of ours would get that number."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)  # positional only
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115


def _note(number: int, _frame: FrameType | None) -> None:
    _taken.append(number)
