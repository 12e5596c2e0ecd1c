"""The listener as a process, with a real PostgreSQL and real brokers: exactly the dead tokens go, whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

from lab.kafka.admin import committed
from tests.contract.brokers import broker_at
from tests.integration.listening import (
    ROOT,
    Database,
    Place,
    Way,
    dead,
    delivered,
    unregistered,
    until,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", ["kafka", "sqlite"])
def test_dead_tokens_go_and_nobody_else(kind: str, make_place: Callable[[str, str], Place], kafka_brokers: str) -> None:
    place = make_place(kind, kafka_brokers)
    games = [place.game(), place.game("-drop-table"), place.game("_My_Game")]
    for game in games:
        for platform in ("apns", "gcm"):
            place.database.make_table(f"{game}_{platform}".lower(), ["A", "B", "C", "C", "D"])
        place.write(game, "apns", delivered("A"), dead("B"), dead("C"), b"garbage", dead("none"))
        place.write(game, "gcm", unregistered("D"), b'{"from":"A","message_type":"ack"}', dead("B"))
    listener = place.listen()
    for game in games:
        place.await_left(game, "A", "D")
        place.await_left(game, "A", "B", "C", "C", platform="gcm")
    assert listener.stop() == 0
    assert "stopped gracefully" in listener.log
    assert "garbage" not in listener.log
    assert 'msg="a feedback cannot be read"' in listener.log


def test_all_that_was_read_is_committed_at_the_stop(place: Place, kafka_brokers: str) -> None:
    game = place.game()
    place.database.make_table(f"{game}_apns", ["A", "B"])
    place.write(game, "apns", *[delivered("A")] * 50, dead("B"), b"[]")
    listener = place.listen()
    place.await_left(game, "A")
    assert listener.stop() == 0
    assert sum(commit.offset for commit in committed(kafka_brokers, place.group).values()) == 52


ODD_TOKENS = ["it's", 'a"b', "a\\b", "{x,y}", "NULL", "a\nb", "%s %%", "Ü😀", "'; DROP TABLE t; --", "x" * 100_000]


@pytest.mark.parametrize("archive", ["", "kept"])
def test_odd_tokens(embedded: Place, archive: str) -> None:
    game = embedded.game("-drop-table")
    embedded.database.make_table(f"{game}_apns", [*ODD_TOKENS, "good"])
    embedded.write(game, "apns", *map(dead, ODD_TOKENS), dead("NUL\0"), dead("\ud800"), dead("\udfff\ud800"))
    listener = embedded.listen(embedded.settings() | {"archive": {"table": archive and embedded.prefix + archive}})
    embedded.await_left(game, "good")
    assert listener.stop() == 0
    assert "retrying" not in listener.log


def test_a_token_that_does_not_fit_the_column_lets_others_pass(place: Place) -> None:
    game = place.game()
    ids = sorted(str(uuid.uuid4()) for _ in range(20))
    place.database.make_table(f"{game}_gcm", ids, kind="uuid")
    place.write(game, "gcm", *map(unregistered, [*ids[:7], "no uuid", *ids[7:15], "secret-token"]))
    listener = place.listen()
    place.await_left(game, *ids[15:], platform="gcm")
    listener.await_log("a token cannot be deleted")
    assert listener.stop() == 0
    assert "secret-token" not in listener.log


def test_a_game_without_a_table_holds_up_no_other(place: Place) -> None:
    missing, present = place.game("a"), place.game("b")
    place.database.make_table(f"{present}_apns", ["A", "B", "C", "D"])
    place.write(missing, "apns", dead("A"))
    place.write(present, "apns", dead("A"))
    listener = place.listen()
    place.await_left(present, "B", "C", "D")
    listener.await_log("not ready")
    listener.await_log(f"{missing}_apns")
    # the first of these may have been asked for before the trouble, the later ones were not
    for token, left in (("B", "CD"), ("C", "D"), ("D", "")):
        place.write(present, "apns", dead(token))
        place.await_left(present, *left)
    place.database.make_table(f"{missing}_apns", ["A", "B"])
    place.await_left(missing, "B")
    listener.await_log("deleting tokens works again")
    listener.await_log('msg="ready"')
    assert listener.stop() == 0


@pytest.fixture
def trouble(request: pytest.FixtureRequest, way: Way, database: Database) -> Iterator[Callable[[], None]]:
    """Begins the trouble of that name; ends it when asked again."""
    steps = {
        "down": (way.close, way.reopen),
        "frozen": (way.freeze, way.thaw),
        "read-only": (
            lambda: database.admin(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on"),
            lambda: database.admin(f"ALTER DATABASE {database.name} RESET default_transaction_read_only"),
        ),
        "no connections": (
            lambda: database.admin(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0"),
            lambda: database.admin(f"ALTER DATABASE {database.name} CONNECTION LIMIT -1"),
        ),
    }[request.param]
    remaining = list(steps)

    def switch() -> None:
        remaining.pop(0)()
        database.disconnect_all() if request.param in ("read-only", "no connections") else None

    yield switch
    if len(remaining) == 1:
        remaining[0]()


@pytest.mark.parametrize("trouble", ["down", "frozen", "read-only", "no connections"], indirect=True)
def test_a_database_in_trouble_loses_nothing(place: Place, way: Way, trouble: Callable[[], None]) -> None:
    game = place.game()
    place.port = way.port
    place.database.make_table(f"{game}_apns", [f"T{n:03}" for n in range(100)])
    place.write(game, "apns", dead("T000"), *[delivered("X")] * 50)
    listener = place.listen()
    until(lambda: "T000" not in place.left(game), "the first token gone")
    trouble()
    place.write(game, "apns", *(dead(f"T{n:03}") for n in range(50)))
    listener.await_log("deleting tokens failed, retrying")
    listener.await_log("not ready")
    assert len(place.left(game)) == 99
    trouble()
    place.await_left(game, *(f"T{n:03}" for n in range(50, 100)))
    assert listener.stop() == 0


def test_a_locked_table_holds_up_no_other(place: Place) -> None:
    locked, free = place.game("a"), place.game("b")
    for game in (locked, free):
        place.database.make_table(f"{game}_apns", ["A", "B"])
    with closing(psycopg2.connect(place.database.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{locked}_apns"')
        place.write(locked, "apns", dead("A"))
        place.write(free, "apns", dead("A"))
        listener = place.listen()
        place.await_left(free, "B")
        listener.await_log("statement timeout")
    place.await_left(locked, "B")
    assert listener.stop() == 0


def test_kill_9_loses_nothing(place: Place) -> None:
    game = place.game()
    place.database.make_table(f"{game}_apns", [f"T{n:03}" for n in range(100)])
    place.write(game, "apns", *(dead(f"T{n:03}") for n in range(10)))
    patient = place.listen(place.settings(flush_ms=60_000, size=4))
    until(lambda: len(place.left(game)) < 100, "some of them gone")
    patient.signal(signal.SIGKILL)
    assert patient.wait() == -signal.SIGKILL
    place.listen()
    place.await_left(game, *(f"T{n:03}" for n in range(10, 100)))


def test_the_guard_counts_what_a_killed_listener_had_finished(place: Place, kafka_brokers: str) -> None:
    game = place.game()
    place.database.make_table(f"{game}_apns", [f"T{n:03}" for n in range(100)])
    feedbacks = [one for n in range(100) for one in (dead(f"T{n:03}"), delivered("X"))]
    place.write(game, "apns", *feedbacks, partitions=1)
    patient = place.listen(place.settings(flush_ms=60_000))
    until(lambda: any(one.metadata for one in committed(kafka_brokers, place.group).values()), "successes committed")
    patient.signal(signal.SIGKILL)
    patient.wait()
    assert len(place.left(game)) == 100
    place.listen()
    place.await_left(game)


def test_the_buffer_is_flushed_at_the_stop(place: Place, kafka_brokers: str) -> None:
    game = place.game()
    place.database.make_table(f"{game}_apns", ["A", "B", "C"])
    place.write(game, "apns", dead("A"), delivered("C"), dead("B"))
    listener = place.listen(place.settings(flush_ms=60_000))
    listener.await_log('msg="partitions"')
    # a success beyond the waiting tokens is committed: they were read
    until(
        lambda: any(commit.metadata for commit in committed(kafka_brokers, place.group).values()), "a range committed"
    )
    assert place.left(game) == ["A", "B", "C"]
    assert listener.stop() == 0
    assert place.left(game) == ["C"]


def test_what_cannot_be_deleted_at_the_stop_is_left_to_the_next_start(place: Place, way: Way) -> None:
    game = place.game()
    place.port = way.port
    place.database.make_table(f"{game}_apns", ["A", "B"])
    listener = place.listen()
    listener.await_log("feedback listener started")
    way.close()
    place.write(game, "apns", dead("A"))
    listener.await_log("deleting tokens failed")
    assert listener.stop() == 0
    assert "1 dead tokens are left for the next start" in listener.log
    way.reopen()
    place.listen()
    place.await_left(game, "B")


def test_deletion_can_be_switched_off(place: Place, kafka_brokers: str) -> None:
    game = place.game()
    place.database.make_table(f"{game}_apns", ["A"])
    place.write(game, "apns", dead("A"), delivered("B"))
    # nobody listens at port 1: no database is needed
    settings = place.settings(pg={"port": 1}) | {"broker": {"invalidTokenEnabled": False}}
    listener = place.listen(settings)
    until(lambda: sum(commit.offset for commit in committed(kafka_brokers, place.group).values()) == 2, "all committed")
    assert place.left(game) == ["A"]
    assert listener.stop() == 0


def held_values(place: Place, game: str, number: int) -> list[bytes]:
    """What the held topic of a game has, which are to be so many."""
    found: list[bytes] = []
    with closing(broker_at(place.broker.address).reader(f"push-{game}-apns-held")) as reader:

        def read() -> bool:
            found.extend(record.value or b"" for record in reader.read(1.0))
            return len(found) >= number

        until(read, f"{number} held feedbacks")
        found.extend(record.value or b"" for record in reader.read(1.0))
    return found


def test_the_guard_holds_one_game_and_the_other_goes_on(place: Place) -> None:
    wrong, right = place.game("wrong"), place.game("right")
    tokens = [f"T{n:03}" for n in range(100)]
    for game in (wrong, right):
        place.database.make_table(f"{game}_apns", tokens)
    place.broker.create_topic(f"push-{wrong}-apns-held")
    burst = [dead(token, "BadDeviceToken") for token in tokens[:50]]
    place.write(wrong, "apns", *burst, dead(tokens[60]), delivered("X"), partitions=1)
    few = [dead(token, "BadDeviceToken") for token in tokens[:5]]
    # one partition each: the guard sees the outcomes in this order
    place.write(right, "apns", *(delivered(token) for token in tokens), *few, partitions=1)
    listener = place.listen(place.settings(flush_ms=2_000) | {"guard": {"minimum": 20, "share": 0.3}})
    place.await_left(right, *tokens[5:])
    place.await_left(wrong, *(token for token in tokens if token != tokens[60]))
    listener.await_log("the guard has stopped their deletion")
    assert listener.stop() == 0
    assert sorted(held_values(place, wrong, len(burst))) == sorted(burst)
    assert listener.log.count("the guard has stopped their deletion") == 1
    replay = [sys.executable, "pusher.py", "replay", "--config", str(listener.config), "--from", "earliest", "--yes"]
    subprocess.run([*replay, "--topic", f"push-{wrong}-apns-held"], cwd=ROOT, capture_output=True, check=True)
    place.write(wrong, "apns", *burst[:20], partitions=1)
    again = place.listen(place.settings() | {"guard": {"minimum": 20, "share": 0.3}})
    place.await_left(wrong, *(token for token in tokens[50:] if token != tokens[60]))
    again.await_log("the guard has stopped their deletion")
    assert again.stop() == 0


def test_deleted_rows_can_be_brought_back(place: Place) -> None:
    game = place.game("-Odd_Name")
    table = f"{game}_apns".lower()
    place.database.make_table(table, ["A", "B", "C"])
    before = place.database.run(f'SELECT * FROM "{table}" ORDER BY id')
    place.write(game, "apns", dead("A"), dead("B", "BadDeviceToken"), dead("none"))
    place.database.run(f"CREATE SCHEMA s_{place.prefix} AUTHORIZATION {place.database.name}")
    archive = f"s_{place.prefix}.Kept"
    listener = place.listen(place.settings() | {"archive": {"table": archive}})
    place.await_left(game, "C")
    assert listener.stop() == 0
    kept = place.database.run(f'SELECT game, platform, token, reason FROM "s_{place.prefix}"."kept" ORDER BY token')
    assert kept == [(game, "apns", "A", "Unregistered"), (game, "apns", "B", "BadDeviceToken")]

    def restore(*arguments: str) -> str:
        command = [sys.executable, "scripts/restore_tokens.py", "--config", str(listener.config), "--game", game]
        command += ["--since", "2020-01-01", "--platform", "apns", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "2 rows would be restored" in restore()
    assert place.left(game) == ["C"]
    assert "nothing to restore" in restore("--until", "2020-01-02", "--yes")
    assert "1 rows restored" in restore("--reason", "BadDeviceToken", "--yes")
    assert place.left(game) == ["B", "C"]
    assert "1 rows restored" in restore("--yes")
    assert place.database.run(f'SELECT * FROM "{table}" ORDER BY id') == before
    assert "nothing to restore" in restore("--yes")


def run_to_its_end(place: Place, settings: dict[str, Any], *flags: str) -> tuple[int, str]:
    listener = place.listen(settings, *flags)
    return listener.wait(), listener.log


def test_without_a_database_it_does_not_start(place: Place) -> None:
    code, log = run_to_its_end(place, place.settings(pg={"port": 1, "connectionTimeout": 300}))
    assert code == 2
    assert log.startswith("pusher: PostgreSQL at 127.0.0.1:1/")
    assert log.count("\n") == 1


def test_an_archive_that_cannot_be_made_is_a_reason_not_to_start(place: Place) -> None:
    code, log = run_to_its_end(place, place.settings() | {"archive": {"table": "no_such_schema.kept"}})
    assert code == 2
    assert log.startswith(
        'pusher: feedbackListeners.archive.table: the table "no_such_schema"."kept" cannot be created'
    )


def test_check_names_tables_without_an_index_and_that_there_is_no_undo(place: Place) -> None:
    indexed, plain, missing = place.game("i"), place.game("p"), place.game("m")
    for game in (indexed, plain):
        place.database.make_table(f"{game}_apns", ["A"])
    place.database.run(f'CREATE INDEX ON "{indexed}_apns" (token)')
    place.database.run(f'CREATE INDEX ON "{plain}_apns" (born, token)')
    place.database.run(f"CREATE INDEX ON \"{plain}_apns\" (token) WHERE token > 'B'")
    long = "g" * 60
    code, log = run_to_its_end(
        place, place.settings(), "--check", f"--apns.apps={indexed},{plain},{missing},{long}", "--gcm.apps="
    )
    assert code == 2
    lines = {line.partition(": ")[0]: line for line in log.splitlines()}
    assert lines[f"ok      table of {indexed} apns"].endswith('_apns" has an index on token')
    assert "has no index on token: each DELETE reads the whole table" in lines[f"ok      table of {plain} apns"]
    assert "does not exist" in lines[f"ok      table of {missing} apns"]
    assert "cuts names at 63 bytes" in lines[f"failed  table of {long} apns"]
    assert "deleted rows cannot be restored" in lines["ok      feedbackListeners.archive.table"]
    settings = place.settings(pg={"updatedAtColumn": "Seen"})
    code, log = run_to_its_end(place, settings, "--check", f"--apns.apps={indexed}", "--gcm.apps=")
    assert f'"{indexed}_apns" has no column seen: tokens of this game wait until it has' in log


def test_a_start_without_an_archive_says_so(place: Place) -> None:
    listener = place.listen()
    listener.await_log("no archive: deleted rows cannot be restored")
    assert listener.stop() == 0


@pytest.mark.parametrize("reason", ["TopicDisallowed", "BadDeviceToken", "Unregistered", "DeviceTokenNotForTopic"])
def test_a_set_up_that_is_wrong_for_everybody_empties_no_table(place: Place, reason: str) -> None:
    """A misspelt topic in messages, tokens of the other environment, a proxy that answers 410, another app's topic."""
    game = place.game()
    tokens = [f"T{n:02}" for n in range(80)]
    place.database.make_table(f"{game}_apns", tokens)
    place.broker.create_topic(f"push-{game}-apns-held")
    place.write(game, "apns", *(dead(token, reason) for token in tokens[:78]), *map(delivered, tokens[78:]), dead("Z"))
    listener = place.listen(place.settings(flush_ms=1_000))
    if reason != "TopicDisallowed":
        listener.await_log("the guard has stopped their deletion")
    until(lambda: sum(one.offset for one in committed(place.address, place.group).values()) == 81, "all finished")
    assert place.left(game) == tokens
    assert listener.stop() == 0


def test_check_says_what_works(place: Place) -> None:
    code, log = run_to_its_end(place, place.settings() | {"archive": {"table": place.prefix}}, "--check")
    assert code == 0
    assert log.count("ok ") == 3
    assert "will be created at the start" in log
    code, log = run_to_its_end(place, place.settings(pg={"port": 1, "connectionTimeout": 300}), "--check")
    assert code == 2
    assert "failed  PostgreSQL" in log
