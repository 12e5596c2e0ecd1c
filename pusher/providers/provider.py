"""All that pusher has to know of a platform, in one object: whoever adds one writes a ``Provider`` and nothing else."""

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

#: What is checked, and the check: it returns what it found and raises ``StartError`` or ``OSError``.
Check = tuple[str, Callable[[], str]]


class Service(Protocol):
    """One app's way to its provider."""

    lane: Lane[Any]

    def loops(self) -> dict[str, Callable[[], None]]:
        """What has to run in a greenlet of its own, by name."""
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
        """Links and credentials of this moment."""
        ...


class Shown(NamedTuple):
    """A push from the command line."""

    token: str
    #: Title and body, as far as they are given.
    words: dict[str, str]
    data: dict[str, str]
    dry_run: bool


class Question(NamedTuple):
    """Something that ``pusher init`` must know of an app."""

    setting: AppSetting[str]
    #: Its flag, without the dashes.
    flag: str
    #: What is asked for; help text of the flag as well.
    text: str
    #: A relative path is made absolute: a daemon runs in another directory.
    is_path: bool = False


class Guide(NamedTuple):
    """One way of setting an app up, for ``pusher init``."""

    #: The word after ``init``.
    name: str
    text: str
    questions: tuple[Question, ...]
    #: What to know before the first push, in a sentence.
    note: str
    #: Reads the app's credentials. Raises ``StartError`` where they cannot be used.
    check: Callable[[Config, str], object]


class Rules(NamedTuple):
    """How a platform's feedback is read. Names of fields in lower case."""

    reason: str
    token: str
    #: Field and value that a success has.
    success: tuple[str, Json]
    #: Reasons that mean a dead token, and whether they are doubtful.
    dead: dict[str, bool]
    #: Those of them that say so only where the sender has marked the feedback (``metadata.deleteToken``).
    marked: frozenset[str] = frozenset()


class Told(NamedTuple):
    """What a feedback says of a push."""

    id: Json
    delivered: bool
    reasons: tuple[Json, ...]
    token: Json


def plain_rules(dead: dict[str, bool]) -> Rules:
    """For a provider whose feedbacks are ``plain_feedback``; ``dead``: see ``Rules``."""
    return Rules("reason", "token", ("delivered", True), dead)


def plain_told(fields: Mapping[str, Json]) -> Told | None:
    """What ``plain_feedback`` says."""
    if "delivered" not in fields:
        return None
    return Told(fields.get("id"), fields["delivered"] is True, (fields.get("reason"),), fields.get("token"))


@dataclass(frozen=True)
class Provider:
    """A platform."""

    word: str
    text: str
    #: How the requests of an app are read.
    parser: Callable[[Config, str], Callable[..., Push]]
    build: Callable[[Config, str, OpenLane], Service]
    #: False where there is nothing new; raises ``StartError``.
    reload: Callable[[Any, Config, str], bool]
    checks: Callable[[Config], Iterator[Check]]
    #: The message as a producer would write it. Raises ``StartError``.
    message: Callable[[Shown], dict[str, Json]]
    rules: Rules
    #: None for what is no feedback of this platform.
    told: Callable[[Mapping[str, Json]], Told | None]
    #: Ways of setting an app up.
    guides: tuple[Guide, ...] = ()
    #: What to do about a reason, in a line, by reason; for people who try a push.
    hints: Mapping[str, str] = field(default_factory=dict)


def provider(word: str) -> Provider:
    """The provider of a platform."""
    found: Provider = doors.door(doors.PROVIDERS, word).load()
    return found


@cache
def providers() -> dict[str, Provider]:
    """All that can be imported, by their words; one that cannot costs its own platform alone, and is named."""
    found: dict[str, Provider] = {}
    for word, door in doors.installed(doors.PROVIDERS).items():
        try:
            found[word] = door.load()
        except doors.Broken as error:
            log.error("a platform is left out", error=str(error))
    return found


def words() -> tuple[str, ...]:
    """Of all providers: they stand in topics and name the commands that send."""
    return tuple(doors.installed(doors.PROVIDERS))


def all_apps(config: Config) -> tuple[str, ...]:
    """Of all platforms."""
    return tuple(app for setting in settings.apps().values() for app in config[setting])
