"""The listener killed and its PostgreSQL stopped while feedbacks come in: exactly the dead tokens go."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import topics
from bench.listener import Ground, success, token, unregistered
from tests.faults.driver import Driver
from tests.faults.ledger import DELIVERED, REJECTED, Verdict
from tests.faults.pace import Pace
from tests.faults.result import Result
from tests.faults.runs import kafka

TOPIC = "push-game-apns-feedbacks"
_TABLE = "game_apns"
_RATE_S = 1_000
_DEAD_EVERY = 10
_POSTGRES_GONE_S = 5


def listener(directory: Path, seed: int, feedbacks: int = 20_000) -> Result:
    """The listener killed three times with kill -9, PostgreSQL stopped for 5 s: the right rows are gone, no others."""
    draw = random.Random(seed)
    with kafka(directory) as server, ExitStack() as cleanup:
        ground = Ground(directory, cleanup, server, Driver.client)
        ground.make_table(_TABLE, feedbacks)
        topics.create(server.brokers, [TOPIC])
        texts = [unregistered(n) if n % _DEAD_EVERY == 0 else success(n) for n in range(feedbacks)]
        writer = threading.Thread(
            target=topics.write, args=(server.brokers, TOPIC, texts), kwargs={"rate_s": _RATE_S}, daemon=True
        )
        daemons = [ground.listen()]

        def kill() -> None:
            daemons[-1].kill()
            daemons.append(ground.listen())

        def postgres_gone() -> None:
            ground.stop_postgres()
            time.sleep(_POSTGRES_GONE_S)
            ground.start_postgres()

        faults = [("kill -9", kill)] * 3 + [(f"PostgreSQL stopped for {_POSTGRES_GONE_S} s", postgres_gone)]
        draw.shuffle(faults)
        events, pace = play(ground, writer, feedbacks, draw, faults)
        status = daemons[-1].stop()
        return result(ground, feedbacks, events, pace, status)


def play(
    ground: Ground,
    writer: threading.Thread,
    feedbacks: int,
    draw: random.Random,
    faults: Sequence[tuple[str, Callable[[], object]]],
) -> tuple[list[str], Pace]:
    """Each fault when so many feedbacks are committed; until all are."""
    events: list[str] = []
    pace, began = Pace(), time.monotonic()
    points = sorted(draw.randint(feedbacks * 5 // 100, feedbacks * 85 // 100) for _ in faults)
    waiting = list(zip(points, faults, strict=True))
    writer.start()
    deadline = began + 180
    while (done := ground.committed()) < feedbacks and time.monotonic() < deadline:
        pace.note(done, time.monotonic(), waiting=True)
        while waiting and done >= waiting[0][0]:
            _, (name, act) = waiting.pop(0)
            events.append(f"{time.monotonic() - began:6.1f} s {done:>8,} committed: {name}")
            act()
        time.sleep(0.05)
    writer.join()
    return events, pace


def result(ground: Ground, feedbacks: int, events: list[str], pace: Pace, status: int) -> Result:
    """Compares the table with what should be left of it."""
    dead = [token(number) for number in range(0, feedbacks, _DEAD_EVERY)]
    left = ground.query(f"SELECT count(*) FROM {_TABLE} WHERE token = ANY(%s)", dead)
    total = ground.query(f"SELECT count(*) FROM {_TABLE}")
    missing_rows = feedbacks - len(dead) - (total - left)
    complaints = [f"{left:,} dead tokens are left, {missing_rows:,} others are gone"] if left or missing_rows else []
    outcomes = Counter({DELIVERED: feedbacks - len(dead), REJECTED: len(dead)})
    verdict = Verdict(feedbacks, outcomes, left + missing_rows, 0, feedbacks, feedbacks, complaints)
    line = (
        f"{feedbacks:,} feedbacks, {len(dead):,} dead tokens: {left:,} left, {missing_rows:,} other rows missing; "
        f"{len(events)} faults, exit status {status}; longest standstill {pace.standstill_s:.1f} s"
    )
    good = verdict.good and status == 0 and ground.committed() == feedbacks
    return Result(verdict, good, line, events, 0, pace.standstill_s)


RUNS = {"listener": listener}
