"""Runs a sender with a fault in one app: `faulty_sender.py FAULT FILE [pusher's arguments]`.

FAULT names what raises for the app `bad` while FILE exists. With `LATE` the app `bad` is set up while the upkeep of the
other one waits, and FILE is made when `bad` has had its upkeep. Apps that were skipped are
tried again after a second.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - gevent patches first
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pusher.commands.cli import main  # noqa: E402
from pusher.providers.apns import provider  # noqa: E402
from pusher.providers.apns.service import ApnsService  # noqa: E402
from pusher.push.lane import Lane  # noqa: E402
from pusher.sender import sender  # noqa: E402

AGAIN_S = 1.0
#: By fault: where the function is that raises.
FAULTS: dict[str, tuple[Any, str]] = {
    "set-up": (provider, "apns_credentials"),
    "start": (ApnsService, "start"),
    "upkeep": (Lane, "tick"),
    "health": (ApnsService, "health"),
    "figures": (ApnsService, "condition"),
    "reload": (provider, "apns_credentials"),
    "stop": (Lane, "leave_all"),
}
LATE = "late"


def app_of(arguments: tuple[Any, ...]) -> str:
    """Of a lane's method, of a service's, of a function that gets the configuration and the app."""
    first = arguments[0]
    if isinstance(first, Lane):
        return first.settings.app
    return str(first.lane.settings.app if isinstance(first, ApnsService) else arguments[1])


def change(where: Any, name: str, before: Callable[[str], None]) -> None:
    """Has ``before`` called with the app's name before a function is."""
    original = getattr(where, name)

    def changed(*arguments: Any) -> Any:
        before(app_of(arguments))
        return original(*arguments)

    setattr(where, name, changed)


def run(fault: str, file: Path) -> None:
    """Puts the fault in."""

    def fail(app: str) -> None:
        if app == "bad" and file.exists():
            raise RuntimeError("a fault\nof ours")

    def tick(app: str) -> None:
        if app == "good":
            gevent.sleep(3.0)
        else:
            file.touch()

    if fault == LATE:
        change(provider, "apns_credentials", lambda app: gevent.sleep(2.0 if app == "bad" else 0.0))
        change(Lane, "tick", tick)
    else:
        change(*FAULTS[fault], fail)


if __name__ == "__main__":
    sender._SET_UP_AGAIN_S = AGAIN_S
    run(sys.argv[1], Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
