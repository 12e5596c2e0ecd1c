"""One link: a connection's engine, its socket, a reader and a writer greenlet.

The writer takes the engine's output, up to a batch, and writes it at once; queueing something wakes the writer. The
reader feeds the engine and passes on ended exchanges, a list for each read. Neither waits for the other, so a peer that
stops reading stops only the writer, and `tick`, which never waits, notices silence.

Every end of a link (the peer, an error, silence, a bug in a greenlet) goes through `end`, which ends every exchange
that is still open. A bug's exception also leaves the greenlet, so that the owner of the greenlets sees it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import gevent
from gevent.event import Event

from pusher.providers.budget import Turns
from pusher.providers.http2.connection import Connection, ConnectionFailed
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.transport import TlsSocket, describe

_PIECE_OCTETS: Final = 8 * 1024
FLUSH_S: Final = 1.0
"""How long the last words of a link may take."""


@dataclass(frozen=True)
class Patience:
    """How long a link waits for what, in seconds."""

    ping_after_s: float = 10.0
    """With requests outstanding and nothing received, before a PING asks."""
    ping_timeout_s: float = 10.0
    """For anything after that PING, then the link is lost."""
    idle_ping_s: float = 3600.0
    """Without requests, before a PING asks (Apple: after an hour)."""


class Answers(Protocol):
    """Where ended exchanges go: an unbounded queue."""

    def put(self, item: list[Exchange], /) -> object:
        """Take a list of them; must not wait."""


Spawn = Callable[[Callable[[], None]], "gevent.Greenlet[..., object]"]


class Link:
    """Starts at once. An exchange without an answer is cancelled after `timeout_s`. `spawn` starts a greenlet of the
    owner; `on_progress` is called after whatever may make room.

    Apart from the two greenlets nothing here waits.
    """

    def __init__(
        self,
        transport: TlsSocket,
        connection: Connection,
        timeout_s: float,
        patience: Patience,
        answers: Answers,
        spawn: Spawn,
        on_progress: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.opened_at = time.monotonic()
        self.reason = ""
        """Why the link left or ended."""
        self.up = Event()
        """The peer's settings have come, or the link has ended."""
        self.left = Event()
        """The link takes no more requests."""
        self.ended = Event()
        self.served = False
        """A request was answered with status 200."""
        self.orderly = False
        """The link left in order: GOAWAY without an error, closed by the peer, or retired by us."""
        self._transport = transport
        self._timeout_s = timeout_s
        self._patience = patience
        self._answers = answers
        self._on_progress = on_progress
        self._wake = Event()
        self._received_at = self._busy_since = self.opened_at
        self._pinged_at = 0.0
        self._finish_until = 0.0
        self.answered_at = 0.0
        """When the peer ended an exchange last (monotonic)."""
        self.expired_at = 0.0
        """When one ended last because the peer had not (monotonic)."""
        self._turns = Turns()
        self._greenlets = [spawn(self._write), spawn(self._read)]

    @property
    def in_flight(self) -> int:
        """Exchanges without an end."""
        return self.connection.in_flight

    def room(self) -> int:
        """How many requests may be sent now."""
        return self.connection.room()

    def send(self, exchanges: list[Exchange]) -> None:
        """Queue requests, for which there is room, as one batch."""
        now = time.monotonic()
        if not self.connection.in_flight:
            self._busy_since = now
        self.connection.request(exchanges, now)
        self._wake.set()

    def retire(self, reason: str) -> None:
        """Take no more requests, let the open ones finish, then close."""
        if self.left.is_set():
            return
        self.reason = reason
        self._hand_on(self.connection.retire())
        self._look_after()

    def finish(self, reason: str) -> None:
        """End all exchanges now, say what is still queued (GOAWAY), then end."""
        if self._finish_until or self.ended.is_set():
            return
        self.reason = self.reason or reason
        self._finish_until = time.monotonic() + FLUSH_S
        self.connection.close()
        self._hand_on(self.connection.lost())
        self.left.set()
        self._wake.set()

    def end(self, reason: str) -> None:
        """Close the socket and end all exchanges. May be called again."""
        if self.ended.is_set():
            return
        self.reason = self.reason or reason
        self.ended.set()
        self.left.set()
        self.up.set()
        self._transport.close()
        self._hand_on(self.connection.lost())
        # A killed greenlet keeps the frames that it was killed in, which keep the link, which must not keep it.
        greenlets, self._greenlets = self._greenlets, []
        for greenlet in greenlets:
            if greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)
        self._on_progress()

    def tick(self, now: float) -> None:
        """Look for time-outs and silence."""
        if self._finish_until:
            if now >= self._finish_until:
                self.end(self.reason)
            return
        self.connection.breathe()
        expired = self.connection.expire(now - self._timeout_s)
        if expired:
            self.expired_at = now
            self._hand_on(expired)
            self._look_after()
        self._look_for_silence(now)

    def _look_for_silence(self, now: float) -> None:
        patience = self._patience
        if self._pinged_at > self._received_at:
            if now - self._pinged_at >= patience.ping_timeout_s:
                self.end(f"the peer has been silent for {now - self._received_at:.0f} s and answers no PING")
            return
        busy = self.connection.in_flight > 0
        quiet_since = max(self._received_at, self._busy_since) if busy else self._received_at
        if now - quiet_since >= (patience.ping_after_s if busy else patience.idle_ping_s):
            self._pinged_at = now
            self.connection.ping()
            self._wake.set()

    def _hand_on(self, ended: list[Exchange]) -> None:
        if ended:
            if not self.served:
                self.served = any(exchange.status == 200 for exchange in ended)
            self._answers.put(ended)

    def _look_after(self) -> None:
        """Handles the consequences of a change of the engine."""
        connection = self.connection
        if connection.ready:
            self.up.set()
        if connection.retiring:
            self.orderly = self.orderly or not connection.goaway_code
            self.left.set()
            self.reason = self.reason or _goaway(connection)
            if not connection.in_flight:
                self.finish(self.reason)
        if connection.has_output:
            self._wake.set()
        self._on_progress()

    def _write(self) -> None:
        reason = "the writer died"
        try:
            while True:
                output = self.connection.take_output(time.monotonic())
                if output:
                    self._transport.send(output)
                elif self._finish_until:
                    reason = self.reason
                    return
                else:
                    self._wake.clear()
                    self._wake.wait()
        except OSError as error:
            reason = describe(error)
        finally:
            self.end(reason)

    def _take(self, data: bytes) -> None:
        """Feeds the engine, in pieces between which others have their turn."""
        self._turns.begin()
        for start in range(0, len(data), _PIECE_OCTETS):
            if start:
                self._turns.give_way()
            ended = self.connection.receive(data[start : start + _PIECE_OCTETS])
            if ended:
                self.answered_at = time.monotonic()
                self._hand_on(ended)

    def _read(self) -> None:
        reason = "the reader died"
        try:
            while data := self._transport.receive():
                self._received_at = time.monotonic()
                self._take(data)
                self._look_after()
                gevent.sleep(0)  # let senders and the writer go on, and more answers come
            reason = "the peer closed the connection"
            self.orderly = True
        except ConnectionFailed as error:
            self.finish(f"the peer broke the protocol: {error}")
            return
        except OSError as error:
            reason = describe(error)
        finally:
            if not self._finish_until:
                self.end(reason)


def _goaway(connection: Connection) -> str:
    if connection.goaway_code is None:
        return "the stream ids are used up"
    said = connection.goaway_reason.decode("utf-8", "replace")[:200]
    return f"GOAWAY, code {connection.goaway_code} {said}".strip()
