"""The interface of a token store, from which the tokens are deleted that providers report as dead.

A store is a plug-in of the group ``pusher.tokens``: ``open_store(config) -> TokenStore``, which does not wait, and
raises ``StartError`` for settings that it cannot use. Several stores may be configured; a dead token is finished when
each of them has handled it. A store inherits from ``TokenStore`` and needs to implement only ``delete``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from pusher.config.values import Config
from pusher.providers.provider import Check
from pusher.push.topics import TopicName


class DeadToken(NamedTuple):
    """A token that its provider reports as dead."""

    token: str
    #: The provider's reason, such as ``Unregistered``.
    reason: str
    #: When the token was known to be dead, in ms since the epoch: a token that was registered later is alive.
    told_ms: int


class NotDeleted(Exception):
    """A store could not delete tokens. The text is one line without any token; operators see it.

    By default the store gets the same tokens again, after 0.25 s to 10 s, until it succeeds; their game waits.
    """

    def __init__(self, text: str, *, of_token: bool = False, missing: bool = False) -> None:
        super().__init__(text)
        #: One of the tokens is the cause. The batch is halved until that token is isolated; then it is given up.
        self.of_token = of_token
        #: The table of this game does not exist. After a minute this no longer makes the process not ready.
        self.missing = missing


class TokenStore(Protocol):
    """A store. Its methods run in greenlets, several at once. They may wait with gevent, but may not block the process.

    If they raise another exception than those named here, the current tokens are retried; the process continues.
    """

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        """Deletes tokens of a game and platform; each is in the list once. Returns the number of deleted rows.

        A missing token is not an error: after a crash the same tokens come again. A token that was registered after
        ``told_ms`` should be kept. Waits until the deletion is durable; raises ``NotDeleted``.
        """
        ...

    def prepare(self) -> None:
        """Called once, before the first token: waits until the store can be used; raises ``StartError``."""
        return  # a body, so that implementing it is optional

    def reload(self, config: Config) -> bool:  # noqa: ARG002  # what there is to override
        """Called at SIGHUP: uses new credentials; returns whether they changed. Never waits; raises ``StartError``."""
        return False

    def checks(self) -> Iterator[Check]:
        """The checks of this store for ``--check``."""
        return iter(())

    def close(self) -> None:
        """Called at the stop. Never waits."""
        return


OpenStore = Callable[[Config], TokenStore]


class Wanted(NamedTuple):
    """Which deleted tokens to restore; "" means no condition. The store parses the times."""

    owner: TopicName
    since: str
    until: str = ""
    reason: str = ""


class Kept(NamedTuple):
    """Deleted rows of one reason that can be restored."""

    reason: str
    rows: int
    first: str
    last: str


class Restored(NamedTuple):
    """The number of rows that were handled, and of those that were restored; the others already exist again."""

    rows: int
    restored: int


@runtime_checkable
class RestoringStore(Protocol):
    """A ``TokenStore`` that can undo deletions. Its methods raise ``StartError`` and ``NotDeleted``."""

    def kept(self, wanted: Wanted) -> list[Kept]:
        """What ``restore`` would restore. Waits."""
        ...

    def restore(self, wanted: Wanted) -> Iterator[Restored]:
        """Restores rows in parts; each part is durable when it is yielded. Waits."""
        ...
