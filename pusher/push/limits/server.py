"""One Redis server: connections that are opened ahead of their use, and scripts that answer within a tenth of a second.

A caller never waits for a connection that cannot be opened: a greenlet opens them, and while it fails, or the server
has not answered some times in a row, every request is refused at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
import orjson
import redis
from gevent.event import Event
from redis.backoff import NoBackoff
from redis.retry import Retry

from pusher.config.values import Config
from pusher.errors import StartError
from pusher.push.limits.connection import PlainConnection, TlsConnection, answer_of, plain_errors
from pusher.push.limits.script import LuaScript
from pusher.push.limits.settings import RedisSettings

#: Longest time that a batch of pushes waits for an answer.
ANSWER_WITHIN_S = 0.1
#: Time limit for opening a connection; no push waits for it.
_CONNECT_WITHIN_S = 5.0
_AT_ONCE_S, _FIRST_WAIT_S, _LONGEST_WAIT_S = 0.01, 0.1, 2.0
#: After so many failures in a row nothing is asked until there is a new connection.
_MOST_FAILURES = 3
#: Connections that are kept open; each app asks for one batch at a time.
_MOST_CONNECTIONS = 64
#: What a server answers that is no longer the master, or not yet ready: its name may lead to another one.
_WRONG_SERVER = (redis.ReadOnlyError, redis.BusyLoadingError, redis.exceptions.MasterDownError)


class RedisUnavailable(Exception):
    """Redis has not answered; says why, in one line."""


@dataclass(frozen=True)
class RedisAddress:
    """Where a server is, and how it is connected to."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: bool = False
    ca_file: str = ""
    cluster: bool = False

    @classmethod
    def of(cls, config: Config, at: RedisSettings) -> RedisAddress:
        """What the configuration says."""
        return cls(
            config[at.host],
            config[at.port],
            config[at.user],
            config[at.password],
            not config[at.tls_disabled],
            config[at.ca_file],
            config[at.cluster],
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class RedisConnections:
    """Connections to one server. ``run`` has to run in a greenlet of its own."""

    def __init__(self, address: RedisAddress, db: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._db = int(db)
        self._clock = clock
        self._free: list[Any] = []
        self._open = 0
        #: Why none can be had; "" while one can.
        self._down = ""
        self._failures = 0
        #: Questions that went out.
        self.asked = 0
        #: How many wait for a connection; set whenever one does.
        self._waiting = 0
        self._wanted = Event()
        self._wanted.set()
        self._first = True
        #: Replaced when it is set: waiting greenlets look again.
        self._changed = Event()

    @property
    def down(self) -> str:
        """Why Redis does not answer now; "" while it does."""
        return self._down

    def ask(self, script: LuaScript, head: Sequence[str | int], items: Sequence[tuple[str, ...]]) -> bytes:
        """What the script answers: a character an item. Waits up to 100 ms; raises ``RedisUnavailable``."""
        arguments = [*head, orjson.dumps(items)]
        deadline = self._clock() + ANSWER_WITHIN_S
        while True:
            connection = self._take(deadline)
            self.asked += 1
            try:
                answer = self._answer(connection, script, arguments, deadline, len(items))
            except (redis.ConnectionError, OSError) as error:
                # closed, for example by the server while it was idle: there may be another one
                self._failed(connection, one_line(error))
            except RedisUnavailable as error:
                raise self._failed(connection, str(error)) from None
            except redis.RedisError as error:
                self._refused(connection, error)
                raise RedisUnavailable(self._named(one_line(error))) from None
            else:
                self._failures = 0
                self._give_back(connection)
                return answer

    def run(self) -> None:
        """Opens one connection at once, and others when they are needed, without end."""
        wait_s, failing_since = _FIRST_WAIT_S, 0.0
        while True:
            self._wanted.wait()
            wanted = self._first or (self._waiting and not self._free and self._open < _MOST_CONNECTIONS)
            if not (self._down or wanted):
                self._wanted.clear()
                continue
            if self._down:
                gevent.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            elif not self._failures:
                wait_s = _FIRST_WAIT_S
            try:
                connection = self.connect()
            except (redis.RedisError, OSError) as error:
                failing_since = failing_since or self._clock()
                if self._clock() - failing_since < ANSWER_WITHIN_S:
                    # who waits may wait for a server that is just being started again
                    gevent.sleep(_AT_ONCE_S)
                    continue
                self._failures = max(self._failures, _MOST_FAILURES)
                self._down = self._named(one_line(error))
                self._tell()
            else:
                self._down, self._first, failing_since = "", False, 0.0
                self._open += 1
                self._give_back(connection)

    def close(self) -> None:
        """Closes what is not in use. Never waits."""
        while self._free:
            self._discard(self._free.pop())

    # --- connections --------------------------------------------------------------------------------------------------
    def _take(self, deadline: float) -> Any:
        self._waiting += 1
        try:
            while not self._free:
                if self._down:
                    self._wanted.set()
                    raise RedisUnavailable(self._down)
                left_s = deadline - self._clock()
                self._wanted.set()
                if left_s <= 0 or not self._changed.wait(left_s):
                    raise self._gone(f"no connection within {ANSWER_WITHIN_S:g} s")
        finally:
            self._waiting -= 1
        return self._free.pop()

    def _give_back(self, connection: Any) -> None:
        self._free.append(connection)
        self._tell()

    def _tell(self) -> None:
        told, self._changed = self._changed, Event()
        told.set()

    def _failed(self, connection: Any, reason: str) -> RedisUnavailable:
        self._discard(connection)
        return self._gone(reason)

    def _gone(self, reason: str) -> RedisUnavailable:
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            self._down = self._named(reason)
            self.close()
            self._wanted.set()
        return RedisUnavailable(self._named(reason))

    def _named(self, reason: str) -> str:
        return reason if str(self.address) in reason else f"{self.address}: {reason}"

    def _refused(self, connection: Any, error: redis.RedisError) -> None:
        """An answer that is an error: the connection is good, unless it leads to the wrong server."""
        if isinstance(error, _WRONG_SERVER):
            self._failed(connection, one_line(error))
        else:
            self._give_back(connection)

    def _discard(self, connection: Any) -> None:
        self._open -= 1
        connection.disconnect()

    def connect(self) -> Any:
        """A new connection, for ``run`` and ``--check``. Waits; raises ``redis.RedisError`` or ``OSError``."""
        address = self.address
        tls: dict[str, Any] = {"ssl_ca_certs": address.ca_file or None} if address.tls else {}
        connection: Any = (TlsConnection if address.tls else PlainConnection)(
            host=address.host,
            port=address.port,
            db=self._db,
            username=address.user or None,
            password=address.password or None,
            socket_timeout=_CONNECT_WITHIN_S,
            socket_connect_timeout=_CONNECT_WITHIN_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **tls,
        )
        try:
            with gevent.Timeout(_CONNECT_WITHIN_S, redis.TimeoutError("no answer")), plain_errors():
                connection.connect()
                connection.send_command("PING")
                if answer_of(connection) != b"PONG":
                    raise redis.ConnectionError("it does not answer as Redis does")
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _answer(
        self,
        connection: Any,
        script: LuaScript,
        arguments: Sequence[str | int | bytes],
        deadline: float,
        items: int,
    ) -> bytes:
        answer = self._said(connection, script, arguments, deadline)
        if not script.may_answer(answer, items):
            raise redis.ConnectionError("it does not answer as the script does")
        return bytes(answer)

    def _said(self, connection: Any, script: LuaScript, arguments: Sequence[str | int | bytes], deadline: float) -> Any:
        late = RedisUnavailable(f"no answer within {ANSWER_WITHIN_S:g} s")
        try:
            with gevent.Timeout(max(0.0, deadline - self._clock()), late):
                try:
                    connection.send_command("EVALSHA", script.digest, 0, *arguments, check_health=False)
                    return answer_of(connection)
                except redis.exceptions.NoScriptError:
                    connection.send_command("EVAL", script.text, 0, *arguments, check_health=False)
                    return answer_of(connection)
        except RedisUnavailable:
            if not (connection.is_connected and connection.can_read(0)):
                raise
            # it was this process that was late, not Redis
            with gevent.Timeout(_AT_ONCE_S, late):
                return answer_of(connection)


def check_server(config: Config, at: RedisSettings) -> str:
    """Connects once and runs a script, for ``--check``. Waits some seconds; raises ``StartError``."""
    address = RedisAddress.of(config, at)
    try:
        connection = RedisConnections(address, "0").connect()
        try:
            connection.send_command("EVAL", "return redis.call('GET', KEYS[1])", 1, "pusher-check")
            answer_of(connection)
        finally:
            connection.disconnect()
    except (redis.RedisError, OSError) as error:
        raise StartError(f"{address}: {one_line(error)}") from None
    return f"Redis at {address} answers"


def one_line(error: BaseException) -> str:
    """The first line of what it says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
