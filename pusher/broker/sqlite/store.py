"""The broker's file: a connection to it and a thread that uses it.

Rule: SQLite is called only in ``Store.run``, in the store's own thread, which may wait for a lock or the disk while the
hub continues. Every failure there closes the connection, which undoes an open transaction, and the next call opens it
again: a full disk, a lock and a file that was replaced are temporary outages, not states that need a repair.

The thread must not log or sleep: under gevent these are the hub's.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar, cast
from urllib.parse import quote

import gevent
from gevent.threadpool import ThreadPool

T = TypeVar("T")

SCHEME = "sqlite:///"
#: How long a statement waits for the locks of others.
_BUSY_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 2.0
#: "push": distinguishes the broker's files from other databases.
_APPLICATION_ID = 0x70757368
_VERSION = 1

#: A record's id is its topic's id and its offset in one number (see ``topic_log``): records of a topic lie together.
#: ``next`` is the offset of the next record; it only grows, so that no offset is used twice whatever was deleted.
_SCHEMA = """
CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL);
CREATE TABLE record (id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, value BLOB NOT NULL, headers TEXT);
CREATE TABLE committed (
    consumer_group TEXT NOT NULL, topic TEXT NOT NULL, offset INTEGER NOT NULL, metadata TEXT NOT NULL,
    PRIMARY KEY (consumer_group, topic)
) WITHOUT ROWID;
CREATE TABLE lease (
    consumer_group TEXT NOT NULL, topic TEXT NOT NULL, owner TEXT NOT NULL, fence INTEGER NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (consumer_group, topic)
) WITHOUT ROWID;
"""


class Unavailable(OSError):
    """The file cannot be used now. The text says which and why, in one line."""


class _Failure(NamedTuple):
    error: Exception


class Store:
    """One connection to the file and its thread. ``create``: make the file where it is missing, but no directory."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.path = file_of(url)
        self._create = create
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._pool = ThreadPool(1)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Calls ``work`` with the connection in the store's thread and waits for it. Raises ``Unavailable``."""
        result = self._pool.spawn(self._attempt, work).get()
        if isinstance(result, _Failure):
            raise result.error
        return cast("T", result)

    def close(self) -> None:
        """May wait some 2 s; never raises. A call that still waits for a lock is left to its thread."""
        with gevent.Timeout(_CLOSE_TIMEOUT_S, False):  # type: ignore[arg-type]  # False: it raises nothing
            self._pool.spawn(self._disconnect).get()
            self._pool.kill()

    # --- in the store's thread

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T | _Failure:
        """What ``work`` returned, or why it failed: gevent prints what a thread raises."""
        try:
            return work(self._connect())
        except sqlite3.ProgrammingError as error:
            failure: Exception = error
        except (sqlite3.Error, OSError) as error:
            failure = error if isinstance(error, Unavailable) else Unavailable(f"{self.path}: {_reason(error)}")
        except Exception as error:  # noqa: BLE001  # raised again in the caller's greenlet
            failure = error
        self._disconnect()
        return _Failure(failure)

    def _connect(self) -> sqlite3.Connection:
        inode = _inode(self.path)
        if self._connection is not None and inode == self._inode:
            return self._connection
        self._disconnect()
        if inode is None:
            if not self._create:
                raise Unavailable(f"{self.path} does not exist")
            _make_file(self.path)
            inode = _inode(self.path)
        self._connection, self._inode = _open(self.path, "rw"), inode
        _check(self._connection, self.path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the write lock at once; an exception undoes it, for it ends the connection."""
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def file_of(url: str) -> Path:
    """The file that ``sqlite:///relative`` or ``sqlite:////absolute`` names."""
    return Path(url.removeprefix(SCHEME)).absolute()


def _open(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _make_file(path: Path) -> None:
    """Makes the file in one step, so that two processes that begin at once do not meet in the middle."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        # It holds tokens and payloads. SQLite gives the files beside it the same mode.
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(_open(draft, "rw")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_VERSION}; COMMIT;"
            )
        _link(draft, path)
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{draft}{suffix}").unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        return  # another process was quicker


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != _APPLICATION_ID:
        raise Unavailable(f"{path} is not a file of the embedded broker")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        raise Unavailable(f"{path} was created by a newer pusher (format {version}, known is {_VERSION})")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
