"""The statements: whatever a token or a game is called, it stays a value or a name."""

from __future__ import annotations

import json

import pytest

from pusher.broker.offsets import TopicPartition, Tracker
from pusher.listener.archive import Archive, Wanted, restoration, summary
from pusher.listener.database import arguments
from pusher.listener.sorter import Dead
from pusher.listener.statement import array, folded, is_text, quoted
from pusher.listener.tokens import Table, batches, table_of
from pusher.push.topics import TopicName
from tests.records import record

ODD_GAMES = [
    "drop-table",
    "Ümlaut",
    'a"b',
    "a'b",
    "100%",
    "%s",
    "back\\slash",
    "a.b",
    "x; DROP TABLE t",
    "ÀÉ_ß",
    "a\nb",
]


@pytest.mark.parametrize(
    ("game", "table"),
    [
        ("Game", "game_apns"),
        ("MY-Game", "my-game_apns"),
        ("Ümlaut", "Ümlaut_apns"),
        ("ÄB", "Äb_apns"),
        ('A"B', 'a"b_apns'),
    ],
)
def test_tables_are_named_as_postgresql_folds(game: str, table: str) -> None:
    assert table_of(TopicName(game, "apns")) == table


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("game_apns",), '"game_apns"'),
        (('a"b_apns',), '"a""b_apns"'),
        (('"; DROP TABLE t; --',), '"""; DROP TABLE t; --"'),
        (("100%",), '"100%%"'),
        (("archive", "tokens"), '"archive"."tokens"'),
    ],
)
def test_names_are_quoted(names: tuple[str, ...], text: str) -> None:
    assert quoted(*names) == text


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([], "{}"),
        (["a", "b"], '{"a","b"}'),
        (["NULL", ""], '{"NULL",""}'),
        (['a"b', "c\\d", "{e}", "f,g", "it's"], '{"a\\"b","c\\\\d","{e}","f,g","it\'s"}'),
    ],
)
def test_tokens_are_one_array(tokens: list[str], text: str) -> None:
    assert array(tokens) == text


@pytest.mark.parametrize("game", ODD_GAMES)
def test_nothing_of_the_values_is_in_the_text(game: str) -> None:
    statement = Table(TopicName(game, "gcm")).delete({"secret'; DROP TABLE x; --": "BAD_REGISTRATION"})
    assert statement.text == f"DELETE FROM {quoted(table_of(TopicName(game, 'gcm')))} WHERE token = ANY(%s)"
    assert statement.values == ('{"secret\'; DROP TABLE x; --"}',)
    name = table_of(TopicName(game, "gcm")).replace('"', '""')
    assert statement.text % "HERE" == f'DELETE FROM "{name}" WHERE token = ANY(HERE)'


def test_an_archive_takes_what_is_deleted_in_the_same_statement() -> None:
    statement = Table(TopicName("Game", "apns"), Archive("Kept.Rows")).delete(
        {"T1": "Unregistered", "Ü": "BadDeviceToken"}
    )
    assert statement.text.startswith('WITH gone AS (DELETE FROM "game_apns" WHERE token = ANY(%s) RETURNING *) INSERT ')
    assert 'INTO "kept"."rows"' in statement.text
    assert statement.text.count("%s") == len(statement.values) == 4
    tokens, game, platform, reasons = statement.values
    assert (tokens, game, platform) == ('{"T1","Ü"}', "Game", "apns")
    assert json.loads(reasons) == {"T1": "Unregistered", "Ü": "BadDeviceToken"}


def test_conditions_of_a_restoration_are_bound() -> None:
    archive = Archive("kept")
    owner = TopicName('a"b', "apns")
    for wanted, number in ((Wanted(owner, "today"), 3), (Wanted(owner, "a", "b", "c"), 5)):
        statement = restoration(archive, wanted, table_of(owner), ["id", 'co"l'])
        assert statement.text.count("%s") == len(statement.values) == number
        assert 'INSERT INTO "a""b_apns" ("id", "co""l")' in statement.text
        assert summary(archive, wanted).values == statement.values


def test_a_text_without_values_has_plain_percent_signs() -> None:
    assert arguments(Archive("100%").presence()) == ("SELECT 1 WHERE to_regclass(%s) IS NOT NULL", ('"100%"',))
    text, values = arguments(Archive("100%").creation())
    assert text.startswith('CREATE TABLE "100%" (')
    assert values is None


@pytest.mark.parametrize(
    ("value", "holds"),
    [("AB12", True), ("ü\n\\'\"", True), ("", True), ("a\0", False), ("\ud800", False), ("😀", True)],
)
def test_what_postgresql_can_hold(value: str, holds: bool) -> None:
    assert is_text(value) is holds
    assert Table(TopicName("game", "apns")).can_hold(value) is holds
    assert Table(TopicName(value, "apns")).can_hold("AB12") is holds


def test_only_ascii_letters_are_folded() -> None:
    assert folded("AZ_ÀÉI\u0130-09") == "az_ÀÉi\u0130-09"


def dead(token: str) -> Dead:
    return Dead(token, "Unregistered", False, Tracker(TopicPartition("t", 0), 0), record(b""))


def test_batches_have_a_limit_in_number_and_in_characters() -> None:
    small = [dead(f"{number}") for number in range(25)]
    assert [len(part) for part in batches(small, 10)] == [10, 10, 5]
    large = [dead("x" * 400_000) for _ in range(5)]
    assert [len(part) for part in batches(large, 10)] == [2, 2, 1]
    assert [len(part) for part in batches([dead("x" * 3_000_000), *small[:2]], 10)] == [1, 2]
    assert [one for part in batches(small, 7) for one in part] == small
    assert list(batches([], 10)) == []
