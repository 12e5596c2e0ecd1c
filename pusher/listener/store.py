"""What a store of tokens is: whatever has to forget the tokens that providers call dead.

A store stands behind a door of ``pusher.tokens``: ``open_store(config) -> TokenStore``, which does not wait, and raises
``StartError`` for settings that it cannot use. Several stores may be named; a dead token is finished when each of them
has dealt with it. Whoever writes one inherits from ``TokenStore`` and has to write ``delete`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from pusher.config.values import Config
from pusher.providers.provider import Check
from pusher.push.topics import TopicName


class DeadToken(NamedTuple):
    """A token that its provider calls dead."""

    token: str
    #: The provider's word, such as ``Unregistered``.
    reason: str
    #: When that was known, in ms since the epoch: a token that was registered later is alive.
    told_ms: int


class NotDeleted(Exception):
    """A store could not deal with tokens. The text is one line without any token; it is shown to operators.

    As it is, the same tokens are brought again, after 0.25 s to 10 s, until they can be dealt with; their game waits.
    """

    def __init__(self, text: str, *, of_token: bool = False, missing: bool = False) -> None:
        super().__init__(text)
        #: One of the tokens is to blame. They are brought in halves, until that one stands alone and is given up.
        self.of_token = of_token
        #: There is no place for tokens of this game: nobody has made its table. After a minute that is no reason any
        #: more to call the process not ready.
        self.missing = missing


class TokenStore(Protocol):
    """A store. Its methods run in greenlets, several at once, and may wait as gevent does; none may block the process.

    What they raise beside the exceptions named here costs the tokens in hand another try, never the process.
    """

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        """Forgets tokens of a game and platform, each in the list once. The number of rows that are gone.

        A token that is not there is no error: after a crash the same ones are brought again. What was registered after
        ``told_ms`` should stay. Waits until it is done for good; raises ``NotDeleted``.
        """
        ...

    def prepare(self) -> None:
        """Once, before the first token: waits until the store can be used; raises ``StartError``."""
        return  # a body: whoever inherits need not write one

    def reload(self, config: Config) -> bool:  # noqa: ARG002  # what there is to override
        """At a SIGHUP: takes new credentials; whether there are any. Never waits; raises ``StartError``."""
        return False

    def checks(self) -> Iterator[Check]:
        """What ``--check`` tries."""
        return iter(())

    def close(self) -> None:
        """At the stop. Never waits."""
        return


OpenStore = Callable[[Config], TokenStore]


class Wanted(NamedTuple):
    """Which of the deleted tokens are to be brought back; "" leaves a condition out. Times as the store reads them."""

    owner: TopicName
    since: str
    until: str = ""
    reason: str = ""


class Kept(NamedTuple):
    """Deleted rows of one reason that can be brought back."""

    reason: str
    rows: int
    first: str
    last: str


class Restored(NamedTuple):
    """Rows that were looked at, and those that came back; the others are there again already."""

    rows: int
    restored: int


@runtime_checkable
class RestoringStore(Protocol):
    """What a store has beside ``TokenStore`` if deletions can be undone. Raises ``StartError`` and ``NotDeleted``."""

    def kept(self, wanted: Wanted) -> list[Kept]:
        """What would come back. Waits."""
        ...

    def restore(self, wanted: Wanted) -> Iterator[Restored]:
        """Brings back part by part, each for good. Waits."""
        ...
