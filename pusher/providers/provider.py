"""Everything that pusher needs to know about a platform, in one object: a new platform is one ``Provider``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pusher.config import doors, settings
from pusher.config.schema import AppSetting
from pusher.config.values import Config
from pusher.telemetry.log import logger

if TYPE_CHECKING:
    from pusher.providers.open_lane import OpenLane
    from pusher.push.fields import Json
    from pusher.push.lane import Lane
    from pusher.push.push import Push
    from pusher.telemetry.health import Condition, Health

log = logger(__name__)

#: The name of a check, and the check: it returns a line with its finding, or raises ``StartError`` or ``OSError``.
Check = tuple[str, Callable[[], str]]


class Service(Protocol):
    """Sends the pushes of one app to its provider."""

    lane: Lane[Any]

    def loops(self) -> dict[str, Callable[[], None]]:
        """Functions that must each run in its own greenlet, by name."""
        ...

    def start(self) -> None:
        """Connects in the background. Returns at once."""
        ...

    def close(self, grace_s: float) -> None:
        """Closes the links; waits up to ``grace_s`` for answers."""
        ...

    @property
    def in_flight(self) -> int:
        """Pushes without an answer."""
        ...

    def health(self) -> Health:
        """Whether pushes can be sent now."""
        ...

    def condition(self) -> Condition:
        """The current state of links and credentials."""
        ...


class Shown(NamedTuple):
    """A push from the command line."""

    token: str
    #: ``title`` and ``body``, if they are given.
    words: dict[str, str]
    data: dict[str, str]
    dry_run: bool


class Question(NamedTuple):
    """Something that ``pusher init`` must know about an app."""

    setting: AppSetting[str]
    #: Its flag, without the dashes.
    flag: str
    #: The text of the question; also the help text of the flag.
    text: str
    #: A relative path is made absolute: a daemon runs in another directory.
    is_path: bool = False


class Guide(NamedTuple):
    """One way to set up an app, for ``pusher init``."""

    #: The word after ``init``.
    name: str
    text: str
    questions: tuple[Question, ...]
    #: What the user should know before the first push, in a sentence.
    note: str
    #: Reads the app's credentials. Raises ``StartError`` if they cannot be used.
    check: Callable[[Config, str], object]


class Rules(NamedTuple):
    """How to read a platform's feedbacks. Names of fields are in lower case."""

    reason: str
    token: str
    #: Field and value that a success has.
    success: tuple[str, Json]
    #: Reasons that mean a dead token, and whether they are doubtful.
    dead: dict[str, bool]
    #: Those of them that count only if the sender has marked the feedback (``metadata.deleteToken``).
    marked: frozenset[str] = frozenset()


class Told(NamedTuple):
    """What a feedback says about a push."""

    id: Json
    delivered: bool
    reasons: tuple[Json, ...]
    token: Json


def plain_rules(dead: dict[str, bool]) -> Rules:
    """The rules for feedbacks that ``plain_feedback`` makes; ``dead``: see ``Rules``."""
    return Rules("reason", "token", ("delivered", True), dead)


def plain_told(fields: Mapping[str, Json]) -> Told | None:
    """Reads a feedback that ``plain_feedback`` made; None for anything else."""
    if "delivered" not in fields:
        return None
    return Told(fields.get("id"), fields["delivered"] is True, (fields.get("reason"),), fields.get("token"))


@dataclass(frozen=True)
class Provider:
    """A platform."""

    word: str
    text: str
    #: Returns the parser of an app's messages.
    parser: Callable[[Config, str], Callable[..., Push]]
    build: Callable[[Config, str, OpenLane], Service]
    #: Starts to use new credentials; returns False if nothing has changed. Raises ``StartError``.
    reload: Callable[[Any, Config, str], bool]
    checks: Callable[[Config], Iterator[Check]]
    #: Builds the message that a producer would write. Raises ``StartError``.
    message: Callable[[Shown], dict[str, Json]]
    rules: Rules
    #: Returns None for a message that is not a feedback of this platform.
    told: Callable[[Mapping[str, Json]], Told | None]
    #: Ways to set up an app.
    guides: tuple[Guide, ...] = ()
    #: One line of advice for each reason, for users who try a push.
    hints: Mapping[str, str] = field(default_factory=dict)


def provider(word: str) -> Provider:
    """The provider of a platform."""
    found: Provider = doors.door(doors.PROVIDERS, word).load()
    return found


@cache
def providers() -> dict[str, Provider]:
    """All providers that can be imported, by their words. One that cannot be imported is logged and skipped."""
    found: dict[str, Provider] = {}
    for word, door in doors.installed(doors.PROVIDERS).items():
        try:
            found[word] = door.load()
        except doors.Broken as error:
            log.error("a platform cannot be loaded and is skipped", error=str(error))
    return found


def words() -> tuple[str, ...]:
    """The words of all providers, which are used in topics and as names of commands."""
    return tuple(doors.installed(doors.PROVIDERS))


def all_apps(config: Config) -> tuple[str, ...]:
    """The names of the apps of all platforms."""
    return tuple(app for setting in settings.apps().values() for app in config[setting])
