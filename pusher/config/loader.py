"""Brings flags, variables and the file together: flag before variable before file before default.

ConfigArgParse decides which source wins; here every source's own spelling is first turned into the setting's key
(aliases, any case, variables of apps whose names contain ``_``), and afterwards the winner's text into its value.
Two rounds: the plain settings say which apps there are, and with them the keys of apps are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import configargparse

from pusher.config import file, settings
from pusher.config.kinds import ITEM_END, NO_TEXT, masked
from pusher.config.schema import APP, AppSetting, ConfigError, Setting, variable
from pusher.config.unread import Unread, group_refused
from pusher.config.values import Config, RefusedValue, Value

T = TypeVar("T")

DEFAULT_PATH = "./config/default.yaml"
_PREFIX = "PUSHER_"
#: Of a value that is wrong.
_SHOWN_CHARACTERS = 200


class Given(NamedTuple):
    """A text and where it stands: ``file:line`` or ``variable NAME``; the rank of the spelling, 0 = the key itself."""

    text: str
    where: str
    rank: int = 0


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
    *,
    production: bool = False,
) -> Config:
    """Reads the file and merges all sources; flags are ``--key=value``. Raises ConfigError.

    Without a ``path`` the file is ``DEFAULT_PATH``, which may be missing.
    """
    return _load(path, environ, flags, file.read, production=production)


def _load(
    path: str | None,
    environ: Mapping[str, str] | None,
    flags: Sequence[str],
    read: Callable[[str], str],
    *,
    production: bool,
) -> Config:
    name = path or DEFAULT_PATH
    version = file.version(name)
    text = read(name) if path or Path(name).exists() else ""
    found = parse(text, environ, flags, name=name, production=production)
    found.again = lambda: _load(path, environ, flags, file.read_again, production=production)
    found.changed = lambda: file.version(name) != version
    return found


def parse(
    text: str,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
    *,
    name: str = "config.yaml",
    production: bool = False,
) -> Config:
    """As :func:`load`, from the file's text."""
    lines = file.parse(text, name, _takes_mapping)
    variables = {key: value for key, value in (environ or {}).items() if key.startswith(_PREFIX) and value}
    plain = _Names(setting for setting in settings.declared() if not isinstance(setting, AppSetting))
    values, rest = _merge(plain, lines, variables, flags, name)
    apps = {key: values[setting.key.lower()].value for key, setting in settings.apps().items()}
    own = _Names(_for_apps(apps))
    of_apps, rest = _merge(own, lines, variables, rest, name, refuse=True)
    if rest:
        raise ConfigError(f"unknown flag {rest[0]}; see --help")
    known = {key: setting for names in (plain, own) for key, (setting, _) in names.keys.items()}
    unread = Unread(
        known, own.settings, plain.variables.keys() | own.variables.keys(), settings.declared(), settings.apps()
    )
    of_apps |= _groups_refused(lines, unread, name)
    warnings = (
        [*settings.broken()] + [_twice(line, name) for line in lines] + [unread.key(line, name) for line in lines]
    )
    warnings += [unread.variable(key) for key in sorted(variables)]
    return Config(values | of_apps, list(dict.fromkeys(filter(None, warnings))), name, production=production)


def lines(text: str, name: str) -> list[file.Line]:
    """The lines of a file's text. Raises ConfigError."""
    return file.parse(text, name, _takes_mapping)


def _groups_refused(lines: Iterable[file.Line], unread: Unread, name: str) -> dict[str, Value]:
    """The settings of apps below which keys stand: that costs the app whose they are."""
    refused: dict[str, Value] = {}
    for line in lines:
        above, where = unread.above(line), f"{name}:{line.number}"
        if above is not None and unread.is_of_an_app(above):
            refused[above.key.lower()] = Value(above, RefusedValue(group_refused(above, where)), where)
    return refused


def _twice(line: file.Line, name: str) -> str | None:
    """The warning about a key that stands twice, in whatever capitals, if it does."""
    if not line.instead_of:
        return None
    return f"{name}:{line.number}: {line.key} is also in line {line.instead_of}; this line, the last, is used"


def _for_apps(apps: Mapping[str, Collection[str]]) -> Iterator[Setting[object]]:
    """The settings of every configured app."""
    everybody = dict.fromkeys(app for names in apps.values() for app in names)
    for app in everybody:
        for setting in settings.declared():
            if isinstance(setting, AppSetting) and app in apps.get(setting.key.partition(".")[0], everybody):
                yield setting.for_app(app)


