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
from lab.pgbouncer import PgBouncer
from pusher.errors import StartError
from pusher.listener.store import DeadToken, Wanted
from pusher.listener.stores.postgres.address import Address
from pusher.listener.stores.postgres.archive import Archive, restoration, writable_columns
from pusher.listener.stores.postgres.pool import ConnectionPool, DatabaseError, arguments, let_others_run
from pusher.listener.stores.postgres.statement import Statement, quoted
from pusher.listener.stores.postgres.table import Naming, Table
from pusher.push.topics import TopicName
from pusher.sim.certificate import make_ca, make_server_certificate
from tests.integration.listening import Database as Ground
from tests.integration.listening import run

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


def table_of(owner: TopicName) -> str:
    return ".".join(Naming().table_of(owner))


def dead(*tokens: str, told_ms: int = 1_700_000_000_000) -> list[DeadToken]:
    return [DeadToken(token, "Unregistered", told_ms) for token in tokens]


@pytest.fixture
def database(ground: Ground) -> Iterator[ConnectionPool]:
    made = ConnectionPool(address(ground), 2)
    yield made
    made.close()


@pytest.mark.parametrize(
    "game",
    ["Ümlaut", 'a"b', "a'b", "100%", "%s", "back\\slash", "a.b", "drop-table", "a'; DROP TABLE t; --", "a\nb", "ß€😀"],
)
@pytest.mark.parametrize("archived", [False, True])
def test_odd_names(ground: Ground, database: ConnectionPool, game: str, archived: bool) -> None:
    owner = TopicName(f"{game}{archived}", "gcm")
    ground.make_table(table_of(owner), ["A", "B", "it's", "back\\slash"])
    archive = Archive(f"kept {game.replace('.', '')}") if archived else None
    if archive is not None:
        assert database.execute(archive.presence()) == 0
        database.execute(archive.creation())
        assert database.execute(archive.presence()) == 1
    assert database.execute(Table(owner, Naming(), archive).delete(dead("A", "it's", "none"))) == 2
    assert ground.tokens(table_of(owner)) == ["B", "back\\slash"]
    if archive is not None:
        columns = [name for (name,) in ground.run(*arguments(writable_columns(quoted(table_of(owner)))))]
        assert columns == ["id", "token", "born"]
        again = restoration(archive, Wanted(owner, "2020-01-01"), quoted(table_of(owner)), columns, 10)
        assert [database.ask(again).rows for _ in range(2)] == [[(2, 2)], [(0, 0)]]
        assert ground.tokens(table_of(owner)) == ["A", "B", "back\\slash", "it's"]


def test_one_array_uses_the_index(ground: Ground, database: ConnectionPool) -> None:
    owner = TopicName("indexed", "apns")
    ground.make_table("indexed_apns", (f"T{n}" for n in range(50_000)))
    ground.run("CREATE INDEX ON indexed_apns (token)")
    ground.run("ANALYZE indexed_apns")
    text, values = arguments(Table(owner, Naming()).delete(dead(*(f"T{n}" for n in range(20)))))
    plan = ground.run(f"EXPLAIN {text}", *(values or ()))
    assert "indexed_apns_token_idx" in str(plan)


def test_what_was_registered_after_the_word_on_it_stays(ground: Ground, database: ConnectionPool) -> None:
    owner = TopicName("registered", "apns")
    ground.make_table("registered_apns", ["older", "younger", "unknown", "other"])
    ground.run("UPDATE registered_apns SET born = to_timestamp(1700000000) - interval '1 s' WHERE token = 'older'")
    ground.run("UPDATE registered_apns SET born = to_timestamp(1700000000) + interval '1 s' WHERE token = 'younger'")
    ground.run("UPDATE registered_apns SET born = NULL WHERE token = 'unknown'")
    table = Table(owner, Naming.of("public.<game>_<platform>", "token", "Born"), Archive("registered_kept"))
    database.execute(Archive("registered_kept").creation())
    assert database.execute(table.delete(dead("older", "younger", "unknown"))) == 2
    assert ground.tokens("registered_apns") == ["other", "younger"]


def test_nothing_that_is_set_stays_with_the_connection(ground: Ground) -> None:
    pool = ConnectionPool(address(ground, statement_timeout_s=7), 1)
    shown = Statement("SELECT current_setting('statement_timeout')")
    assert pool.ask(shown).rows == [("7s",)]
    (connection,) = pool._idle
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        assert cursor.fetchall() == [("0",)]
    pool.close()


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
    database = ConnectionPool(address(ground, statement_timeout_s=0.2), 1)
    with pytest.raises(DatabaseError) as caught:
        database.execute(Statement(text))
    assert caught.value.of_token is row
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
def test_whose_fault_an_error_of_a_trigger_is(ground: Ground, database: ConnectionPool, code: str, row: bool) -> None:
    text = f"DO $$ BEGIN RAISE EXCEPTION 'kept' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(DatabaseError) as caught:
        database.execute(Statement(text))
    assert caught.value.of_token is row


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ("PERFORM no_such_function()", True),
        ("RAISE object_not_in_prerequisite_state", True),
        ("PERFORM 1 FROM no_such_table", False),
        ("RAISE insufficient_privilege", False),
        ("PERFORM pg_sleep(60)", False),
    ],
)
def test_a_mistake_in_a_trigger_is_met_by_its_rows_alone(ground: Ground, body: str, row: bool) -> None:
    pool = ConnectionPool(address(ground, statement_timeout_s=0.3), 1)
    with pytest.raises(DatabaseError) as caught:
        pool.execute(Statement(f"DO $$ BEGIN {body}; END $$"))
    assert caught.value.of_token is row
    assert pool.execute(Statement("SELECT 1")) == 1
    pool.close()


