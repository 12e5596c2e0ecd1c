"""Deletes the dead tokens of one game and platform, from the buffer to the stores.

The buffer is flushed when it is big enough or old enough. Tokens taken out of it stay in ``_parts`` until every store
has deleted them or given them up, or the guard holds them; only this finishes the feedback. A failure that is not
caused by a token is retried without end, with back-off, while only the partitions of this game are paused. Games share
only the stores.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import gevent
from gevent.event import Event

from pusher.backoff import BackOff
from pusher.broker.offsets import State
from pusher.listener import settings
from pusher.listener.guard import Guard, Seen, Stopped
from pusher.listener.held import Held
from pusher.listener.opening import fault
from pusher.listener.sorter import Dead
from pusher.listener.store import DeadToken, NotDeleted, TokenStore
from pusher.push.topics import TopicName
from pusher.telemetry import metrics, sentry
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.stats import Stats

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

_BACK_OFF = BackOff(min_s=0.25, max_s=10.0)
#: Characters of tokens that a store gets at once; a token alone may have more.
_MAX_CHARACTERS = 1 << 20
#: A store that has not answered for so long is named.
_SLOW_S = 90.0
_SUCCESSES_EXPECTED = settings.GUARD_SUCCESSES_EXPECTED.key
#: How long a missing table is a reason not to be ready: a stray topic must not keep the process out of service.
MISSING_UNREADY_S = 60.0


@dataclass(frozen=True)
class FlushPolicy:
    """When tokens are deleted. Times in seconds."""

    #: Tokens that are deleted together.
    size: int
    interval_s: float
    #: Tokens that may wait besides the buffer before the game's partitions are paused.
    inbox: int


@dataclass
class _Part:
    """Tokens that are deleted together, and the stores that have not dealt with them yet."""

    dead: list[Dead]
    stores: set[str]


class Deleter:
    """The way of one game's tokens. ``run`` is to run in a greenlet of its own; nothing else waits."""

    def __init__(
        self,
        name: TopicName,
        hostname: str,
        policy: FlushPolicy,
        stores: Mapping[str, TokenStore],
        guard: Guard | None,
        held: Held,
        stats: Stats,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.guard, self.held = name, guard, held
        self._policy, self._stores, self._clock = policy, stores, clock
        #: The store whose rows are counted.
        self._counted = next(iter(stores), "")
        self._buffer: list[Dead] = []
        self._oldest_at = 0.0
        #: What was taken from the buffer and is not deleted yet; the last one comes first.
        self._parts: list[_Part] = []
        self._due = Event()
        self._hurried = False
        #: Why a store cannot delete now.
        self._failures: dict[str, str] = {}
        #: Since when nothing but a missing table stands in the way.
        self._missing_since: float | None = None
        #: For which reasons the guard has stopped deletion.
        self.stopped = Stopped()
        tags = (hostname, *name)
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
        return sum(len(part.dead) for part in self._parts)

    @property
    def in_hand(self) -> int:
        """Feedbacks that are not finished."""
        return self.buffered + self.deleting + self.held.in_hand

    @property
    def blocked(self) -> str:
        """Why this game's tokens cannot be deleted now, one line; "" while they can."""
        return "; ".join(self._failures.values()) or self.held.blocked

    @property
    def unready(self) -> str:
        """The same, if it makes the process not ready."""
        since = self._missing_since
        if since is not None and self._clock() - since > MISSING_UNREADY_S:
            return self.held.blocked
        return self.blocked

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
        """Flushes the buffer without waiting for more tokens."""
        self._hurried = True
        self._due.set()

    # --- out ----------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Deletes without end. Called again after an exception, it continues with the tokens that it had taken."""
        while True:
            if not self._parts:
                self._wait()
                self._take()
            failures = 0
            while self._parts:
                if self._delete_next():
                    failures = 0
                else:
                    failures += 1
                    gevent.sleep(_BACK_OFF.delay_s(failures, random.uniform(1.0, 1.5)))

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
        self._parts = [_Part(dead, set(self._stores)) for dead in batches(self._buffer, self._policy.size)][::-1]
        self._buffer = []

    def _delete_next(self) -> bool:
        """Deals with a part, or splits it where a token is to blame; false when it has to be tried again."""
        part = self._parts[-1]
        part.dead = self._permitted(part.dead)
        failures = self._ask_stores(part) if part.dead else {}
        self._note(failures, len(part.dead))
        blaming = {name: error for name, error in failures.items() if error.of_token}
        if blaming and len(part.dead) > 1:
            self._split()
            return True
        for name, error in blaming.items():
            self._give_up(name, error)
        part.stores = failures.keys() - blaming.keys()
        if part.stores:
            return False
        self._parts.pop()
        for one in part.dead:
            one.finish()
        return True

    def _split(self) -> None:
        """Halves the batch until the token that causes the failure is isolated."""
        part = self._parts.pop()
        middle = len(part.dead) // 2
        self._parts += [_Part(half, set(part.stores)) for half in (part.dead[middle:], part.dead[:middle])]

    # --- stores -------------------------------------------------------------------------------------------------------
    def _ask_stores(self, part: _Part) -> dict[str, NotDeleted]:
        """Asks the stores of a part, side by side: why some of them could not delete. Waits for all of them."""
        # of a token that comes twice the latest word counts
        by_time = sorted(part.dead, key=attrgetter("told_ms"))
        tokens = list({one.token: DeadToken(one.token, one.reason, one.told_ms) for one in by_time}.values())
        asked = {name: gevent.spawn(self._delete_from, name, tokens, len(part.dead)) for name in sorted(part.stores)}
        try:
            while late := [name for name, one in asked.items() if not one.ready()]:
                gevent.joinall([asked[name] for name in late], timeout=_SLOW_S)
                for name in late:
                    if not asked[name].ready():
                        self._tell_failure(name, NotDeleted(f"has not answered for {_SLOW_S:g} s"))
        finally:
            gevent.killall(list(asked.values()))
        answers = {name: one.value if one.successful() else _fault(one.exception) for name, one in asked.items()}
        return {name: error for name, error in answers.items() if error is not None}

    def _delete_from(self, name: str, tokens: list[DeadToken], feedbacks: int) -> NotDeleted | None:
        try:
            rows = self._stores[name].delete(self.name, tokens)
        except NotDeleted as error:
            return error
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001  # a fault in a plug-in costs another try
            return _fault(error)
        if name == self._counted:
            self._success.add(rows)
            self._nonexistent.add(max(0, feedbacks - rows))
        return None

    def _give_up(self, name: str, error: NotDeleted) -> None:
        """Handles a token that a store refuses, whatever other tokens are in the batch."""
        self._error.add()
        left_out = _seldom.turn((self.name, name))
        if left_out is not None:
            log.error("a token cannot be deleted", store=name, **self._where, error=str(error), **left_out)
            sentry.report(f"a token cannot be deleted: {error}", handler="invalidToken", store=name, **self._where)

    # --- trouble ------------------------------------------------------------------------------------------------------
    @property
    def _where(self) -> dict[str, str]:
        return {"game": self.name.game, "platform": self.name.platform}

    def _note(self, failures: Mapping[str, NotDeleted], feedbacks: int) -> None:
        """Notes the result of the last attempt: each failure is counted, and logged when it is new."""
        lasting = {name: error for name, error in failures.items() if not error.of_token}
        for name, error in lasting.items():
            self._error.add(feedbacks)
            self._tell_failure(name, error)
        for name in self._failures.keys() - lasting.keys():
            del self._failures[name]
            log.info("deleting tokens works again", store=name, **self._where)
        if not lasting or not all(error.missing for error in lasting.values()):
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = self._clock()

    def _tell_failure(self, name: str, error: NotDeleted) -> None:
        if name not in self._failures:
            sentry.report(f"deleting tokens failed: {error}", handler="invalidToken", store=name, **self._where)
        self._failures[name] = f"deleting tokens of {self.name.game} {self.name.platform}: {name}: {error}"
        text = "deleting tokens failed, retrying"
        _seldom.error((self.name, name, str(error)), text, store=name, **self._where, error=str(error))

    # --- what must not be deleted -------------------------------------------------------------------------------------
    def _permitted(self, part: list[Dead]) -> list[Dead]:
        """Leaves out what belongs to a lost partition, and what the guard stops."""
        part = [one for one in part if one.tracker.state is not State.GONE]
        if self.guard is None or all(one.released for one in part):
            return part
        self._ask_guard(self.guard)
        stopped = [one for one in part if self._is_stopped(one)]
        if stopped:
            self.held.take(stopped)
            part = [one for one in part if not self._is_stopped(one)]
        return part

    def _is_stopped(self, one: Dead) -> bool:
        return not one.released and (self.stopped.doubtful if one.doubtful else self.stopped.proven)

    def _ask_guard(self, guard: Guard) -> None:
        now = self._clock()
        before, self.stopped = self.stopped, guard.stops(now)
        seen = guard.seen(now)
        self._tell("as by a wrong topic or environment", before.doubtful, self.stopped.doubtful, seen.doubtful, seen)
        self._tell("as if nearly all devices were gone", before.proven, self.stopped.proven, seen.proven, seen)

    def _tell(self, how: str, before: bool, now: bool, refusals: int, seen: Seen) -> None:
        if before is now:
            return
        counts = {"refusals": refusals, "outcomes": seen.outcomes, "successes": seen.successes}
        if not now:
            log.warning("the guard allows deletion again", **self._where, **counts)
            return
        self._stops.add()
        text = f"too many tokens are refused, {how}: the guard has stopped their deletion"
        if not seen.successes:
            text += f" (no success was seen; if senders publish only failures, set {_SUCCESSES_EXPECTED} to false)"
        log.error(text, **self._where, **counts)
        sentry.report(text, handler="invalidToken", **self._where)


def _fault(error: BaseException | None) -> NotDeleted:
    return NotDeleted(f"raised {fault(error)}" if error is not None else "has not ended")


def batches(dead: Sequence[Dead], size: int) -> Iterator[list[Dead]]:
    """Cuts into parts of at most ``size`` tokens that are not too much for a statement."""
    part: list[Dead] = []
    characters = 0
    for one in dead:
        if part and (len(part) >= size or characters + len(one.token) > _MAX_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(one)
        characters += len(one.token)
    if part:
        yield part
