"""A bounded pool of connections that never block the other greenlets.

libpq leaves waiting to psycogreen, so its own limits in time do not hold: every connecting and every statement has one
here. Resolving names, for which libpq would block, is done by gevent beforehand. A connection that has failed in any
way that is not the statement's own is closed, and with it those that are idle: after a failover the next one reaches
the new primary.

Each statement is a transaction of its own, and whatever it sets ends with it: behind pgbouncer in transaction mode the
server's connection belongs to others before and afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
import psycopg2
import psycopg2.extensions
from gevent.lock import BoundedSemaphore
from psycogreen.gevent import patch_psycopg

from pusher.errors import StartError
from pusher.listener.store import NotDeleted
from pusher.listener.stores.postgres import settings
from pusher.listener.stores.postgres.address import Address
from pusher.listener.stores.postgres.statement import Statement

#: What a connection may take once the process runs.
_CONNECT_S = 10.0
#: The server's own time-out comes first, because it says why.
_ANSWER_MARGIN_S = 5.0
#: Classes of SQLSTATE (PostgreSQL's manual, appendix A) that no row is to blame for: connection, state of the
#: transaction (a standby is read-only), login, database, schema, serialization and deadlock, names and rights,
#: resources, limits, locks, intervention of an operator, system, configuration, the server itself. Any other comes from
#: a row: its value, a constraint, a trigger, which may choose its own code.
_SHARED_ERRORS = ("08", "0B", "25", "26", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "XX")
#: Of these some may come out of a trigger's function, which runs for a row: a mistake in it, a state that it refuses.
_OF_A_FUNCTION = ("0B", "42", "55", "XX")
#: ... unless every row would meet them: a right, a table that is missing, a lock.
_OF_EVERY_ROW = ("42501", "42P01", "55006", "55P03")
#: A table, schema or column that is not there.
_MISSING = ("42P01", "3F000", "42703")


class DatabaseError(NotDeleted):
    """A statement failed. Where a row is to blame, the text has none of its values."""


class Effect(NamedTuple):
    """The result of a statement."""

    changed: int
    rows: list[tuple[Any, ...]]


def let_others_run() -> None:
    """Makes psycopg2 wait by gevent. Once a process, before the first connection."""
    patch_psycopg()


class ConnectionPool:
    """At most ``size`` connections, opened when they are needed."""

    def __init__(self, address: Address, size: int) -> None:
        self.address = address
        self._room = BoundedSemaphore(size)
        self._idle: list[psycopg2.extensions.connection] = []

    def probe(self, timeout_s: float) -> None:
        """Waits until the database answers; raises ``StartError`` after ``timeout_s`` of trying."""
        error = f"no answer in {timeout_s:g} s"
        try:
            with gevent.Timeout(timeout_s):
                while failure := self._failure():
                    error = failure
                    gevent.sleep(min(0.1, timeout_s / 10))
        except gevent.Timeout:
            text = f"PostgreSQL at {self.address} cannot be used: {error}; see the settings {settings.PREFIX}.*"
            raise StartError(text) from None

    def _failure(self) -> str:
        """Asks a question: why there is no answer, or ""."""
        try:
            self.execute(Statement("SELECT 1"))
        except DatabaseError as error:
            return str(error)
        return ""

    def move_to(self, address: Address) -> bool:
        """New connections go there; false when it is where they go already. Never waits."""
        if address == self.address:
            return False
        self.address = address
        self.close()
        return True

    def execute(self, statement: Statement) -> int:
        """Carries out one statement as one transaction; the number of its rows. Waits; raises ``DatabaseError``."""
        return self.ask(statement).changed

    def ask(self, statement: Statement) -> Effect:
        """The same, with the rows."""
        with self._room, _clear_errors():
            connection = self._idle.pop() if self._idle else self._connect()
            used = self.address
            try:
                with gevent.Timeout(used.statement_timeout_s + _ANSWER_MARGIN_S, TimeoutError("no answer")):
                    answer = _answered(connection, statement, used.statement_timeout_s)
            except BaseException as error:
                if isinstance(error, psycopg2.Error) and _is_harmless(error) and not connection.closed:
                    self._keep(connection, used)
                else:
                    connection.close()
                    self.close()
                raise
            self._keep(connection, used)
            return answer

    def close(self) -> None:
        """Closes what is idle. Never waits."""
        while self._idle:
            self._idle.pop().close()

    def _keep(self, connection: psycopg2.extensions.connection, used: Address) -> None:
        if used == self.address:
            self._idle.append(connection)
        else:
            connection.close()

    def _connect(self) -> psycopg2.extensions.connection:
        with gevent.Timeout(_CONNECT_S, TimeoutError(f"no connection in {_CONNECT_S:g} s")):
            connection: psycopg2.extensions.connection = psycopg2.connect(**self.address.parameters())
        return connection


def arguments(statement: Statement) -> tuple[str, tuple[str, ...] | None]:
    """What psycopg2's ``execute`` is called with; without values it leaves ``%%`` alone."""
    text, values = statement
    return (text, values) if values else (text.replace("%%", "%"), None)


def _answered(connection: psycopg2.extensions.connection, statement: Statement, timeout_s: float) -> Effect:
    """A statement in a transaction, which has ended when this returns or raises an error of the server."""
    try:
        with connection.cursor() as cursor:
            # Local: it must not outlive the transaction on a connection that a pooler gives to others.
            cursor.execute(f"SET LOCAL statement_timeout = {round(timeout_s * 1000)}")
            cursor.execute(*arguments(statement))
            answer = Effect(int(cursor.rowcount), cursor.fetchall() if cursor.description else [])
        connection.commit()
    except psycopg2.Error as error:
        if _is_harmless(error) and not connection.closed:
            connection.rollback()
        raise
    return answer


def _is_of_row(error: psycopg2.Error) -> bool:
    """Whether a row is to blame. An error without a SQLSTATE is none that the server has sent."""
    code = error.pgcode or ""
    if not code or code in _OF_EVERY_ROW:
        return False
    return not code.startswith(_SHARED_ERRORS) or (code.startswith(_OF_A_FUNCTION) and bool(error.diag.context))


def _is_harmless(error: psycopg2.Error) -> bool:
    """Whether a connection is as good as before: a row, a name or a right (42) was at fault."""
    return _is_of_row(error) or (error.pgcode or "").startswith("42")


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What psycopg2, the socket and the time-outs raise as one kind of error with a text of one line."""
    try:
        yield
    except psycopg2.Error as error:
        code = error.pgcode or ""
        if _is_of_row(error):
            raise DatabaseError(f"{type(error).__name__}, SQLSTATE {code}", of_token=True) from None
        raise DatabaseError(_one_line(error), missing=code in _MISSING) from error
    except ValueError as error:
        raise DatabaseError(type(error).__name__, of_token=True) from None
    except OSError as error:
        raise DatabaseError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    text = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    return " ".join((text or str(error) or type(error).__name__).split())
