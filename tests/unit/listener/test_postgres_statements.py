"""The statements: whatever a token or a game is called, it stays a value or a name."""

from __future__ import annotations

import json

import pytest

from pusher.errors import StartError
from pusher.listener.store import DeadToken, NotDeleted, Wanted
from pusher.listener.stores.postgres.archive import Archive, restoration, summary
from pusher.listener.stores.postgres.pool import arguments
from pusher.listener.stores.postgres.statement import array, folded, is_text, quoted
from pusher.listener.stores.postgres.table import Naming, Table
from pusher.push.topics import TopicName

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


def table_of(owner: TopicName) -> str:
    return ".".join(Naming().table_of(owner))


def tokens(**reasons: str) -> list[DeadToken]:
    return [DeadToken(token, reason, 1_700_000_000_000) for token, reason in reasons.items()]


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
    statement = Table(TopicName(game, "gcm"), Naming()).delete(
        tokens(**{"secret'; DROP TABLE x; --": "BAD_REGISTRATION"})
    )
    assert statement.text == f'DELETE FROM {quoted(table_of(TopicName(game, "gcm")))} WHERE "token" = ANY(%s)'
    assert statement.values == ('{"secret\'; DROP TABLE x; --"}',)
    name = table_of(TopicName(game, "gcm")).replace('"', '""')
    assert statement.text % "HERE" == f'DELETE FROM "{name}" WHERE "token" = ANY(HERE)'


def test_an_archive_takes_what_is_deleted_in_the_same_statement() -> None:
    statement = Table(TopicName("Game", "apns"), Naming(), Archive("Kept.Rows")).delete(
        tokens(T1="Unregistered", Ü="BadDeviceToken")
    )
    assert statement.text.startswith('WITH gone AS (DELETE FROM "game_apns" WHERE "token" = ANY(%s) RETURNING *) ')
    assert 'INTO "kept"."rows"' in statement.text
    assert statement.text.count("%s") == len(statement.values) == 4
    listed, game, platform, reasons = statement.values
    assert (listed, game, platform) == ('{"T1","Ü"}', "Game", "apns")
    assert json.loads(reasons) == {"T1": "Unregistered", "Ü": "BadDeviceToken"}


def test_conditions_of_a_restoration_are_bound() -> None:
    archive = Archive("kept")
    owner = TopicName('a"b', "apns")
    for wanted, number in ((Wanted(owner, "today"), 3), (Wanted(owner, "a", "b", "c"), 5)):
        statement = restoration(archive, wanted, quoted(table_of(owner)), ["id", 'co"l'], 10)
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
    [("AB12", True), ("ü\n\\'\"", True), ("", True), ("a\0", False), ("😀", True)],
)
def test_what_postgresql_can_hold(value: str, holds: bool) -> None:
    assert is_text(value) is holds


def test_only_ascii_letters_are_folded() -> None:
    assert folded("AZ_ÀÉI\u0130-09") == "az_ÀÉi\u0130-09"


@pytest.mark.parametrize(
    ("template", "game", "table"),
    [
        ("push.<game>_<platform>", "Game", ("push", "game_apns")),
        ("Devices_<PLATFORM>_<game>", "g", ("devices_<platform>_g",)),
        ("<platform>.<game>", "a.b", ("apns", "a.b")),
        ("<game>_<platform>", "x.y", ("x.y_apns",)),
    ],
)
def test_a_template_names_schema_and_table(template: str, game: str, table: tuple[str, ...]) -> None:
    assert Naming.of(template, "token", "").table_of(TopicName(game, "apns")) == table


@pytest.mark.parametrize("template", ["a.b.<game>", ".<game>", "<game>.", "x" * 64 + "<game>"])
def test_a_template_that_names_no_table_is_refused(template: str) -> None:
    with pytest.raises(StartError, match=r"pg\.table expects|cannot be a name"):
        Naming.of(template, "token", "")


@pytest.mark.parametrize(("game", "fits"), [("g" * 58, True), ("g" * 59, False), ("ü" * 29, True), ("ü" * 30, False)])
def test_a_name_that_postgresql_would_cut_is_no_table(game: str, fits: bool) -> None:
    table = Table(TopicName(game, "apns"), Naming())
    if fits:
        assert table.delete(tokens(T1="Unregistered"))
        return
    with pytest.raises(NotDeleted, match="cuts names at 63 bytes") as caught:
        table.delete(tokens(T1="Unregistered"))
    assert caught.value.missing


def test_columns_are_named_and_what_was_registered_later_stays() -> None:
    naming = Naming.of("<game>_<platform>", "Device", 'Updated"At')
    statement = Table(TopicName("game", "apns"), naming).delete(tokens(T1="Unregistered"))
    assert statement.text.startswith('DELETE FROM "game_apns" WHERE "device" = ANY(%s) AND ("updated""at" IS NULL OR ')
    assert statement.values == ('{"T1"}', '{"T1": 1700000000000}', "1700000000000")
    assert statement.text.count("%s") == 3
