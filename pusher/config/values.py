"""The effective settings, as the rest of pusher reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pusher.config.schema import AppSetting, ConfigError, Setting

T = TypeVar("T")


class RefusedValue(NamedTuple):
    """A value that cannot be one: it costs the app whose it is, when that is set up."""

    message: str


class Value(NamedTuple):
    """The effective value of a setting, and its source."""

    setting: Setting[Any]
    value: Any
    where: str


class Config:
    """All settings, checked. ``config[SETTING]`` and ``config.of(APP_SETTING, app)`` are typed and never wait."""

    def __init__(self, values: Mapping[str, Value], warnings: Sequence[str], path: str, *, production: bool) -> None:
        self._values = values
        #: One line for each key or variable that nothing reads.
        self.warnings = tuple(warnings)
        #: The file, to be read again when credentials are to be reloaded.
        self.path = path
        #: Whether the providers' production addresses are meant.
        self.production = production
        #: The command that it was read for; "" for none.
        self.command = ""
        #: Reads all sources again; raises ConfigError. The file may have changed since.
        self.again: Callable[[], Config] = lambda: self
        #: Whether the file has changed since it was read. Never waits.
        self.changed: Callable[[], bool] = lambda: False

    def __getitem__(self, setting: Setting[T]) -> T:
        found = self._values.get(setting.key.lower())
        if found is None:
            return setting.default
        if isinstance(found.value, RefusedValue):
            raise ConfigError(found.value.message)
        value: T = found.value
        return value

    def of(self, setting: AppSetting[T], app: str) -> T:
        """The value of one app; its name's case does not matter. Raises ``ConfigError`` where it is not valid."""
        return self[setting.for_app(app)]

    def where(self, setting: Setting[T]) -> str:
        """Where a value came from, for messages: ``default``, ``file:line``, ``variable NAME`` or ``flag --key``."""
        found = self._values.get(setting.key.lower())
        return "default" if found is None else found.where

    def refused(self, app: str) -> list[str]:
        """The errors in the values of an app, one line each."""
        found = (one for one in self._values.values() if isinstance(one.value, RefusedValue))
        return [one.value.message for one in found if f".{app}." in f"{one.setting.key}."]

    def values(self) -> Iterator[Value]:
        """Everything in force, in the order of the declarations, each app's after the plain ones."""
        return iter(self._values.values())
