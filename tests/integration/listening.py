"""What the listener's tests stand on: a database of their own, a way to it that can be cut, listeners as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import orjson
import psycopg2
import yaml
from gevent import socket
from gevent.server import StreamServer

from tests.contract.brokers import Broker, expect_stored

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
COMMAND = "start-feedback-listener"


def until(condition: Callable[[], object], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition; fails after ``deadline_s``."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what or condition}"
        gevent.sleep(0.05)


class Database:
    """A database and a role that own nothing else, beside the shared one."""

    def __init__(self, dsn: str) -> None:
        self.name = f"listener_{uuid.uuid4().hex[:12]}"
        self._admin_dsn = dsn
        self.dsn = f"{dsn} dbname={self.name}"
        self.admin(f"CREATE ROLE {self.name} LOGIN", f"CREATE DATABASE {self.name} OWNER {self.name}")

    def drop(self) -> None:
        self.admin(f"DROP DATABASE {self.name} WITH (FORCE)", f"DROP ROLE {self.name}")

    def admin(self, *statements: str) -> None:
        """As superuser, in the shared database."""
        for statement in statements:
            run(self._admin_dsn, statement)

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """As superuser, in this database; its rows."""
        return run(self.dsn, statement, values)

    def disconnect_all(self) -> None:
        self.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")

    def make_table(self, name: str, tokens: Iterable[str], kind: str = "text") -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        percent = quoted.replace("%", "%%")
        self.run(
            f"CREATE TABLE {quoted} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token {kind} NOT NULL, "
            "born timestamptz DEFAULT now(), twice int GENERATED ALWAYS AS (id * 2) STORED)"
        )
        self.run(f"ALTER TABLE {quoted} OWNER TO {self.name}")
        self.run(f"INSERT INTO {percent} (token) SELECT unnest(%s::{kind}[])", list(tokens))

    def tokens(self, table: str) -> list[str]:
        quoted = '"' + table.replace('"', '""') + '"'
        return [token for (token,) in self.run(f"SELECT token::text FROM {quoted} ORDER BY 1")]


def run(dsn: str, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """One statement on a connection of its own; its rows."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


class Way:
    """A TCP way to PostgreSQL that can be closed and frozen."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port = int(self._server.server_port or 0)
        self._sockets: list[socket.socket] = []
        self._open = gevent.event.Event()
        self._open.set()
        self._closed = False

    def close(self) -> None:
        """Cuts all connections and admits no new one."""
        self._closed = True
        for one in self._sockets:
            one.close()
        self._sockets.clear()

    def reopen(self) -> None:
        self._closed = False

    def freeze(self) -> None:
        """Nothing passes, nothing ends."""
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    def stop(self) -> None:
        self.close()
        self._server.stop()

    def _serve(self, client: socket.socket, _: object) -> None:
        if self._closed:
            return
        server = socket.create_connection(self._target)
        self._sockets += [client, server]
        back = gevent.spawn(self._pass, server, client)
        self._pass(client, server)
        back.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self._open.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()


class Listening:
    """``python pusher.py start-feedback-listener`` as a process, and its log."""

    def __init__(self, directory: Path, settings: Mapping[str, object], *flags: str) -> None:
        self.config = directory / f"{uuid.uuid4().hex[:8]}.yaml"
        self.config.write_text(yaml.safe_dump({"feedbackListeners": settings}, allow_unicode=True))
        self._log = self.config.with_suffix(".log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHER_")}
        command = [sys.executable, "pusher.py", COMMAND, "--config", str(self.config), *flags]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def await_log(self, text: str) -> None:
        until(lambda: text in self.log or self._process.poll() is not None, f"{text} in the log")
        assert text in self.log, self.log

    def await_count(self, count: Callable[[], int], number: int) -> None:
        until(lambda: count() == number or self._process.poll() is not None, f"{number} of what is counted")
        assert count() == number, self.log

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        until(lambda: self._process.poll() is not None, f"the end of the process; {self.log}")
        return int(self._process.returncode)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Place:
    """A broker, topics and a group of the test's own, and the listeners that it starts."""

    def __init__(self, broker: Broker, address: str, database: Database, port: int, directory: Path) -> None:
        self.broker, self.address, self.database = broker, address, database
        self.prefix = f"l{uuid.uuid4().hex[:8]}"
        self.group = f"group-{self.prefix}"
        self.port = port
        self._directory = directory
        self._topics: set[str] = set()
        self.listeners: list[Listening] = []

    def close(self) -> None:
        for listener in self.listeners:
            listener.kill()

    def game(self, name: str = "") -> str:
        """A game that only this test has."""
        return self.prefix + name

    def write(self, game: str, platform: str, *values: bytes, partitions: int = 3) -> None:
        """Into the feedback topic of a game, which is made where it is missing."""
        topic = f"push-{game}-{platform}-feedbacks"
        if topic not in self._topics:
            self._topics.add(topic)
            self.broker.create_topic(topic, partitions)
        with closing(self.broker.publisher()) as publisher:
            for value in values:
                publisher.publish(topic, value, expect_stored)
            assert publisher.flush(20) == 0

    def settings(self, *, flush_ms: int = 200, size: int = 1000, pg: dict[str, object] | None = None) -> dict[str, Any]:
        return {
            "gracefulShutdownTimeout": 5,
            "queue": {
                "brokers": self.address,
                "group": self.group,
                "topics": [f"^push-{self.prefix}"],
                "offsetResetStrategy": "earliest",
                "metadataRefresh": "500ms",
                "commitInterval": "200ms",
            },
            "invalidToken": {
                "flush.time.ms": flush_ms,
                "buffer.size": size,
                "pg": {
                    "host": "127.0.0.1",
                    "port": self.port,
                    "user": self.database.name,
                    "database": self.database.name,
                    "connectionTimeout": 10_000,
                    "statementTimeout": 1,
                }
                | (pg or {}),
            },
        }

    def listen(self, settings: dict[str, Any] | None = None, *flags: str) -> Listening:
        made = Listening(self._directory, settings or self.settings(), *flags)
        self.listeners.append(made)
        return made

    def left(self, game: str, platform: str = "apns") -> list[str]:
        return self.database.tokens(f"{game}_{platform}".lower())

    def await_left(self, game: str, *tokens: str, platform: str = "apns") -> None:
        """Until the table of a game holds exactly these."""
        until(lambda: self.left(game, platform) == sorted(tokens), f"{game}_{platform} with {len(tokens)} rows")


def port_of(dsn: str) -> int:
    return int(psycopg2.extensions.parse_dsn(dsn)["port"])


def dead(token: str, reason: str = "Unregistered") -> bytes:
    """Apple's refusal as senders feed it back; also for tokens that are no Unicode."""
    text = orjson.dumps(token) if token.isascii() or token.isprintable() else escaped(token)
    return b'{"Sent":false,"StatusCode":410,"Reason":"%s","DeviceToken":%s,"metadata":{}}' % (reason.encode(), text)


def escaped(token: str) -> bytes:
    """A JSON string in ASCII."""
    units = token.encode("utf-16-be", "surrogatepass")
    return b'"' + b"".join(b"\\u%04x" % int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)) + b'"'


def unregistered(token: str) -> bytes:
    """Google's refusal."""
    return orjson.dumps({"from": token, "message_type": "nack", "error": "DEVICE_UNREGISTERED"})


def delivered(token: str) -> bytes:
    """Apple's acceptance."""
    return orjson.dumps({"Sent": True, "StatusCode": 200, "Reason": "", "DeviceToken": token})
