"""Real PostgreSQL from inside the process: odd names, the bound of the pool, TLS, and that nobody else has to wait."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gevent
import psycopg2.extensions
import pytest

from lab import postgres
from lab.kafka.server import free_port
from pusher.errors import StartError
from pusher.listener.archive import Archive, Wanted, restoration, writable_columns
from pusher.listener.database import Address, Database, DatabaseError, arguments, let_others_run
from pusher.listener.statement import Statement
from pusher.listener.tokens import Table, table_of
from pusher.push.topics import TopicName
from pusher.sim.certificate import make_ca, make_server_certificate
from tests.integration.listening import Database as Ground

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cooperative() -> Iterator[None]:
    let_others_run()
    yield
    psycopg2.extensions.set_wait_callback(None)


@pytest.fixture(scope="module")
def ground(postgres_dsn: str) -> Iterator[Ground]:
    made = Ground(postgres_dsn)
    yield made
    made.drop()


def address(ground: Ground, *, statement_timeout_s: float = 10.0, **changes: object) -> Address:
    port = int(psycopg2.extensions.parse_dsn(ground.dsn)["port"])
    found = Address("localhost", port, ground.name, "", ground.name, "prefer", "", statement_timeout_s)
    return Address(**{**vars(found), **changes})


@pytest.fixture
def database(ground: Ground) -> Iterator[Database]:
    made = Database(address(ground), 2)
    yield made
    made.close()


@pytest.mark.parametrize(
    "game",
    ["Ümlaut", 'a"b', "a'b", "100%", "%s", "back\\slash", "a.b", "drop-table", "a'; DROP TABLE t; --", "a\nb", "ß€😀"],
)
@pytest.mark.parametrize("archived", [False, True])
def test_odd_names(ground: Ground, database: Database, game: str, archived: bool) -> None:
    owner = TopicName(f"{game}{archived}", "gcm")
    ground.make_table(table_of(owner), ["A", "B", "it's", "back\\slash"])
    archive = Archive(f"kept {game.replace('.', '')}") if archived else None
    if archive is not None:
        assert database.execute(archive.presence()) == 0
        database.execute(archive.creation())
        assert database.execute(archive.presence()) == 1
    dead = {"A": "BAD_REGISTRATION", "it's": "DEVICE_UNREGISTERED", "none": "BAD_REGISTRATION"}
    assert database.execute(Table(owner, archive).delete(dead)) == 2
    assert ground.tokens(table_of(owner)) == ["B", "back\\slash"]
    if archive is not None:
        columns = [name for (name,) in ground.run(*arguments(writable_columns(table_of(owner))))]
        assert columns == ["id", "token", "born"]
        database.execute(restoration(archive, Wanted(owner, "2020-01-01"), table_of(owner), columns))
        assert ground.tokens(table_of(owner)) == ["A", "B", "back\\slash", "it's"]


def test_one_array_uses_the_index(ground: Ground, database: Database) -> None:
    owner = TopicName("indexed", "apns")
    ground.make_table("indexed_apns", (f"T{n}" for n in range(50_000)))
    ground.run("CREATE INDEX ON indexed_apns (token)")
    ground.run("ANALYZE indexed_apns")
    text, values = arguments(Table(owner).delete({f"T{n}": "Unregistered" for n in range(20)}))
    plan = ground.run(f"EXPLAIN {text}", *(values or ()))
    assert "indexed_apns_token_idx" in str(plan)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("SELECT 1/0", True),
        ("SELECT 'secret-token'::uuid", True),
        ("DO $$ BEGIN RAISE foreign_key_violation USING MESSAGE = 'secret-token'; END $$", True),
        ("DO $$ BEGIN RAISE EXCEPTION 'no deleting today'; END $$", True),
        ("SELECT * FROM no_such_table", False),
        ("SELECT pg_sleep(60)", False),
        ("SELEC", False),
    ],
)
def test_whose_fault_a_failure_is(ground: Ground, text: str, row: bool) -> None:
    database = Database(address(ground, statement_timeout_s=0.2), 1)
    with pytest.raises(DatabaseError) as caught:
        database.execute(Statement(text))
    assert caught.value.row is row
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert database.execute(Statement("SELECT 1")) == 1
    database.close()


@pytest.mark.parametrize(
    ("code", "row"),
    [
        *[(code, True) for code in ("P0001", "09000", "27000", "38000", "44000", "U0001", "21000")],
        *[(code, False) for code in ("25006", "40001", "40P01", "42501", "42P01", "53100", "55P03", "57014", "58030")],
    ],
)
def test_whose_fault_an_error_of_a_trigger_is(ground: Ground, database: Database, code: str, row: bool) -> None:
    text = f"DO $$ BEGIN RAISE EXCEPTION 'kept' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(DatabaseError) as caught:
        database.execute(Statement(text))
    assert caught.value.row is row


def test_a_value_that_cannot_be_sent_is_the_rows_fault(database: Database) -> None:
    for value in ("a\0b", "\ud800"):
        with pytest.raises(DatabaseError) as caught:
            database.execute(Statement("SELECT %s", (value,)))
        assert caught.value.row


def test_the_pool_is_bounded_and_others_go_on(ground: Ground, database: Database) -> None:
    ticks = 0
    busiest = 0

    def tick() -> None:
        nonlocal ticks, busiest
        while True:
            gevent.sleep(0.02)
            ticks += 1
            open_now = ground.run(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'pusher'", ground.name
            )
            busiest = max(busiest, open_now[0][0])

    ticker = gevent.spawn(tick)
    sleepers = [gevent.spawn(database.execute, Statement("SELECT pg_sleep(0.3)")) for _ in range(6)]
    gevent.joinall(sleepers, raise_error=True)
    ticker.kill()
    assert ticks > 3, "the hub was blocked"
    assert busiest == 2


def test_connections_that_the_server_has_closed_are_replaced(ground: Ground, database: Database) -> None:
    gevent.joinall([gevent.spawn(database.execute, Statement("SELECT pg_sleep(0.05)")) for _ in range(2)])
    ground.disconnect_all()
    with pytest.raises(DatabaseError):
        database.execute(Statement("SELECT 1"))
    assert database.execute(Statement("SELECT 1")) == 1


def test_a_host_that_does_not_resolve(ground: Ground) -> None:
    with pytest.raises(StartError, match=r"^PostgreSQL at no-such-host\.invalid:"):
        Database(address(ground, host="no-such-host.invalid"), 1).probe(0.3)


# --- TLS


@pytest.fixture(scope="module")
def tls_port() -> Iterator[int]:
    """A PostgreSQL with a certificate for localhost; its authority is ca.pem in the directory of ``tls_directory``."""
    directory = Path(tempfile.mkdtemp(prefix="pusher-tls-", dir="/var/tmp"))
    port = free_port()
    postgres.start(directory, port)
    ca = make_ca()
    make_server_certificate(ca, names=("localhost",)).write(directory, "server")
    owner = directory.stat()
    for name in ("server.pem", "server.key"):
        shutil.chown(directory / name, owner.st_uid, owner.st_gid)
    (directory / "server.key").chmod(0o600)
    ca.write(directory, "ca")
    make_ca("another").write(directory, "other")
    with (directory / "postgresql.conf").open("a") as configuration:
        configuration.write("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n")
    postgres.stop(directory)
    postgres.start(directory, port)
    _directories[port] = directory
    yield port
    postgres.stop(directory)
    shutil.rmtree(directory)


_directories: dict[int, Path] = {}


@pytest.mark.parametrize(
    ("mode", "authority", "host", "error"),
    [
        ("verify-full", "ca.pem", "localhost", ""),
        ("verify-full", "other.pem", "localhost", "certificate verify failed"),
        ("verify-full", "ca.pem", "127.0.0.1", "does not match host name"),
        ("verify-ca", "ca.pem", "127.0.0.1", ""),
        ("verify-ca", "other.pem", "127.0.0.1", "certificate verify failed"),
        ("require", "", "127.0.0.1", ""),
        ("disable", "", "localhost", ""),
    ],
)
def test_tls_is_verified_when_asked_to(tls_port: int, mode: str, authority: str, host: str, error: str) -> None:
    root = str(_directories[tls_port] / authority) if authority else ""
    database = Database(Address(host, tls_port, "pusher_user", "", "push", mode, root, 5.0), 1)
    if error:
        with pytest.raises(DatabaseError, match=error):
            database.execute(Statement("SELECT 1"))
        return
    assert database.execute(Statement("SELECT 1 FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl")) == int(
        mode != "disable"
    )
    database.close()


def test_probing_waits_for_a_database_that_comes_late(ground: Ground) -> None:
    database = Database(address(ground), 1)
    ground.admin(f"ALTER DATABASE {ground.name} CONNECTION LIMIT 0")
    with pytest.raises(StartError, match="too many connections"):
        database.probe(0.2)
    later = gevent.spawn_later(0.3, ground.admin, f"ALTER DATABASE {ground.name} CONNECTION LIMIT -1")
    database.probe(20.0)
    later.get()
    database.close()
