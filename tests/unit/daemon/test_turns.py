"""A loop that gives way lets timers and sockets have their turn, not only greenlets that are ready."""

from __future__ import annotations

import time

import gevent

from pusher.providers.budget import Turns


def test_timers_fire_while_a_loop_gives_way() -> None:
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.001)

    ticking = gevent.spawn(tick)
    turns = Turns(0.001)
    rounds = 0
    while len(ticks) < 5 and rounds < 20:
        busy_until = time.monotonic() + 0.002
        while time.monotonic() < busy_until:
            pass
        turns.give_way()
        rounds += 1
    ticking.kill()
    assert len(ticks) >= 5
