"""Opens the stores that ``invalidToken.handlers`` names. A broken store does not stop the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pusher.config import doors
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.listener import settings
from pusher.listener.store import DeadToken, NotDeleted, OpenStore, TokenStore
from pusher.providers.provider import Check
from pusher.push.topics import TopicName
from pusher.telemetry.log import logger

log = logger(__name__)


class BrokenStore(TokenStore):
    """Stands for a store that cannot be used: tokens wait for it, in this process or the next."""

    def __init__(self, why: str) -> None:
        self._why = why

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:  # noqa: ARG002
        """Always raises ``NotDeleted``."""
        raise NotDeleted(self._why)

    def checks(self) -> Iterator[Check]:
        """Says why."""
        yield "store", self._fail

    def _fail(self) -> str:
        raise StartError(self._why)


def open_stores(config: Config) -> dict[str, TokenStore]:
    """By name, in the order of the setting. Never waits.

    Raises ``StartError`` for a name that is no door's, and for settings that a store cannot use.
    """
    opened: dict[str, TokenStore] = {}
    targets = set[str]()
    for name in config[settings.HANDLERS]:
        door = doors.door(doors.TOKENS, name)
        if door.target not in targets:
            targets.add(door.target)
            opened[name] = _open(door, config)
    return opened


def prepare_stores(stores: dict[str, TokenStore]) -> None:
    """Waits until each can be used; one that breaks is replaced. Raises ``StartError``."""
    for name, store in stores.items():
        stores[name] = _guarded(f"{doors.TOKENS} {name}", partial(_prepared, store))


def _prepared(store: TokenStore) -> TokenStore:
    store.prepare()
    return store


def _open(door: doors.Door, config: Config) -> TokenStore:
    try:
        open_store: OpenStore = door.load()
    except StartError as error:
        log.error("a token store cannot be loaded, dead tokens wait for it", error=str(error))
        return BrokenStore(str(error))
    return _guarded(str(door), partial(open_store, config))


def _guarded(name: str, act: Callable[[], TokenStore]) -> TokenStore:
    """Any exception of a plug-in other than ``StartError`` is a fault in its code."""
    try:
        return act()
    except StartError:
        raise
    except Exception as error:  # noqa: BLE001  # plugged in
        why = f"{name} raised {fault(error)}"
        log.error("a token store cannot be loaded, dead tokens wait for it", error=why)
        return BrokenStore(why)


def fault(error: BaseException) -> str:
    """Kind and place of an error in foreign code. Not its text, which may have tokens in it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
