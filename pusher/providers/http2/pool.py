"""The links of one app to one origin: how many are open, which link gets the next request, when to reconnect.

Each place in the pool has a keeper greenlet: it opens a link, waits until the link takes no more requests, opens the
next. A link that was told to go (GOAWAY, `replace`) is left to finish its streams while its successor is already
opened. Failures back off exponentially with full jitter, and a link that dies young counts as a failure, because
opening and closing connections quickly looks like an attack to Apple; not so one that served and was sent away in
order, as servers do after so many requests. The name is looked up at each attempt.

An exception that is a bug ends its greenlet; the pool then raises it from `wait_for_room`, in the greenlet of the
pool's owner.
"""

import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
from gevent.event import Event
from gevent.pool import Group

from pusher.backoff import BackOff
from pusher.errors import CredentialError
from pusher.providers.http2.connection import Connection
from pusher.providers.http2.exchange import End, Exchange
from pusher.providers.http2.link import Answers, Link, Patience
from pusher.providers.http2.transport import ConnectFailed, Origin, connect, describe
from pusher.telemetry.log import logger

log = logger(__name__)


@dataclass(frozen=True)
class Policy:
    """How a pool opens and watches its links; seconds."""

    connect_timeout_s: float = 10.0
    young_s: float = 10.0
    """A link that takes no more requests before this age counts as a failure, unless it served and left in order."""
    back_off: BackOff = field(default_factory=BackOff)
    patience: Patience = field(default_factory=Patience)
    wanted: bytes = b""
    """Name of a response header that is read whatever the status; others may stay unread, as `Exchange` says."""


@dataclass(frozen=True)
class PoolState:
    """For the health page: whether a link is up, how many are, and the last failure while too few are."""

    ready: bool
    links: int
    reason: str


_STALLED = "the peer blocks all requests: it answers none and has no stream or window for another"
_STALLED_AFTER_S = 10.0


class PoolFailed(Exception):
    """A greenlet of the pool died of an unexpected exception, which is the cause of this one."""


