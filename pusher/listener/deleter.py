"""Dead tokens of one game and platform, from the buffer to the DELETE that has succeeded.

The buffer is flushed when it is big enough or old enough. Whatever is taken out of it stays in ``_parts`` until it is
deleted, held by the guard, or refused for good; each of these finishes the feedback, nothing else does. A failure that
is not a token's own is tried again for ever, with back-off, while the partitions of this game, and only these, are
paused. Games share nothing but the connections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent
from gevent.event import Event

from pusher.broker.offsets import State
from pusher.listener.database import DatabaseError, wait_s
from pusher.listener.guard import Guard, Seen, Stopped
from pusher.listener.held import Held
from pusher.listener.sorter import Dead
from pusher.listener.statement import Statement
from pusher.listener.tokens import Table, batches
from pusher.telemetry import metrics, sentry
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.stats import Stats

log = logger(__name__)
_seldom = Seldom(log, period_s=60)


@dataclass(frozen=True)
class FlushPolicy:
    """When tokens are deleted. Times in seconds."""

    #: Tokens that are deleted together.
    size: int
    interval_s: float
    #: Tokens that may wait besides the buffer before the game's partitions are paused.
    inbox: int


class Deleter:
    """The way of one game's tokens. ``run`` is to run in a greenlet of its own; nothing else waits."""

    def __init__(
        self,
        table: Table,
        hostname: str,
        policy: FlushPolicy,
        execute: Callable[[Statement], int],
        guard: Guard | None,
        held: Held,
        stats: Stats,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.table = table.owner, table.name
        self.guard, self.held = guard, held
        self._table, self._policy, self._execute, self._clock = table, policy, execute, clock
        self._buffer: list[Dead] = []
        self._oldest_at = 0.0
        #: What was taken from the buffer and is not deleted yet; the last one comes first.
        self._parts: list[list[Dead]] = []
        self._due = Event()
        self._hurried = False
        self._failure = ""
        #: For which reasons the guard has stopped deletion.
        self.stopped = Stopped()
        tags = (hostname, *table.owner)
        self._success = stats.counter(metrics.TOKENS_DELETE_SUCCESS, *tags)
        self._nonexistent = stats.counter(metrics.TOKENS_DELETE_NONEXISTENT, *tags)
        self._error = stats.counter(metrics.TOKENS_DELETE_ERROR, *tags)
        self._stops = stats.counter(metrics.GUARD_STOPPED, *tags)

    # --- in -----------------------------------------------------------------------------------------------------------
    @property
    def buffered(self) -> int:
        """Tokens that wait for the next DELETE."""
        return len(self._buffer)

    @property
    def deleting(self) -> int:
        """Tokens whose DELETE is under way or is tried again."""
        return sum(map(len, self._parts))

    @property
    def in_hand(self) -> int:
        """Feedbacks that are not finished."""
        return self.buffered + self.deleting + self.held.in_hand

    @property
    def blocked(self) -> str:
        """Why this game's tokens cannot be deleted now, one line; "" while they can."""
        return self._failure or self.held.blocked

    @property
    def full(self) -> bool:
        """Whether the game's partitions should be paused."""
        return bool(self.blocked) or self.in_hand >= self._policy.size + self._policy.inbox

    def put(self, dead: Sequence[Dead]) -> None:
        """Into the buffer."""
        if not self._buffer:
            self._oldest_at = self._clock()
        self._buffer.extend(dead)
        self._due.set()

    def hurry(self) -> None:
        """What is in the buffer is deleted without waiting for more."""
        self._hurried = True
        self._due.set()

    # --- out ----------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Deletes for ever. Called again after it has raised, it goes on with what it had taken."""
        while True:
            if not self._parts:
                self._wait()
                self._take()
            failures = 0
            while self._parts:
                if self._delete_next():
                    failures = 0
                else:
                    gevent.sleep(wait_s(failures))
                    failures += 1

    def _wait(self) -> None:
        """Until the buffer is due."""
        while True:
            self._due.clear()
            if self._buffer and (self._hurried or len(self._buffer) >= self._policy.size):
                return
            left_s = self._oldest_at + self._policy.interval_s - self._clock() if self._buffer else None
            if left_s is not None and left_s <= 0:
                return
            self._due.wait(left_s)

    def _take(self) -> None:
        self._hurried = False
        possible = [one for one in self._buffer if self._table.can_hold(one.token)]
        impossible = [one for one in self._buffer if not self._table.can_hold(one.token)]
        self._parts = list(batches(possible, self._policy.size))[::-1]
        self._buffer = []
        # No table holds them.
        self._nonexistent.add(len(impossible))
        for one in impossible:
            one.finish()

    def _delete_next(self) -> bool:
        """Deletes a part, or splits it where a token is to blame; false when it has to be tried again."""
        part = self._parts[-1] = self._permitted(self._parts[-1])
        try:
            rows = self._execute(self._table.delete({one.token: one.reason for one in part})) if part else 0
        except DatabaseError as error:
            if not error.row:
                self._fail(error)
                return False
            self._parts.pop()
            self._split(part, error)
        else:
            self._parts.pop()
            self._end_deleted(part, rows)
        self._recover()
        return True

    def _end_deleted(self, part: Sequence[Dead], rows: int) -> None:
        if not part:
            return
        self._success.add(rows)
        self._nonexistent.add(max(0, len(part) - rows))
        for one in part:
            one.finish()

    def _split(self, part: list[Dead], error: DatabaseError) -> None:
        """Halves until the token that is to blame stands alone."""
        if len(part) > 1:
            middle = len(part) // 2
            self._parts += [part[middle:], part[:middle]]
            return
        self._error.add()
        left_out = _seldom.turn(self.table)
        if left_out is not None:
            log.error("a token cannot be deleted", table=self.table, error=str(error), **left_out)
            sentry.report(f"a token cannot be deleted: {error}", handler="invalidToken", table=self.table)
        part[0].finish()

    # --- trouble ------------------------------------------------------------------------------------------------------
    def _fail(self, error: DatabaseError) -> None:
        if not self._failure:
            sentry.report(f"deleting tokens failed: {error}", handler="invalidToken", table=self.table)
        self._failure = f"deleting from {self.table} fails: {error}"
        _seldom.error(
            (self.table, str(error)), "deleting tokens failed, is tried again", table=self.table, error=str(error)
        )

    def _recover(self) -> None:
        if self._failure:
            self._failure = ""
            log.info("deleting tokens works again", table=self.table)

    # --- what must not be deleted -------------------------------------------------------------------------------------
    def _permitted(self, part: list[Dead]) -> list[Dead]:
        """Leaves out what belongs to a lost partition, and what the guard stops."""
        part = [one for one in part if one.tracker.state is not State.GONE]
        if self.guard is None or all(one.released for one in part):
            return part
        self._ask(self.guard)
        stopped = [one for one in part if self._is_stopped(one)]
        if stopped:
            self.held.take(stopped)
            part = [one for one in part if not self._is_stopped(one)]
        return part

    def _is_stopped(self, one: Dead) -> bool:
        return not one.released and (self.stopped.doubtful if one.doubtful else self.stopped.proven)

    def _ask(self, guard: Guard) -> None:
        now = self._clock()
        before, self.stopped = self.stopped, guard.stops(now)
        seen = guard.seen(now)
        self._tell("as by a wrong topic or environment", before.doubtful, self.stopped.doubtful, seen.doubtful, seen)
        self._tell("as if nearly all devices were gone", before.proven, self.stopped.proven, seen.proven, seen)

    def _tell(self, how: str, before: bool, now: bool, refusals: int, seen: Seen) -> None:
        if before is now:
            return
        where = {"game": self.name.game, "platform": self.name.platform}
        counts = {"refusals": refusals, "outcomes": seen.outcomes, "successes": seen.successes}
        if not now:
            log.warning("the guard lets tokens be deleted again", **where, **counts)
            return
        self._stops.add()
        text = f"too many tokens are refused {how}: the guard has stopped their deletion"
        log.error(text, **where, **counts)
        sentry.report(text, handler="invalidToken", **where)
