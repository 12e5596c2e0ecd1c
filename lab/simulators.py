"""Simulators in the process of a test, to which no client may break the protocol unnoticed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pusher.sim.simulator import Http2Simulator

Made = TypeVar("Made", bound=Http2Simulator)


@contextmanager
def simulators(make: Callable[..., Made]) -> Iterator[Callable[..., Made]]:
    """Gives what starts one of what ``make`` makes; ends them, and then looks for what clients did wrong."""
    started: list[Made] = []

    def start(*arguments: Any, **options: Any) -> Made:
        simulator = make(*arguments, **options)
        simulator.start()
        started.append(simulator)
        return simulator

    yield start
    for simulator in started:
        simulator.close()
    assert [error for simulator in started for error in simulator.server.protocol_errors] == []
