"""One link to Google and its unanswered messages, at most as many as Google admits on a connection.

Each unanswered message is a greenlet in a ``gevent.pool``: it sends, waits for its answer and gives the push to the
``WindowOwner``. A place in the pool is taken exactly as long as its greenlet lives, so that no way in which a wait can
end, answer, error, silence, lost link, can forget to give it back. What the answer means, the owner decides.
"""

from __future__ import annotations

import enum
import ssl
import time
from typing import Protocol

import gevent
from gevent.event import AsyncResult, Event
from gevent.pool import Pool

from pusher.providers.google.answer import Answer
from pusher.providers.google.xmpp.errors import read_answer, read_error, text
from pusher.providers.google.xmpp.link import ClosedError, Link, LinkError, LinkSettings
from pusher.providers.google.xmpp.message import GcmPush
from pusher.push.fields import Json
from pusher.telemetry import sentry
from pusher.telemetry.log import few, logger

log = logger(__name__)
_few = few(log)

#: To write the end of the stream.
_LEAST_CLOSE_S = 0.1
#: The name both of the control message and of the error of messages that come after it.
_DRAINING = "CONNECTION_DRAINING"


class Unanswered(enum.Enum):
    """How a message's wait ends without an answer."""

    #: None came in time.
    TIMEOUT = enum.auto()
    #: The link was lost after writing had begun: it is unknown whether Google has the message.
    LOST = enum.auto()
    #: The link was lost before: no attempt was made.
    UNSENT = enum.auto()
    #: We close.
    CLOSED = enum.auto()


End = Answer | Unanswered


class WindowOwner(Protocol):
    """What a window reports to its owner. None of these functions waits."""

    def ended(self, push: GcmPush, end: End) -> None:
        """Takes a push back, its place being free."""

    def answered_late(self, message_id: str, answer: Answer) -> None:
        """Takes an answer for which nothing waits on this link."""

    def upstream(self, window: Window, message: dict[str, Json]) -> None:
        """Takes a receipt, or a message from a device."""

    def died(self, error: BaseException) -> None:
        """Takes the bug of which one of the greenlets died."""


class Window:
    """A link, opened by ``open``, that takes pushes until it has ``left``."""

    def __init__(self, settings: LinkSettings, max_pending: int, ack_timeout_s: float, owner: WindowOwner) -> None:
        #: Set when it takes no more pushes: the link is down, or Google drains it.
        self.left = Event()
        #: Why, in one line.
        self.reason = ""
        self.opened_at = 0.0
        #: Whether Google has taken a message that was sent on it.
        self.served = False
        #: When a message was answered last (monotonic).
        self.answered_at = 0.0
        self._owner = owner
        self._app = settings.app
        self._ack_timeout_s = ack_timeout_s
        self._pool = Pool(max_pending)
        #: By message id, oldest first.
        self._waits: dict[str, AsyncResult[End]] = {}
        self._link = Link(settings, on_message=self._message, on_stanza_error=self._stanza_error, on_down=self._down)

    def open(self, tls: ssl.SSLContext) -> None:
        """Connects and logs in; waits. Raises ``LinkError``."""
        self._link.open(tls)
        self.opened_at = self.answered_at = time.monotonic()

    @property
    def up(self) -> bool:
        """Whether the link is, which outlives the taking of pushes."""
        return self._link.up

    @property
    def pending(self) -> int:
        """Messages without an answer."""
        return len(self._pool)

    def wait_for_room(self, timeout_s: float) -> int:
        """How many pushes ``send`` takes now; waits up to ``timeout_s`` while it is none."""
        self._pool.wait_available(timeout_s)
        return 0 if self.left.is_set() else self._pool.free_count()

    def send(self, push: GcmPush) -> None:
        """Sends a push for which there is room. Its end goes to the owner, once."""
        self._pool.spawn(self._deliver, push).link_exception(self._died)

    def acknowledge(self, message_id: str, body: bytes) -> None:
        """Sends what Google does not answer. May wait for a peer that reads slowly; raises ``LinkError``."""
        self._link.send(message_id, body)
        self._link.useful()

    def leave(self, reason: str) -> None:
        """Takes no more pushes."""
        if not self.left.is_set():
            self.reason = reason
            self.left.set()

    def close(self, grace_s: float | None) -> None:
        """Waits up to ``grace_s`` for the answers that are due, None: until all have ended; then closes the link.

        What is left of ``grace_s`` the server may take to end the stream too.
        """
        began = time.monotonic()
        self.leave("we close")
        self._pool.join(timeout=grace_s)
        if grace_s is None:
            self._link.close()
        else:
            self._link.close(max(_LEAST_CLOSE_S, began + grace_s - time.monotonic()))

    # --- a message ----------------------------------------------------------------------------------------------------
    def _deliver(self, push: GcmPush) -> None:
        wait = self._waits[push.id] = AsyncResult()
        end: End | None
        try:
            self._link.send(push.id, push.body)
            end = wait.wait(self._ack_timeout_s)
        except LinkError:
            end = Unanswered.UNSENT
        finally:
            del self._waits[push.id]
        if end is None and not self._pool.free_count() and self._is_mute():
            self.leave(f"no message was answered for {self._ack_timeout_s:g} s")
        self._owner.ended(push, end or Unanswered.TIMEOUT)

    def _is_mute(self) -> bool:
        return time.monotonic() - self.answered_at >= self._ack_timeout_s

    def _answer(self, message_id: str, answer: Answer) -> None:
        """The first final answer holds, however many come before the waiting greenlet runs."""
        wait = self._waits.get(message_id)
        if wait is None:
            self._owner.answered_late(message_id, answer)
        elif not wait.ready() or (_is_passing(wait.value) and not answer.meaning.retry):
            self._link.useful()
            self.answered_at = time.monotonic()
            wait.set(answer)

    def _died(self, greenlet: gevent.Greenlet[[GcmPush], None]) -> None:
        if greenlet.exception is not None:
            self._owner.died(greenlet.exception)

    # --- what the link reports ----------------------------------------------------------------------------------------
    def _message(self, message: dict[str, Json]) -> None:
        kind = message.get("message_type")
        if _DRAINING in (message.get("control_type"), message.get("error")):
            self.leave("Google drains the connection")
        self.served = self.served or kind == "ack"
        if kind in ("ack", "nack"):
            self._answer(text(message, "message_id"), read_answer(message))
        elif kind == "control":
            control = text(message, "control_type")
            _few.warning((self._app, "control"), "control message from Google", game=self._app, control_type=control)
        else:
            self._owner.upstream(self, message)

    def _stanza_error(self, message_id: str, condition: str, words: str) -> None:
        _few.warning(
            (self._app, "refused stanza"),
            "Google refuses a stanza",
            game=self._app,
            message_id=message_id,
            condition=condition,
            text=words,
        )
        self._answer(message_id, read_error(condition, words))

    def _down(self, reason: LinkError) -> None:
        self.leave(str(reason))
        if reason.__cause__ is not None:
            cause = reason.__cause__
            log.error("a link has ended with an unexpected error", error=str(reason))
            sentry.report_exception((type(cause), cause, cause.__traceback__))
        unwritten = frozenset(self._link.unwritten)
        lost = Unanswered.CLOSED if isinstance(reason, ClosedError) else Unanswered.LOST
        for message_id, wait in self._waits.items():
            if not wait.ready():
                wait.set(Unanswered.UNSENT if message_id in unwritten else lost)


def _is_passing(end: End | None) -> bool:
    """Whether an answer asks for another try, so that a final one may still take its place."""
    return isinstance(end, Answer) and end.meaning.retry