class Pool:
    """Sends exchanges over `size` links, at most `max_in_flight` at a time; each comes back through `answers` once,
    with TIMEOUT when no answer came within `timeout_s`.

    `tls` is asked for a context at each connection. `name` stands in logs.
    """

    def __init__(
        self,
        origin: Origin,
        tls: Callable[[], ssl.SSLContext],
        answers: Answers,
        *,
        size: int = 1,
        max_in_flight: int = 300,
        timeout_s: float = 60.0,
        name: str = "",
        policy: Policy | None = None,
    ) -> None:
        self.size = size
        self.max_in_flight = max_in_flight
        self._origin = origin
        self._authority = (origin.authority or _authority(origin)).encode("ascii")
        self._tls = tls
        self._answers = answers
        self._timeout_s = timeout_s
        self._name = name or origin.host
        self._policy = policy or Policy()
        self._links: list[Link] = []
        self._leaving: list[Link] = []
        self._reason = "not connected yet"
        self._progress = Event()
        self._greenlets = Group()
        self._keepers = Group()
        self._failure: BaseException | None = None
        self._closing = False
        self._watching: gevent.Greenlet[..., object] | None = None
        self._peer_indexes = False
        self.demand: Callable[[], bool] = lambda: False
        """Whether requests wait for room."""
        self._let_go_at = time.monotonic()
        self._stalled = False

    def start(self) -> None:
        """Open the links in the background. Does not wait."""
        self._revive()

    def close(self, grace_s: float) -> int:
        """Take no more requests, wait up to `grace_s` for the open ones, then close; returns how many were cut off."""
        self._closing = True
        self._keepers.kill()
        links = [*self._links, *self._leaving]
        deadline = time.monotonic() + grace_s
        for link in links:
            link.retire("we close")
        for link in links:
            link.ended.wait(max(0.0, deadline - time.monotonic()))
        cut_off = self.in_flight
        for link in links:
            link.end("we close")
        self._greenlets.kill()
        return cut_off

    @property
    def in_flight(self) -> int:
        """Exchanges that were sent or queued and have not ended."""
        return sum([link.in_flight for link in self._links]) + sum([link.in_flight for link in self._leaving])

    def room(self) -> int:
        """How many exchanges `send` takes now."""
        room = sum([link.room() for link in self._links])
        return max(0, min(room, self.max_in_flight - self.in_flight))

    def wait_for_room(self, timeout_s: float) -> int:
        """Wait until there is room; returns how much, 0 after `timeout_s`. Raises PoolFailed."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                self._revive()
                raise PoolFailed(f"{self._name}: {failure!r}") from failure
            room = self.room()
            if room:
                return room
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return 0
            self._progress.clear()
            self._progress.wait(left_s)

    def send(self, exchanges: list[Exchange]) -> None:
        """Hand requests to the links, each link's share as one batch; never waits.

        Those that find no room come back UNPROCESSED.
        """
        taken = 0
        allowed = min(len(exchanges), self.room())
        # The link with the least room first: what it cannot take of its share falls to the others.
        rooms = sorted(((link.room(), n) for n, link in enumerate(self._links)))
        for position, (room, n) in enumerate(rooms):
            share = min(room, -(-(allowed - taken) // (len(rooms) - position)))
            if share:
                self._links[n].send(exchanges[taken : taken + share])
                taken += share
        refused = exchanges[taken:]
        for exchange in refused:
            exchange.end = End.UNPROCESSED
        if refused:
            self._answers.put(refused)

    def state(self) -> PoolState:
        """The state for the health page."""
        links = len([link for link in self._links if not link.left.is_set()])
        if self._stalled and self.demand():
            return PoolState(False, links, _STALLED)
        return PoolState(links > 0, links, "" if links == self.size else self._reason)

    def replace(self, reason: str, opened_before: float | None = None) -> None:
        """New links at once; the present ones finish their streams. Does not wait.

        With `opened_before` (monotonic) only links older than that: pass the `sent_at` of the exchange whose answer
        asks for it, so that late answers of an old link do not close the new one.
        """
        for link in list(self._links):
            if opened_before is None or link.opened_at < opened_before:
                link.retire(reason)

    def _spawn(self, run: Callable[[], None]) -> "gevent.Greenlet[..., object]":
        greenlet: gevent.Greenlet[..., object] = gevent.Greenlet(run)
        greenlet.link_exception(self._died)
        self._greenlets.start(greenlet)
        return greenlet

    def _revive(self) -> None:
        """Starts keepers and watch again that died: the caller that asks for room gets the failure once."""
        for _ in range(self.size - len(self._keepers)):
            self._keepers.start(self._spawn(self._keep))
        if self._watching is None or self._watching.dead:
            self._watching = self._spawn(self._watch)

    def _died(self, greenlet: "gevent.Greenlet[..., object]") -> None:
        self._failure = greenlet.exception
        self._progress.set()

    def _watch(self) -> None:
        patience = self._policy.patience
        tick_s = min(1.0, self._timeout_s / 10, patience.ping_after_s / 10, patience.ping_timeout_s / 10)
        while True:
            gevent.sleep(tick_s)
            now = time.monotonic()
            for link in [*self._links, *self._leaving]:
                link.tick(now)
            self._look_for_stalls(now)

    def _look_for_stalls(self, now: float) -> None:
        """Links that are alive and let nothing go: said so once, and replaced when no answer would come in time."""
        answered_at = max((link.answered_at for link in self._links), default=0.0)
        # room that is there only because requests timed out lets the next ones time out too
        timed_out = any(link.expired_at > answered_at for link in self._links)
        if not self.demand() or (self.room() > 0 and not timed_out):
            self._let_go_at, self._stalled = now, False
            return
        if answered_at > self._let_go_at:
            self._let_go_at, self._stalled = answered_at, False
        elif self._links and not self._stalled and now - self._let_go_at >= _STALLED_AFTER_S:
            self._stalled = True
            log.warning(_STALLED, game=self._name, origin=str(self._origin), seconds=round(now - self._let_go_at))
        for link in list(self._links):
            if now - max(self._let_go_at, link.opened_at) >= max(self._timeout_s, _STALLED_AFTER_S):
                link.retire(_STALLED)

    def _progressed(self) -> None:
        self._progress.set()

    # A keeper

    def _keep(self) -> None:
        failures = 0
        policy = self._policy
        delay_s = 0.0
        while True:
            gevent.sleep(delay_s)
            try:
                link = self._open()
            except ConnectFailed as failed:
                failures += 1
                delay_s = policy.back_off.delay_s(failures, random.random())
                self._report(str(failed), delay_s)
                continue
            log.info("connected", game=self._name, origin=str(self._origin))
            self._use(link)
            if link.served and link.orderly:
                failures, delay_s = 0, 0.0
                self._reason = link.reason
                log.info("a link was closed in order", game=self._name, origin=str(self._origin), reason=link.reason)
                continue
            if self._stalled or time.monotonic() - link.opened_at < policy.young_s:
                # The first one may be followed at once: servers are allowed to send a single connection away.
                delay_s = policy.back_off.delay_s(failures, random.random())
                failures += 1
            else:
                failures, delay_s = 0, 0.0
            self._report(link.reason, delay_s)

    def _report(self, reason: str, delay_s: float) -> None:
        self._reason = reason
        log.warning(
            "a link is down", game=self._name, origin=str(self._origin), reason=reason, next_attempt_s=round(delay_s, 1)
        )

    def _use(self, link: Link) -> None:
        """Wait until the link takes no more requests."""
        self._links.append(link)
        self._progress.set()
        link.left.wait()
        self._links.remove(link)
        self._peer_indexes |= link.connection.peer_indexes
        self._leaving = [old for old in [*self._leaving, link] if not old.ended.is_set()]

    def _open(self) -> Link:
        """A link whose settings have come. Waits; raises ConnectFailed."""
        timeout_s = self._policy.connect_timeout_s
        try:
            transport = connect(self._origin, self._tls(), timeout_s)
        except CredentialError as error:
            raise ConnectFailed(str(error)) from error
        except OSError as error:  # of the context: a certificate that cannot be loaded
            raise ConnectFailed(describe(error)) from error
        link = Link(
            transport,
            Connection(self._authority, indexing=self._peer_indexes, wanted=self._policy.wanted),
            self._timeout_s,
            self._policy.patience,
            self._answers,
            self._spawn,
            self._progressed,
        )
        try:
            link.up.wait(timeout_s)
            if not link.connection.ready or link.left.is_set():
                raise ConnectFailed(link.reason or f"no HTTP/2 settings from the server within {timeout_s:g} s")
        except BaseException:
            self._peer_indexes |= link.connection.peer_indexes
            link.end("never became ready")
            raise
        return link


def _authority(origin: Origin) -> str:
    """Host and port; the port only if it is not the scheme's default (RFC 9113, section 8.3.1)."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == 443 else f"{host}:{origin.port}"


__all__ = ["Origin", "Patience", "Policy", "Pool", "PoolFailed", "PoolState"]
