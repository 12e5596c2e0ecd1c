"""Which pushes of a device are sent: asks Redis once for each batch, before it goes to the links.

An outage of Redis stops no push: pushes without an answer are sent and counted, and one line a minute says why.
Redis is asked about a push once: retries and resends do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pusher.config.values import Config
from pusher.push.lane import Lane
from pusher.push.limits import settings
from pusher.push.limits.cluster import Cluster
from pusher.push.limits.fnv import fnv1a_64
from pusher.push.limits.rules import DeviceRules, rules
from pusher.push.limits.script import BATCH, COUNTERS_DB, FORGET, MARKS_DB, Asked, Finding, head
from pusher.push.limits.server import RedisAddress, RedisConnections, RedisUnavailable
from pusher.push.outcome import DUPLICATE, RATE_LIMITED, Outcome
from pusher.push.push import Push
from pusher.telemetry import metrics
from pusher.telemetry.log import Seldom, few, logger
from pusher.telemetry.stats import Stats

log = logger(__name__)
_few = few(log)
_seldom = Seldom(log, period_s=60)

P = TypeVar("P", bound=Push)
_SENT = ord("0")


class Limits:
    """The servers of a process, and a gate for each of its apps. ``loops`` have to run."""

    def __init__(self, config: Config, platform: str, hostname: str, stats: Stats) -> None:
        self._config, self._platform, self._hostname, self._stats = config, platform, hostname, stats
        counters, marks = RedisAddress.of(config, settings.RATE_LIMITER), RedisAddress.of(config, settings.DEDUP)
        self.counters = _open(counters, COUNTERS_DB)
        #: The same server as ``counters`` where both are counted there: then one question does for both.
        self.marks = self.counters if marks == counters else _open(marks, MARKS_DB)

    def loops(self) -> dict[str, Callable[[], None]]:
        """Functions that must each run in their own greenlet, by name."""
        return {f"redis {server.address} {name}": server.run for name, server in self._servers().items()}

    def gate(self, lane: Lane[P]) -> DeviceGate[P] | None:
        """The gate of an app; None if the app has no rules."""
        found = rules(self._config, self._platform, lane.settings.app)
        return DeviceGate(lane, found, self, self._hostname, self._stats) if found.is_on else None

    def shown(self, apps: Sequence[str]) -> dict[str, object]:
        """The rules and the servers, as fields of a line."""
        found = {app: rules(self._config, self._platform, app) for app in apps}
        compared = [app for app, own in found.items() if own.compares]
        shown: dict[str, object] = {}
        if any(own.limit for own in found.values()):
            shown |= {"rpm": max(own.limit for own in found.values()), "counters": self.counters.address}
        if compared:
            shown |= {"compared": ",".join(compared), "duplicates": self._config[settings.DEDUP_ACTION]}
            shown |= {"marks": self.marks.address}
        return shown

    def close(self) -> None:
        """Closes the connections. Never waits."""
        for server in self._servers().values():
            server.close()

    def _servers(self) -> dict[str, RedisConnections | Cluster]:
        if self.marks is self.counters:
            return {"limits": self.counters}
        return {"rate limit": self.counters, "duplicates": self.marks}


def _open(address: RedisAddress, db: str) -> RedisConnections | Cluster:
    return Cluster(address) if address.cluster else RedisConnections(address, db)


class DeviceGate(Generic[P]):
    """The gate that an app's pushes pass before they go to the links."""

    def __init__(
        self,
        lane: Lane[P],
        own: DeviceRules,
        limits: Limits,
        hostname: str,
        stats: Stats,
    ) -> None:
        self._lane, self._rules, self._limits = lane, own, limits
        self.wall_clock: Callable[[], float] = time.time
        app, platform = lane.settings.app, lane.settings.platform
        self._app = app
        self._reached = stats.counter(metrics.RATE_LIMIT_REACHED, platform, app)
        self._failed = stats.counter(metrics.RATE_LIMIT_FAILED, platform, app)
        self._duplicates = stats.counter(metrics.DUPLICATED_MESSAGES, hostname, app, platform)
        self._errors = stats.counter(metrics.DEDUP_ERRORS, hostname, app, platform)

    def admit(self, pushes: list[P]) -> list[P]:
        """Returns the pushes that may be sent; the others are finished. Waits up to 100 ms for each server."""
        fresh = [push for push in pushes if not getattr(push, "admitted", False)]
        if not fresh:
            return pushes
        answers = self._answers(fresh)
        for push in fresh:
            push.admitted = True
        if answers.count(b"0") == len(answers):
            return pushes
        for push, answer in zip(fresh, answers, strict=True):
            if answer != _SENT:
                self._judge(push, Finding(answer - _SENT))
        return [push for push in pushes if not push.finished]

    # --- questions ----------------------------------------------------------------------------------------------------
    def _answers(self, pushes: Sequence[P]) -> bytes:
        own = self._rules
        counters = self._counters(pushes) if own.limit else [""] * len(pushes)
        marks = self._marks(pushes) if own.compares else [""] * len(pushes)
        ids = [push.id for push in pushes]
        if self._limits.marks is self._limits.counters and not self._limits.counters.address.cluster:
            return self._ask_both(list(zip(counters, marks, ids, strict=True)))
        return self._ask_each(counters, marks, ids)

    def _ask_both(self, questions: list[Asked]) -> bytes:
        try:
            return self._limits.counters.ask(BATCH, head(self._rules, COUNTERS_DB, MARKS_DB), questions)
        except RedisUnavailable as error:
            self._tell(error)
            self._count_unasked(questions)
            return b"0" * len(questions)

    def _ask_each(self, counters: list[str], marks: list[str], ids: list[str]) -> bytes:
        """Two servers: first whether each was sent before, then whether the device may have another."""
        known = self._ask_one(self._limits.marks, [("", *both) for both in zip(marks, ids, strict=True)])
        wanted = [
            ("" if self._rules.drop and one != _SENT else counter, "", own_id)
            for one, counter, own_id in zip(known, counters, ids, strict=True)
        ]
        counted = self._ask_one(self._limits.counters, wanted)
        if self._rules.drop:
            self._forget(
                [
                    (mark, own_id)
                    for mark, own_id, answer in zip(marks, ids, counted, strict=True)
                    if mark and answer - _SENT == Finding.LIMITED
                ]
            )
        return bytes(one | other for one, other in zip(known, counted, strict=True))

    def _ask_one(self, server: RedisConnections | Cluster, questions: list[Asked]) -> bytes:
        """Of those questions that name a key; the others are answered without it."""
        named = [question for question in questions if question[0] or question[1]]
        if not named:
            return b"0" * len(questions)
        try:
            answers = iter(server.ask(BATCH, head(self._rules, "", ""), named))
        except RedisUnavailable as error:
            self._tell(error)
            self._count_unasked(named)
            return b"0" * len(questions)
        return bytes(next(answers) if counter or mark else _SENT for counter, mark, _ in questions)

    def _forget(self, marks: list[tuple[str, str]]) -> None:
        """Makes Redis forget pushes that were not sent."""
        if marks:
            try:
                self._limits.marks.ask(FORGET, (), marks)
            except RedisUnavailable as error:
                self._tell(error)

    def _counters(self, pushes: Sequence[P]) -> list[str]:
        minute = time.localtime(self.wall_clock()).tm_min
        return [f"{push.token}:{minute}" for push in pushes]

    def _marks(self, pushes: Sequence[P]) -> list[str]:
        """Empty for those that are not compared: their device is no sample, or they have nothing to compare."""
        compared = [push for push in pushes if push.content]
        share = self._rules.percentage
        if 0 < share < 100:
            samples = fnv1a_64([push.token.encode() for push in compared])
            compared = [push for push, one in zip(compared, samples, strict=True) if (one >> 48) % 100 < share]
        hashes = fnv1a_64([b"%b|%b" % (push.token.encode(), push.content) for push in compared])
        if len(compared) == len(pushes):
            return list(map(str, hashes))
        marks = dict(zip(map(id, compared), hashes, strict=True))
        return [str(marks.get(id(push), "")) for push in pushes]

    # --- answers ------------------------------------------------------------------------------------------------------
    def _judge(self, push: P, answer: Finding) -> None:
        if Finding.UNREADABLE in answer:
            self._failed.add()
            _seldom.error((self._app, "counter"), "a device's counter in Redis is not a number", game=self._app)
        if Finding.DUPLICATE in answer:
            self._duplicates.add()
            if self._rules.drop:
                self._end(push, "a duplicate is not sent", DUPLICATE)
                return
        if Finding.LIMITED in answer:
            self._reached.add()
            self._end(push, "the device has reached its limit for this minute: a push is not sent", RATE_LIMITED)

    def _end(self, push: P, words: str, outcome: Outcome) -> None:
        topic, partition = push.tracker.key
        _few.warning(
            (self._app, outcome.key), words, game=self._app, topic=topic, partition=partition, offset=push.offset
        )
        self._lane.finish(push, outcome)

    def _count_unasked(self, questions: Sequence[Asked]) -> None:
        self._failed.add(sum(bool(counter) for counter, _, _ in questions))
        self._errors.add(sum(bool(mark) for _, mark, _ in questions))

    def _tell(self, error: RedisUnavailable) -> None:
        _seldom.error(
            (self._app, "redis"),
            "Redis cannot be reached: pushes are sent without rate limit and search for duplicates",
            game=self._app,
            error=str(error),
        )
