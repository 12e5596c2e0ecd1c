"""The service of one app at Google over XMPP: chooses the link, sends messages on it, and judges the answers.

Three greenlets: the keeper opens a link whenever there is none to send on, a drained one being left to finish its
messages beside its successor; the sender takes as many pushes from the lane as the window has room for; the
acknowledger tells Google which of its messages were stored. A message keeps its id through all attempts, and an id is
in flight only once: a second push with the same id waits until the first has ended. A server that postpones everything
gets only a few messages: the others wait without using up their attempts, and other apps get the core.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakSet, WeakValueDictionary

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.queue import SimpleQueue

from pusher.backoff import BackOff
from pusher.errors import CredentialError
from pusher.providers.google.answer import Answer
from pusher.providers.google.feedback import upstream_feedback
from pusher.providers.google.xmpp.errors import text
from pusher.providers.google.xmpp.link import AuthError, CertificateError, Link, LinkError, LinkSettings
from pusher.providers.google.xmpp.message import GcmPush
from pusher.providers.google.xmpp.window import End, Unanswered, Window
from pusher.providers.tls import TlsTrust
from pusher.push.feedback import SentFrom
from pusher.push.fields import Json, encode
from pusher.push.lane import Lane
from pusher.push.outcome import CONNECTION_ERROR, TIMEOUT
from pusher.telemetry.health import Condition, Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

_WAIT_S = 0.5
#: Pushes handed over in one go. Few, because their places are empty until the last of them is written.
_BATCH = 8
#: After so many answers in a row that put their push off, a batch goes out only each ``_SLOW_S``.
_SLOW_AFTER = 128
_SLOW_S = 0.025
#: How long a push waits before it is looked whether another one with its id has ended.
_SAME_ID_WAIT_S = 0.2
#: A link that served and was drained is followed at once; after so many within ``young_s`` each waits so long.
_MOST_LINKS_AT_ONCE, _CROWDED_WAIT_S = 10, 1.0
#: A link without room whose messages are not answered for so long is said to be stalled.
_STALLED_AFTER_S = 10.0
_STALLED = "Google answers no message, and its window has no room for another"
#: Receipts and messages of devices that are not acknowledged yet. Google stops at far fewer (reference of its XMPP
#: protocol, "Flow control"); what is left out it sends again.
_MOST_UPSTREAM = 1_000
#: Credentials that were good once and are refused now are tried so often.
_REFUSED_EVERY_S = 60.0
#: For the end of the login by which credentials are checked.
_TRIAL_CLOSE_S = 0.1


@dataclass(frozen=True)
class GcmSettings:
    """How an app talks to Google."""

    link: LinkSettings
    trust: TlsTrust
    max_pending: int = 100
    ack_timeout_s: float = 60.0
    back_off: BackOff = field(default_factory=BackOff)
    #: A link that ends before this age counts as a failure, unless Google took messages on it and drained it.
    young_s: float = 10.0
    refused_every_s: float = _REFUSED_EVERY_S
    stalled_after_s: float = _STALLED_AFTER_S


class _Upstream:
    """A receipt or a message of a device, and what acknowledges it."""

    __slots__ = ("__weakref__", "body", "stanza_id", "window")

    def __init__(self, window: Window, message: dict[str, Json]) -> None:
        message_id, sender = text(message, "message_id"), text(message, "from")
        self.window = window
        # The stanza's own id serves only errors; a device may have written what XML cannot hold.
        self.stanza_id = message_id if message_id.isprintable() else ""
        self.body = encode({"to": sender, "message_id": message_id, "message_type": "ack"})


class GcmService:
    """Sends a lane's pushes to Google over XMPP."""

    def __init__(self, lane: Lane[GcmPush], settings: GcmSettings) -> None:
        self.lane = lane
        self._settings = settings
        #: The one that takes pushes.
        self._window: Window | None = None
        self._reason = "not connected yet"
        #: When there was room for a push last (monotonic).
        self._room_at = 0.0
        self._stalled = False
        #: Answers in a row that put their push off.
        self._put_off = 0
        #: Whether the last login was refused.
        self._refused = False
        self._has_window = Event()
        self._may_open = Event()
        #: There are new settings: no reason to wait any longer with those that failed.
        self._changed = Event()
        #: All that are open, and the greenlets that close those that were left.
        self._windows: list[Window] = []
        self._closers = Group()
        #: Pushes that were sent and have not ended, by message id; nothing here keeps them alive.
        self._under_way: WeakValueDictionary[str, GcmPush] = WeakValueDictionary()
        #: What came from Google and is not acknowledged; nothing here keeps it alive, should it never be stored.
        self._upstream: WeakSet[_Upstream] = WeakSet()
        self._acknowledgements: SimpleQueue[_Upstream] = SimpleQueue()
        self._bug: BaseException | None = None

    def loops(self) -> dict[str, Callable[[], None]]:
        """Functions that must each run in their own greenlet, by name."""
        return {"keeper": self._keep, "sender": self._send, "acknowledger": self._acknowledge}

    def start(self) -> None:
        """Lets the keeper open links. Returns at once."""
        self._may_open.set()

    def close(self, grace_s: float) -> None:
        """Closes the links; waits up to ``grace_s`` for answers."""
        self._may_open.clear()
        closing = [gevent.spawn(window.close, grace_s) for window in self._windows]
        gevent.joinall(closing)

    @property
    def settings(self) -> GcmSettings:
        """Those in use."""
        return self._settings

    def reload(self, settings: GcmSettings) -> None:
        """A new link with other settings; what was sent on the old one is answered there. Returns at once."""
        self._settings = settings
        self._changed.set()
        if self._window is not None:
            self._window.leave("new credentials")

    @property
    def in_flight(self) -> int:
        """Messages without an answer."""
        return sum(window.pending for window in self._windows)

    def health(self) -> Health:
        """Whether pushes can be sent now."""
        if self._window is not None:
            stalled = self._stalled and bool(self.lane.waiting or self.lane.retries)
            return Health(not stalled, _STALLED if stalled else "")
        return Health(False, self._reason)

    def condition(self) -> Condition:
        """Links and credentials of this moment."""
        return Condition(links=int(self._window is not None), refused=self._refused)

    # --- the keeper ---------------------------------------------------------------------------------------------------
    def _keep(self) -> None:
        failures = 0
        opened_at: deque[float] = deque(maxlen=_MOST_LINKS_AT_ONCE)
        while True:
            self._may_open.wait()
            self._changed.clear()
            try:
                window = self._open()
            except LinkError as error:
                failures += 1
                self._changed.wait(self._failed(error, failures))
                continue
            if self._changed.is_set():
                window.leave("opened with the previous credentials")
            self._use(window)
            if (window.up and window.served) or time.monotonic() - window.opened_at >= self._settings.young_s:
                failures = 0
            opened_at.append(window.opened_at)
            wait_s = max(self._delay_s(failures), self._crowded_s(opened_at))
            failures += 1
            if window.up:
                self._reason = window.reason
                log.info("a link is replaced", game=self.lane.settings.app, origin=self._where, reason=window.reason)
            else:
                self._down(window.reason, wait_s)
            self._changed.wait(wait_s)

    def _open(self) -> Window:
        """A window that is logged in. Waits; raises ``LinkError``."""
        settings = self._settings
        try:
            tls = settings.trust.context()
        except CredentialError as error:
            raise LinkError(str(error)) from None
        window = Window(settings.link, settings.max_pending, settings.ack_timeout_s, self)
        window.open(tls)
        log.info("connected", game=self.lane.settings.app, origin=self._where)
        return window

    def _use(self, window: Window) -> None:
        """Waits until the window takes no more pushes."""
        self._set_refused(refused=False)
        self._windows.append(window)
        self._window = window
        self._has_window.set()
        window.left.wait()
        self._has_window.clear()
        self._window = None
        self._closers.spawn(self._finish, window)

    def _finish(self, window: Window) -> None:
        """The answers to messages on a former window still come there."""
        window.close(None)
        self._windows.remove(window)

    def _failed(self, error: LinkError, failures: int) -> float:
        """Says why no link can be opened; returns the seconds to wait."""
        self._set_refused(refused=isinstance(error, AuthError))
        if isinstance(error, AuthError | CertificateError):
            _seldom.error(
                (self.lane.settings.app, "login"), str(error), game=self.lane.settings.app, origin=self._where
            )
        wait_s = self._settings.refused_every_s if isinstance(error, AuthError) else self._delay_s(failures)
        self._down(str(error), wait_s)
        return wait_s

    def _set_refused(self, *, refused: bool) -> None:
        """While the credentials are refused nothing more is read for the app."""
        self._refused = self.lane.held = refused

    def _down(self, reason: str, wait_s: float) -> None:
        self._reason = reason
        log.warning(
            "a link is down",
            game=self.lane.settings.app,
            origin=self._where,
            reason=reason,
            next_attempt_s=round(wait_s, 1),
        )

    def _delay_s(self, failures: int) -> float:
        return self._settings.back_off.delay_s(failures, random.random())

    def _crowded_s(self, opened_at: deque[float]) -> float:
        """How long to wait because links follow one another too fast."""
        crowded = len(opened_at) == _MOST_LINKS_AT_ONCE and opened_at[-1] - opened_at[0] < self._settings.young_s
        return _CROWDED_WAIT_S if crowded else 0.0

    @property
    def _where(self) -> str:
        return f"{self._settings.link.host}:{self._settings.link.port}"

    # --- the sender ---------------------------------------------------------------------------------------------------
    def _send(self) -> None:
        while True:
            if self._bug is not None:
                bug, self._bug = self._bug, None
                raise bug
            self._has_window.wait(_WAIT_S)
            window = self._window
            room = window.wait_for_room(_WAIT_S) if window is not None else 0
            if window is not None and room:
                self._room_at, self._stalled = time.monotonic(), False
                self._hand_over(window, self.lane.take(min(room, _BATCH), _WAIT_S))
            elif window is not None:
                self._look_for_a_stall(window)
            # lets the writer begin with these, and the keeper see that a window was left
            gevent.sleep(_SLOW_S if self._put_off >= _SLOW_AFTER else 0)

    def _hand_over(self, window: Window, taken: list[GcmPush]) -> None:
        if window.left.is_set():
            # while the lane had nothing
            self._defer(taken, 0.0)
            return
        pushes = [push for push in taken if self._is_first(push)]
        self.lane.handed_over(pushes)
        for push in pushes:
            window.send(push)

    def _look_for_a_stall(self, window: Window) -> None:
        """A window that is full while nothing is answered: said so once. The time-outs of its messages replace it."""
        silent_s = time.monotonic() - max(self._room_at, window.answered_at)
        if silent_s < self._settings.stalled_after_s:
            self._stalled = False
        elif not self._stalled:
            self._stalled = True
            log.warning(_STALLED, game=self.lane.settings.app, origin=self._where, seconds=round(silent_s))

    def _is_first(self, push: GcmPush) -> bool:
        """Whether no other push with its id is under way; else it is put back."""
        other = self._under_way.get(push.id)
        if other is None or other is push or other.finished:
            self._under_way[push.id] = push
            return True
        self._defer([push], _SAME_ID_WAIT_S)
        return False

    def _defer(self, pushes: list[GcmPush], wait_s: float) -> None:
        for push in pushes:
            self.lane.defer(push, wait_s)

    # --- what windows report ------------------------------------------------------------------------------------------
    def ended(self, push: GcmPush, end: End) -> None:
        """Gives a push back to the lane."""
        if isinstance(end, Answer):
            self._answered(push, end)
        elif end is Unanswered.TIMEOUT:
            self.lane.retry(push, TIMEOUT)
        elif end is Unanswered.LOST:
            self.lane.retry(push, CONNECTION_ERROR, retry_after_s=0.0)
        elif end is Unanswered.UNSENT:
            self.lane.resend(push)
        # a push of a link that we close is left to the next start

    def _answered(self, push: GcmPush, answer: Answer) -> None:
        outcome, meaning = answer
        self._put_off = self._put_off + 1 if meaning.retry else 0
        if meaning.retry:
            self.lane.retry(push, outcome)
            return
        if meaning.credentials:
            _seldom.error(
                (self.lane.settings.app, "message"),
                "Google refuses the app's credentials: check sender id and server key",
                game=self.lane.settings.app,
                reason=outcome.reason,
            )
        self.lane.finish(push, outcome)

    def answered_late(self, message_id: str, answer: Answer) -> None:
        """A final answer ends the retry that waits, or the one that is under way."""
        push = self._under_way.get(message_id)
        if push is not None and not answer.meaning.retry:
            self.lane.finish(push, answer.outcome)

    def upstream(self, window: Window, message: dict[str, Json]) -> None:
        """Feeds back a receipt or a message from a device; Google hears of it when it is stored."""
        app = self.lane.settings.app
        if len(self._upstream) >= _MOST_UPSTREAM:
            _seldom.warning(
                (app, "upstream"), "Google sends more than can be stored and has to send it again", game=app
            )
            return
        one = _Upstream(window, message)
        self._upstream.add(one)

        def make(origin: SentFrom, now_s: int) -> bytes:
            return upstream_feedback(origin, message, now_s)

        self.lane.publish(make, partial(self._acknowledgements.put, one))

    def died(self, error: BaseException) -> None:
        """A bug: the sender raises it, and the process stops in order."""
        self._bug = error

    # --- the acknowledger ---------------------------------------------------------------------------------------------
    def _acknowledge(self) -> None:
        while True:
            one = self._acknowledgements.get()
            try:
                one.window.acknowledge(one.stanza_id, one.body)
            except LinkError:
                log.debug("not acknowledged, Google will send it again", message_id=one.stanza_id)


def log_in_once(app: str, settings: GcmSettings, limit_s: float) -> None:
    """Logs in and out again. Waits up to ``limit_s``; raises ``CredentialError`` when refused, else ``LinkError``."""
    link = Link(
        replace(settings.link, connect_timeout_s=limit_s),
        on_message=lambda message: log.debug("message during the trial login", fields=",".join(message)),
        on_stanza_error=lambda *_: None,
        on_down=lambda _: None,
    )
    try:
        link.open(settings.trust.context())
    except AuthError as error:
        raise CredentialError(f"{error}; check gcm.certs.{app}.senderID and .apiKey") from None
    link.close(_TRIAL_CLOSE_S)
