"""What a setting is: data, namely its key, its kind, its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pusher.config.kinds import Unused, ValueKind
from pusher.errors import StartError

T = TypeVar("T")

#: Stands for an app's name in the key of an :class:`AppSetting`.
APP = "<app>"


class ConfigError(StartError):
    """A setting, or a source of settings, is wrong."""


@dataclass(frozen=True, eq=False)
class Setting(Generic[T]):
    """One setting. ``aliases`` are further keys for it, used where the key itself is not given."""

    key: str
    kind: ValueKind[T]
    default: T
    text: str
    aliases: tuple[str, ...] = ()

    @property
    def has_effect(self) -> bool:
        """Whether anything reads it."""
        return not isinstance(self.kind, Unused)

    @property
    def default_shown(self) -> str:
        """The default as a user would write it."""
        return self.kind.show(self.default)


@dataclass(frozen=True, eq=False)
class AppSetting(Setting[T]):
    """A setting that every app has its own value of: its key contains ``<app>``."""

    def for_app(self, app: str) -> Setting[T]:
        """The setting of one app."""
        aliases = tuple(alias.replace(APP, app) for alias in self.aliases)
        return Setting(self.key.replace(APP, app), self.kind, self.default, self.text, aliases)


def unused(key: str, *aliases: str, text: str = "Accepted, no effect.") -> Setting[str]:
    """A key that older files contain and that has no meaning here: accepted, and named at start."""
    return Setting(key, Unused(), "", text, aliases)


def variable(key: str) -> str:
    """The environment variable of a key. A ``-`` is kept, so some can be set in containers but not in shells."""
    return "PUSHER_" + key.replace(".", "_").upper()
