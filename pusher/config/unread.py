"""Unknown keys and variables: each causes a warning that names the closest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pusher.config import file
from pusher.config.schema import APP, AppSetting, ConfigError, Setting, variable


def group_refused(setting: Setting[Any], where: str) -> str:
    """The text about a mapping in the place of a value."""
    return f"{where}: {setting.key} expects {setting.kind.expects}; keys below it are not"


class Unread:
    """Finds them, given what is known: settings by every spelling of their keys in lower case, and variables.

    ``own`` are those of apps.
    """

    def __init__(
        self,
        keys: Mapping[str, Setting[Any]],
        own: Iterable[Setting[Any]],
        variables: Collection[str],
        declared: Iterable[Setting[Any]],
        apps: Mapping[str, Setting[tuple[str, ...]]],
    ) -> None:
        self._keys, self._variables, self._apps = keys, variables, apps
        self._own = frozenset(own)
        self._of_apps = [setting for setting in declared if isinstance(setting, AppSetting)]
        near = [setting.key for setting in (*keys.values(), *self._of_apps)]
        self._near_keys = {key.lower(): key for key in near}
        self._near_variables = {variable(key): variable(key) for key in near}

    def key(self, line: file.Line, name: str) -> str | None:
        """The warning about a line of the file, if any. Raises ConfigError where a value and a group are confused."""
        low, where = line.key.lower(), f"{name}:{line.number}"
        if low in self._keys:
            return None
        if any(known.startswith(f"{low}.") for known in (*self._keys, *self._near_keys)):
            raise ConfigError(f"{where}: {line.key} is a group; write its keys below it, such as {self._below(low)}")
        above = self.above(line)
        if above is not None:
            if self.is_of_an_app(above) or not above.has_effect:
                return None
            raise ConfigError(group_refused(above, where))
        return self._of_no_app(line.key, ".") or f"{where}: {self._unread(line.key, low, self._near_keys)}"

    def variable(self, name: str) -> str | None:
        """The warning about a variable, if any."""
        if name in self._variables:
            return None
        return self._of_no_app(name, "_") or f"variable {self._unread(name, name, self._near_variables)}"

    def is_of_an_app(self, setting: Setting[Any]) -> bool:
        """Whether what is wrong with it costs an app, not the process."""
        return setting in self._own

    def above(self, line: file.Line) -> Setting[Any] | None:
        """The setting below whose own key a line's key stands."""
        low = line.key.lower()
        for end in range(low.count("."), 0, -1):
            above = ".".join(low.split(".")[:end])
            if above in self._keys and self._keys[above].key.lower() == above:
                return self._keys[above]
        return None

    def _below(self, low: str) -> str:
        return min(key for known, key in self._near_keys.items() if known.startswith(f"{low}."))

    def _of_no_app(self, name: str, dot: str) -> str | None:
        """The warning about settings of an app that is not in the list; the same for all of its settings."""
        for setting in self._of_apps:
            pattern = variable(setting.key) if dot == "_" else setting.key
            before, _, after = pattern.partition(APP.upper() if dot == "_" else APP)
            found = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", name, re.IGNORECASE)
            apps = self._apps.get(setting.key.partition(".")[0])
            if found and apps and setting.has_effect:
                return f"{before}{found[1]}: nothing reads it, because {found[1]!r} is not in {apps.key}"
        return None

    @staticmethod
    def _unread(shown: str, name: str, near: Mapping[str, str]) -> str:
        shown = shown if shown.isprintable() else repr(shown)
        closest = difflib.get_close_matches(name, near, n=1)
        return f"{shown}: nothing reads it" + (f"; did you mean {near[closest[0]]}?" if closest else "")
