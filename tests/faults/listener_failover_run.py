"""The listener over millions of rows, behind pgbouncer, killed, and its PostgreSQL lost: exactly the proven ones go."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from bench import topics
from lab import postgres
from lab.kafka.server import free_port
from lab.pgbouncer import PgBouncer
from lab.processes import Daemon
from tests.faults.driver import Driver
from tests.faults.ledger import DELIVERED, REJECTED, Verdict
from tests.faults.pace import Pace
from tests.faults.result import Result
from tests.faults.runs import kafka

#: Games whose names are beginnings of each other's, and both platforms.
TABLES = (("game", "apns"), ("game", "gcm"), ("game_apns", "gcm"), ("Game-two", "apns"))
_COMMAND = "start-feedback-listener"
_GROUP = "failover"
#: One row in so many is dead; of the dead one in so many is refused by a trigger, and one registered anew since.
_DEAD_EVERY, _ODD_EVERY = 20, 500
_LOCK_S = 60
_DEADLINE_S = 900.0


class Database:
    """A primary and the standby that follows it, which clients reach through pgbouncer."""

    def __init__(self, cleanup: ExitStack, rows: int) -> None:
        self._directories = [Path(tempfile.mkdtemp(prefix="pusher-failover-", dir="/var/tmp")) for _ in range(2)]
        for directory in self._directories:
            cleanup.callback(shutil.rmtree, directory)
        self._ports = [free_port(), free_port()]
        self._primary = 0
        postgres.start(self._directories[0], self._ports[0])
        cleanup.callback(lambda: postgres.stop(self._directories[self._primary]))
        for game, platform in TABLES:
            self._make_table(table_of(game, platform), rows // len(TABLES))
        postgres.start_standby(self._directories[1], self._ports[1], self._ports[0])
        # What is committed is on both: nothing that was deleted comes back when the primary is lost.
        self.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.run("SELECT pg_reload_conf()")
        self.bouncer = PgBouncer(self._ports[0], "push", "pusher_user", size=5)
        cleanup.callback(self.bouncer.stop)

    def run(self, text: str) -> Any:
        """As superuser, past pgbouncer: the first column of the first row."""
        connection = psycopg2.connect(host="127.0.0.1", port=self._ports[self._primary], user="postgres", dbname="push")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
                row = cursor.fetchone() if cursor.description else None
                return row[0] if row else None
        finally:
            connection.close()

    def fail_over(self) -> None:
        """The primary is lost; the standby is promoted, and pgbouncer told."""
        postgres.crash(self._directories[0])
        postgres.promote(self._directories[1])
        self._primary = 1
        self.bouncer.switch(self._ports[1])

    def lock(self) -> None:
        """One table can neither be read nor written for a minute. Returns at once."""
        threading.Thread(target=self._lock, daemon=True).start()

    def _lock(self) -> None:
        connection = psycopg2.connect(host="127.0.0.1", port=self._ports[self._primary], user="postgres", dbname="push")
        with connection, connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table_of(*TABLES[0])}")
            time.sleep(_LOCK_S)
        connection.close()

    def _make_table(self, table: str, rows: int) -> None:
        odd = _DEAD_EVERY * _ODD_EVERY
        self.run(f"CREATE TABLE {table} (id int NOT NULL, token text NOT NULL, born timestamptz)")
        self.run(
            f"INSERT INTO {table} SELECT n, md5(n::text), CASE WHEN n % {odd} = {_DEAD_EVERY} THEN now() + '1 d' "
            f"ELSE now() - interval '1 d' END FROM generate_series(0, {rows - 1}) n"
        )
        self.run(f"CREATE INDEX ON {table} (token)")
        self.run(f"ANALYZE {table}")
        self.run(f"ALTER TABLE {table} OWNER TO pusher_user")
        self.run(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF old.id % {odd} = 0 THEN RAISE EXCEPTION 'this one stays'; END IF; RETURN old; END $$"
        )
        self.run(f"CREATE TRIGGER stays BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()")


def table_of(game: str, platform: str) -> str:
    """Quoted, in the schema of the settings."""
    return f'public."{game.lower()}_{platform}"'


def feedbacks(platform: str, rows: int) -> Iterator[str]:
    """Of a game: for each dead row a refusal and a success, and refusals that say nothing of a token."""
    for number in range(0, rows, _DEAD_EVERY):
        yield _refusal(platform, number, "Unregistered", "DEVICE_UNREGISTERED")
        yield _success(platform, number + 1)
        if number % (_DEAD_EVERY * 50) == 0:
            # marked by an older sender, or the words of a proxy: these rows stay
            yield _refusal(platform, number + 2, "TopicDisallowed", "SENDER_ID_MISMATCH")
            yield _refusal(platform, number + 3, "HTTP 410", "UNKNOWN")


def _refusal(platform: str, number: int, reason: str, error: str) -> str:
    token, metadata = _token(number), {"deleteToken": True, "hostname": "pod-1"}
    if platform == "gcm":
        return json.dumps({"from": token, "message_type": "nack", "error": error, "metadata": metadata})
    return json.dumps({"Sent": False, "StatusCode": 410, "Reason": reason, "DeviceToken": token, "metadata": metadata})


def _success(platform: str, number: int) -> str:
    if platform == "gcm":
        return json.dumps({"from": _token(number), "message_type": "ack"})
    return json.dumps({"Sent": True, "StatusCode": 200, "Reason": "", "DeviceToken": _token(number)})


def _token(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def failover(directory: Path, seed: int, rows: int = 5_000_000) -> Result:
    """Behind pgbouncer, 5,000,000 rows, 5 % dead, a trigger, a lock, two kill -9, a failover: only proven rows go."""
    draw = random.Random(seed)
    with kafka(directory) as server, ExitStack() as cleanup:
        database = Database(cleanup, rows)
        total = 0
        names = [f"push-{game}-{platform}-feedbacks" for game, platform in TABLES]
        topics.create(server.brokers, names)
        for (_, platform), name in zip(TABLES, names, strict=True):
            total += topics.fill(server.brokers, name, feedbacks(platform, rows // len(TABLES)))
        daemon = Daemon(directory, "listener", settings(server.brokers, database), _COMMAND, flags=())
        cleanup.callback(daemon.kill)
        daemon.start()

        def restart() -> None:
            daemon.kill()
            daemon.start()

        faults: list[tuple[str, Callable[[], object]]] = [("kill -9", restart)] * 2
        faults += [("the primary is lost, the standby promoted", database.fail_over)]
        draw.shuffle(faults)
        # the last: it would end with its server
        faults.append((f"a table is locked for {_LOCK_S} s", database.lock))
        events, pace = _play(server.brokers, draw, total, faults)
        status = daemon.stop()
        return _result(database, rows, total, events, pace, status)


def settings(brokers: str, database: Database) -> dict[str, Any]:
    """Of the listener: with an archive, so that each deletion is counted where it is made."""
    return {
        "stats": {"reporters": []},
        "admin": {"port": free_port()},
        "kafka": {"client": Driver.client},
        "feedbackListeners": {
            "gracefulShutdownTimeout": 10,
            "queue": {"brokers": brokers, "group": _GROUP, "offsetResetStrategy": "earliest"},
            "invalidToken": {
                "flush.time.ms": 500,
                "pg": {
                    "host": "127.0.0.1",
                    "port": database.bouncer.port,
                    "user": "pusher_user",
                    "database": "push",
                    "table": "public.<game>_<platform>",
                    "updatedAtColumn": "born",
                    "statementTimeout": 10,
                },
            },
            "archive": {"table": "public.dead_tokens"},
        },
    }


def _play(
    brokers: str, draw: random.Random, total: int, faults: list[tuple[str, Callable[[], object]]]
) -> tuple[list[str], Pace]:
    """Each fault when so many feedbacks are committed; until all are."""
    admin, events = KafkaAdminClient(bootstrap_servers=brokers), list[str]()
    pace, began = Pace(), time.monotonic()
    points = sorted(draw.randint(total * 5 // 100, total * 70 // 100) for _ in faults)
    waiting = list(zip(points, faults, strict=True))
    while (done := _committed(admin)) < total and time.monotonic() < began + _DEADLINE_S:
        pace.note(done, time.monotonic(), waiting=True)
        while waiting and done >= waiting[0][0]:
            _, (name, act) = waiting.pop(0)
            events.append(f"{time.monotonic() - began:6.1f} s {done:>8,} committed: {name}")
            act()
        time.sleep(0.1)
    events.append(f"{time.monotonic() - began:6.1f} s {done:>8,} committed: the end")
    assert not waiting, f"all was done before the faults: {waiting}"
    admin.close()
    return events, pace


def _committed(admin: KafkaAdminClient) -> int:
    try:
        found = admin.list_group_offsets([_GROUP])[_GROUP]
    except (KeyError, KafkaError):  # nobody has committed yet
        return 0
    return sum(offset.offset for offset in found.values() if offset.offset > 0)


def _result(database: Database, rows: int, total: int, events: list[str], pace: Pace, status: int) -> Result:
    """Compares the tables with what should be left of them, and the archive with what is gone."""
    odd = _DEAD_EVERY * _ODD_EVERY
    dead = f"id % {_DEAD_EVERY} = 0 AND id % {odd} NOT IN (0, {_DEAD_EVERY})"
    complaints, gone, wanted = [], 0, 0
    for game, platform in TABLES:
        table, each = table_of(game, platform), rows // len(TABLES)
        proven = sum(1 for number in range(0, each, _DEAD_EVERY) if number % odd not in (0, _DEAD_EVERY))
        left = database.run(f"SELECT count(*) FROM {table} WHERE {dead}")
        there = database.run(f"SELECT count(*) FROM {table}")
        archived = database.run(f"SELECT count(*) FROM dead_tokens WHERE game = '{game}' AND platform = '{platform}'")
        gone, wanted = gone + each - there, wanted + proven
        if left or each - there != proven or archived != proven:
            complaints.append(
                f"{table}: {left:,} dead left, {each - there:,} gone, {archived:,} archived of {proven:,}"
            )
    distinct = database.run("SELECT count(DISTINCT (game, platform, token)) FROM dead_tokens")
    if distinct != wanted:
        complaints.append(f"{distinct:,} tokens in the archive, {wanted:,} are dead")
    outcomes = Counter({DELIVERED: total - wanted, REJECTED: wanted})
    verdict = Verdict(total, outcomes, abs(gone - wanted), 0, total, total, complaints)
    line = (
        f"{rows:,} rows, {total:,} feedbacks: {gone:,} rows gone and in the archive of {wanted:,} proven dead, "
        f"{rows - gone:,} left; {len(events) - 1} faults, exit status {status}; "
        f"longest standstill {pace.standstill_s:.1f} s"
    )
    return Result(verdict, verdict.good and status == 0, "\n".join([line, *complaints]), events, 0, pace.standstill_s)


RUNS = {"listener-failover": failover}
