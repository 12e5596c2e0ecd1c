"""The doors: plug-ins by group and name.

A door is an entry point (Python packaging, "Entry points specification"). pusher's own doors are listed in
``doors.ini``, so that they are found in a source tree too; other packages declare theirs in their metadata. Finding a
door imports nothing; ``Door.load`` does.
"""

from __future__ import annotations

import configparser
import re
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from pusher import __version__
from pusher.errors import StartError

PROVIDERS = "pusher.providers"
STATS = "pusher.stats"
FEEDBACK = "pusher.feedback"
TOKENS = "pusher.tokens"
BROKERS = "pusher.brokers"
#: Modules that declare settings: every ``Setting`` in them is known to file, variables, flags and documents.
SETTINGS = "pusher.settings"

#: Commands that a provider brings beside its own.
COMMANDS = "pusher.commands"

#: The package of what pusher ships.
SHIPPED = "pusherd"

GROUPS = (PROVIDERS, STATS, FEEDBACK, TOKENS, BROKERS, COMMANDS)


class Broken(StartError):
    """The object of a door cannot be imported."""


class Door(NamedTuple):
    """Something that is plugged in."""

    group: str
    name: str
    #: ``module:object``.
    target: str
    package: str
    version: str

    def load(self) -> Any:
        """The object of the door. Raises ``Broken`` with one line if it cannot be imported."""
        try:
            return EntryPoint(self.name, self.target, self.group).load()
        except Exception as error:
            raise Broken(f"{self}: cannot be imported: {_one_line(error)}") from error

    @property
    def is_shipped(self) -> bool:
        """Whether it is one of pusher's own."""
        return self.package == SHIPPED

    def __str__(self) -> str:
        return f"{self.group} {self.name} ({self.package} {self.version})"


@cache
def installed(group: str) -> dict[str, Door]:
    """All doors of a group by name; if a name is declared twice, pusher's own is used, else the first."""
    found = {name: Door(group, name, target, SHIPPED, __version__) for name, target in _shipped(group)}
    for entry in entry_points(group=group):
        of = entry.dist
        package, version = (of.name, of.version) if of is not None else ("?", "?")
        found.setdefault(entry.name, Door(group, entry.name, entry.value, package, version))
    return found


def door(group: str, name: str) -> Door:
    """Raises ``StartError``, which names the doors that are installed."""
    doors = installed(group)
    if name not in doors:
        raise StartError(f"{group} has no {name!r}; installed: {', '.join(doors) or 'none'}")
    return doors[name]


def _shipped(group: str) -> list[tuple[str, str]]:
    shipped = configparser.ConfigParser()
    shipped.read_string((resources.files(__package__) / "doors.ini").read_text())
    return shipped.items(group) if shipped.has_section(group) else []


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


#: The words of all platforms, as alternatives of a regular expression.
PLATFORMS = "|".join(map(re.escape, installed(PROVIDERS)))
