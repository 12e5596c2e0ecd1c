"""PostgreSQL: a bounded pool of connections that never block the other greenlets.

libpq leaves waiting to psycogreen, so its own limits in time do not hold: every connecting and every statement has one
here. Resolving names, for which libpq would block, is done by gevent beforehand. A connection that has failed in any
way that is not the statement's own is closed, and with it those that are idle: after a failover the next one reaches
the new primary.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gevent
import psycopg2
import psycopg2.extensions
from gevent.lock import BoundedSemaphore
from psycogreen.gevent import patch_psycopg

from pusher.config import Config, settings
from pusher.errors import StartError
from pusher.listener.statement import Statement

#: What a connection may take once the process runs.
_CONNECT_S = 10.0
#: The server's own time-out comes first, because it says why.
_ANSWER_MARGIN_S = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
#: Classes of SQLSTATE (PostgreSQL's manual, appendix A) that no row is to blame for: connection, state of the
#: transaction (a standby is read-only), login, database, schema, serialization and deadlock, names and rights,
#: resources, limits, locks, intervention of an operator, system, configuration, the server itself. Any other comes from
#: a row: its value, a constraint, a trigger, which may choose its own code.
_SHARED_ERRORS = ("08", "0B", "25", "26", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "XX")


class DatabaseError(Exception):
    """A statement failed. ``row`` where the values are to blame, so that others may pass: its text has none of them."""

    def __init__(self, text: str, *, row: bool = False) -> None:
        super().__init__(text)
        self.row = row


@dataclass(frozen=True)
class Address:
    """Where the database is and how it is spoken to. Times in seconds."""

    #: One host, or several with commas; a path is a directory of sockets; "" is libpq's default.
    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_mode: str
    ssl_root_cert: str
    statement_timeout_s: float

    @classmethod
    def from_config(cls, config: Config) -> Address:
        """As the settings say."""
        return cls(
            host=config[settings.PG_HOST],
            port=config[settings.PG_PORT],
            user=config[settings.PG_USER],
            password=config[settings.PG_PASSWORD],
            database=config[settings.PG_DATABASE],
            ssl_mode=config[settings.PG_SSL_MODE],
            ssl_root_cert=config[settings.PG_SSL_ROOT_CERT],
            statement_timeout_s=config[settings.PG_STATEMENT_TIMEOUT],
        )

    def __str__(self) -> str:
        return f"{self.host or 'localhost'}:{self.port}/{self.database}"

    def parameters(self) -> dict[str, Any]:
        """What libpq is given; resolves the hosts. Waits for that; raises ``OSError``."""
        found: dict[str, Any] = {
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "sslmode": self.ssl_mode,
            "sslrootcert": self.ssl_root_cert,
            "application_name": "pusher",
            "client_encoding": "UTF8",
            "keepalives_idle": 30,
            # Rows can be deleted on a primary only.
            "target_session_attrs": "read-write",
        }
        hosts = [pair for host in self.host.split(",") if host for pair in _resolved(host.strip(), self.port)]
        if hosts:
            found["host"] = ",".join(host for host, _ in hosts)
            found["hostaddr"] = ",".join(address for _, address in hosts)
        return {key: value for key, value in found.items() if value != ""}


def _resolved(host: str, port: int) -> list[tuple[str, str]]:
    """The addresses of a host, each with its name, against which the certificate is checked."""
    if host.startswith(("/", "@")):
        return [(host, "")]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(host, address) for address in dict.fromkeys(str(entry[4][0]) for entry in found)]


def let_others_run() -> None:
    """Makes psycopg2 wait by gevent. Once a process, before the first connection."""
    patch_psycopg()


def wait_s(failures: int) -> float:
    """How long to wait after so many failures in a row: doubled each time, with jitter."""
    return float(min(_FIRST_WAIT_S * 2 ** min(failures, 10), _LONGEST_WAIT_S) * (1 + random.random() / 2))


class Database:
    """At most ``size`` connections, opened when they are needed."""

    def __init__(self, address: Address, size: int) -> None:
        self._address = address
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
            where = settings.PG_HOST.key.rpartition(".")[0]
            text = f"PostgreSQL at {self._address} cannot be used: {error}; see the settings {where}.*"
            raise StartError(text) from None

    def _failure(self) -> str:
        """Asks a question: why there is no answer, or ""."""
        try:
            self.execute(Statement("SELECT 1"))
        except DatabaseError as error:
            return str(error)
        return ""

    def execute(self, statement: Statement) -> int:
        """Carries out one statement as one transaction; the number of its rows. Waits; raises ``DatabaseError``."""
        with self._room, _clear_errors():
            connection = self._idle.pop() if self._idle else self._connect()
            try:
                with gevent.Timeout(self._address.statement_timeout_s + _ANSWER_MARGIN_S, TimeoutError("no answer")):
                    rows = _execute(connection, statement)
            except BaseException as error:
                if isinstance(error, psycopg2.Error) and _is_harmless(error.pgcode or ""):
                    self._idle.append(connection)
                else:
                    connection.close()
                    self.close()
                raise
            self._idle.append(connection)
            return rows

    def close(self) -> None:
        """Closes what is idle. Never waits."""
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> psycopg2.extensions.connection:
        with gevent.Timeout(_CONNECT_S, TimeoutError(f"no connection in {_CONNECT_S:g} s")):
            connection: psycopg2.extensions.connection = psycopg2.connect(**self._address.parameters())
            connection.autocommit = True
            timeout_ms = round(self._address.statement_timeout_s * 1000)
            _execute(connection, Statement(f"SET statement_timeout = {timeout_ms}"))
        return connection


def arguments(statement: Statement) -> tuple[str, tuple[str, ...] | None]:
    """What psycopg2's ``execute`` is called with; without values it leaves ``%%`` alone."""
    text, values = statement
    return (text, values) if values else (text.replace("%%", "%"), None)


def _execute(connection: psycopg2.extensions.connection, statement: Statement) -> int:
    with connection.cursor() as cursor:
        cursor.execute(*arguments(statement))
        return int(cursor.rowcount)


def _is_of_row(code: str) -> bool:
    """Whether a row is to blame for an error with this SQLSTATE; "" is an error that the server has not sent."""
    return bool(code) and not code.startswith(_SHARED_ERRORS)


def _is_harmless(code: str) -> bool:
    """Whether a connection is as good as before: a row, a name or a right (42) was at fault."""
    return _is_of_row(code) or code.startswith("42")


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What psycopg2, the socket and the time-outs raise as one kind of error with a text of one line."""
    try:
        yield
    except psycopg2.Error as error:
        code = error.pgcode or ""
        if _is_of_row(code):
            raise DatabaseError(f"{type(error).__name__}, SQLSTATE {code}", row=True) from None
        raise DatabaseError(_one_line(error)) from error
    except ValueError as error:
        raise DatabaseError(type(error).__name__, row=True) from None
    except OSError as error:
        raise DatabaseError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    text = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    return " ".join((text or str(error) or type(error).__name__).split())
