"""Which stores are opened, and that a broken one costs itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from pusher import config
from pusher.config import Config, doors
from pusher.errors import StartError
from pusher.listener.opening import open_stores, prepare_stores
from pusher.listener.store import DeadToken, NotDeleted, TokenStore
from pusher.listener.stores.postgres.store import Postgres
from pusher.push.topics import TopicName

NAME = TopicName("game", "apns")


class Plain(TokenStore):
    """What a plug-in has to write, and no more."""

    def __init__(self, _: Config) -> None:
        self.gone: list[str] = []

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        self.gone += [one.token for one in dead]
        return len(dead)


class Failing(Plain):
    def prepare(self) -> None:
        raise LookupError("a secret")


def fails(_: Config) -> TokenStore:
    raise KeyError("a secret")


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("some_plugin")
    vars(module).update(Plain=Plain, Failing=Failing, fails=fails)
    monkeypatch.setitem(sys.modules, "some_plugin", module)
    installed = doors.installed
    targets = {"plain": "Plain", "failing": "Failing", "fails": "fails", "absent": "Absent"}
    mine = {name: doors.Door(doors.TOKENS, name, f"some_plugin:{x}", "some", "1") for name, x in targets.items()}
    monkeypatch.setattr(doors, "installed", lambda group: installed(group) | (mine if group == doors.TOKENS else {}))


def opened(handlers: str) -> dict[str, TokenStore]:
    return open_stores(config.parse(f"invalidToken.handlers: {handlers}"))


def test_postgresql_is_the_default_and_has_two_names() -> None:
    assert [type(store) for store in open_stores(config.parse("")).values()] == [Postgres]
    assert list(opened("[pg]")) == ["pg"]
    assert list(opened("[pg, postgres]")) == ["pg"]


def test_several_stores_in_their_order() -> None:
    stores = opened("[plain, postgres]")
    assert list(stores) == ["plain", "postgres"]
    assert stores["plain"].delete(NAME, [DeadToken("A", "Unregistered", 1)]) == 1
    assert list(stores["plain"].checks()) == []
    assert not stores["plain"].reload(config.parse(""))
    stores["plain"].close()


def test_an_unknown_name_says_what_is_installed() -> None:
    with pytest.raises(StartError, match=r"that are installed \(postgres, pg, plain"):
        opened("[redis]")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent", r"pusher\.tokens absent \(some 1\): cannot be imported: AttributeError"),
        ("fails", r"pusher\.tokens fails \(some 1\) raised KeyError at test_opening\.py:\d+$"),
        ("failing", r"pusher\.tokens failing raised LookupError at test_opening\.py:\d+$"),
    ],
)
def test_a_broken_store_costs_itself(name: str, why: str) -> None:
    stores = opened(f"[plain, {name}]")
    prepare_stores(stores)
    assert stores["plain"].delete(NAME, [DeadToken("A", "Unregistered", 1)]) == 1
    with pytest.raises(NotDeleted, match=why):
        stores[name].delete(NAME, [])
    for _, check in stores[name].checks():
        with pytest.raises(StartError, match=why):
            check()