def _takes_mapping(key: str) -> bool:
    """Whether a mapping at this key is a value."""
    return any(
        setting.kind.takes_mapping and re.fullmatch(_pattern(setting.key), key, re.IGNORECASE)
        for setting in settings.declared()
    )


def _pattern(key: str) -> str:
    return re.escape(key).replace(re.escape(APP), "(.+)")


class _Names:
    """Settings by every spelling of their keys and variables; a setting's own key wins over another's alias."""

    def __init__(self, declared: Iterable[Setting[Any]]) -> None:
        self.settings = list({setting.key.lower(): setting for setting in declared}.values())
        self.keys: dict[str, tuple[Setting[Any], int]] = {}
        self.variables: dict[str, tuple[Setting[Any], int]] = {}
        spellings = [(rank, key, s) for s in self.settings for rank, key in enumerate((s.key, *s.aliases))]
        for rank, key, setting in sorted(spellings, key=lambda spelling: spelling[0]):
            self.keys.setdefault(key.lower(), (setting, rank))
            self.variables.setdefault(variable(key), (setting, rank))

    def from_file(self, lines: Iterable[file.Line], name: str) -> dict[str, Given]:
        """The file's texts by the settings' keys."""
        found = ((self.keys.get(line.key.lower()), line.text, f"{name}:{line.number}") for line in lines)
        return _best(found)

    def from_variables(self, variables: Mapping[str, str]) -> dict[str, Given]:
        """The variables' texts by the settings' keys."""
        return _best((self.variables.get(key), text, f"variable {key}") for key, text in variables.items())


def _best(found: Iterable[tuple[tuple[Setting[Any], int] | None, str, str]]) -> dict[str, Given]:
    best: dict[str, Given] = {}
    for hit, text, where in found:
        if hit is not None:
            setting, rank = hit
            if setting.key not in best or rank < best[setting.key].rank:
                best[setting.key] = Given(text, where, rank)
    return best


class _Items(configargparse.ConfigFileParser):  # type: ignore[misc]  # carries no types
    """Hands ConfigArgParse what was read from the file."""

    def __init__(self, given: Mapping[str, Given]) -> None:
        super().__init__()
        self._given = given

    def parse(self, stream: object) -> dict[str, str]:  # noqa: ARG002  # the text is read once for both rounds
        return {key: given.text for key, given in self._given.items()}


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]  # carries no types
    """Raises instead of ending the process."""

    def error(self, message: str) -> None:
        raise ConfigError(message)


def _merge(
    names: _Names,
    lines: Sequence[file.Line],
    variables: Mapping[str, str],
    flags: Sequence[str],
    name: str,
    *,
    refuse: bool = False,
) -> tuple[dict[str, Value], list[str]]:
    """The values of these settings, and the flags that belong to none of them.

    ``refuse``: what is not valid becomes ``RefusedValue``; else it raises ConfigError.
    """
    in_file, in_variables = names.from_file(lines, name), names.from_variables(variables)
    parser = _Parser(add_help=False, allow_abbrev=False, config_file_parser_class=_Items(in_file))
    for setting in names.settings:
        parser.add_argument(f"--{setting.key}", dest=setting.key, env_var=variable(setting.key))
    texts, rest = parser.parse_known_args(
        list(flags),
        config_file_contents="",
        env_vars={variable(key): given.text for key, given in in_variables.items()},
    )
    where = {key: given.where for key, given in (in_file | in_variables).items()}
    where |= {flag[2:].partition("=")[0]: f"flag {flag.partition('=')[0]}" for flag in flags}
    values: dict[str, Value] = {}
    for setting in names.settings:
        place = where.get(setting.key, "default")
        try:
            values[setting.key.lower()] = _value(setting, getattr(texts, setting.key), place)
        except ConfigError as error:
            if not refuse:
                raise
            values[setting.key.lower()] = Value(setting, RefusedValue(str(error)), place)
    return values, rest


def _value(setting: Setting[Any], text: str | None, where: str) -> Value:
    if text is None:
        return Value(setting, setting.default, "default")
    try:
        return Value(setting, setting.kind.parse(text), where)
    except ValueError as error:
        raise ConfigError(f"{where}: {setting.key} expects {error}; {_shown(setting, text)} is not") from None


def _shown(setting: Setting[Any], text: str) -> str:
    if setting.kind.secret:
        return "the given value"
    if text == NO_TEXT:
        return "a list with items that are not text"
    if ITEM_END in text and setting.kind.expects[:6] != "a list":
        return "a list"
    shown = masked(text.replace(ITEM_END, " ").strip())
    return repr(shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}…")
