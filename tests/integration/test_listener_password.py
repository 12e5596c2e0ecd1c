"""The database's password changes while the listener runs."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import postgres
from lab.kafka.server import free_port
from tests.integration.listening import Place, dead, run

pytestmark = pytest.mark.integration


@pytest.fixture
def asking_port() -> Iterator[int]:
    """Of a PostgreSQL that asks the role ``keeper`` for its password."""
    directory = Path(tempfile.mkdtemp(prefix="pusher-password-", dir="/var/tmp"))
    port = free_port()
    postgres.start(directory, port)
    rules = directory / "pg_hba.conf"
    rules.write_text("host all keeper 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    admin(port, "SELECT pg_reload_conf()", "CREATE ROLE keeper LOGIN PASSWORD 'first secret'")
    yield port
    postgres.stop(directory)
    shutil.rmtree(directory)


def admin(port: int, *statements: str) -> list[tuple[object, ...]]:
    """As superuser; the rows of the last one."""
    found: list[tuple[object, ...]] = []
    for statement in statements:
        found = run(f"host=127.0.0.1 port={port} user=postgres dbname=push", statement)
    return found


def test_sighup_takes_the_new_password(embedded: Place, asking_port: int) -> None:
    game = embedded.game()
    table = f'"{game}_apns"'
    admin(asking_port, f"CREATE TABLE {table} (token text)", f"ALTER TABLE {table} OWNER TO keeper")
    admin(asking_port, f"INSERT INTO {table} VALUES ('A'), ('B'), ('C')")
    access = {"port": asking_port, "user": "keeper", "database": "push"}
    embedded.write(game, "apns", dead("A"))
    listener = embedded.listen(embedded.settings(pg=access | {"pass": "first secret"}))
    listener.await_count(lambda: len(admin(asking_port, f"SELECT * FROM {table}")), 2)
    gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keeper'"
    admin(asking_port, "ALTER ROLE keeper PASSWORD 'second secret'", gone)
    embedded.write(game, "apns", dead("B"))
    listener.await_log("password authentication failed")
    settings = embedded.settings(pg=access | {"pass": "second secret"})
    listener.config.write_text(yaml.safe_dump({"feedbackListeners": settings}))
    listener.signal(signal.SIGHUP)
    listener.await_count(lambda: len(admin(asking_port, f"SELECT * FROM {table}")), 1)
    assert listener.stop() == 0
    assert "secret" not in listener.log