def test_a_constraint_that_is_checked_at_the_commit(ground: Ground, database: ConnectionPool) -> None:
    ground.make_table("deferred_apns", ["A", "B"])
    ground.run("ALTER TABLE deferred_apns ADD UNIQUE (token)")
    ground.run(
        "CREATE TABLE deferred_users (token text REFERENCES deferred_apns (token) DEFERRABLE INITIALLY DEFERRED)"
    )
    ground.run(f"ALTER TABLE deferred_users OWNER TO {ground.name}")
    ground.run("INSERT INTO deferred_users VALUES ('A')")
    table = Table(TopicName("deferred", "apns"), Naming())
    with pytest.raises(DatabaseError) as caught:
        database.execute(table.delete(dead("A", "B")))
    assert caught.value.of_token
    assert database.execute(table.delete(dead("B"))) == 1
    assert ground.tokens("deferred_apns") == ["A"]


def test_a_value_that_cannot_be_sent_is_the_rows_fault(database: ConnectionPool) -> None:
    for value in ("a\0b", "\ud800"):
        with pytest.raises(DatabaseError) as caught:
            database.execute(Statement("SELECT %s", (value,)))
        assert caught.value.of_token


def test_the_pool_is_bounded_and_others_go_on(ground: Ground, database: ConnectionPool) -> None:
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


def test_connections_that_the_server_has_closed_are_replaced(ground: Ground, database: ConnectionPool) -> None:
    gevent.joinall([gevent.spawn(database.execute, Statement("SELECT pg_sleep(0.05)")) for _ in range(2)])
    ground.disconnect_all()
    with pytest.raises(DatabaseError):
        database.execute(Statement("SELECT 1"))
    assert database.execute(Statement("SELECT 1")) == 1


# --- pgbouncer


@pytest.fixture
def bouncer(ground: Ground) -> Iterator[PgBouncer]:
    """In transaction mode, with one connection to the server, which all clients share."""
    made = PgBouncer(int(psycopg2.extensions.parse_dsn(ground.dsn)["port"]), ground.name, ground.name)
    yield made
    made.stop()


def test_behind_pgbouncer_other_clients_keep_their_own_settings(ground: Ground, bouncer: PgBouncer) -> None:
    ground.make_table("bounced_apns", ["A", "B", "C"])
    other = f"host=127.0.0.1 port={bouncer.port} user={ground.name} dbname={ground.name}"
    seen = [run(other, "SHOW statement_timeout")]
    pool = ConnectionPool(address(ground, host="127.0.0.1", port=bouncer.port, statement_timeout_s=0.5), 2)
    table = Table(TopicName("bounced", "apns"), Naming())
    assert pool.execute(table.delete(dead("A"))) == 1
    seen.append(run(other, "SHOW statement_timeout"))
    with pytest.raises(DatabaseError, match="statement timeout"):
        pool.execute(Statement("SELECT pg_sleep(20)"))
    assert pool.execute(table.delete(dead("B"))) == 1
    seen.append(run(other, "SHOW statement_timeout"))
    pool.close()
    assert seen == [[("0",)]] * 3
    assert ground.tokens("bounced_apns") == ["C"]


def test_a_password_that_has_changed(ground: Ground) -> None:
    pool = ConnectionPool(address(ground, password="old"), 2)
    assert pool.execute(Statement("SELECT 1")) == 1
    assert not pool.move_to(address(ground, password="old"))
    assert pool.move_to(address(ground, password="new"))
    assert pool._idle == []
    assert pool.execute(Statement("SELECT 1")) == 1
    assert pool._idle[0].info.password == "new"
    pool.close()


def test_a_host_that_does_not_resolve(ground: Ground) -> None:
    with pytest.raises(StartError, match=r"^PostgreSQL at no-such-host\.invalid:"):
        ConnectionPool(address(ground, host="no-such-host.invalid"), 1).probe(0.3)


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
    database = ConnectionPool(Address(host, tls_port, "pusher_user", "", "push", mode, root, 5.0), 1)
    if error:
        with pytest.raises(DatabaseError, match=error):
            database.execute(Statement("SELECT 1"))
        return
    assert database.execute(Statement("SELECT 1 FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl")) == int(
        mode != "disable"
    )
    database.close()


def test_probing_waits_for_a_database_that_comes_late(ground: Ground) -> None:
    database = ConnectionPool(address(ground), 1)
    ground.admin(f"ALTER DATABASE {ground.name} CONNECTION LIMIT 0")
    with pytest.raises(StartError, match="too many connections"):
        database.probe(0.2)
    later = gevent.spawn_later(0.3, ground.admin, f"ALTER DATABASE {ground.name} CONNECTION LIMIT -1")
    database.probe(20.0)
    later.get()
    database.close()
