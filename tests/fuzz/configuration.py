"""Configurations: a file's text, variables and flags give a Config, or one line that says what is wrong."""

from __future__ import annotations

from pusher.config import ConfigError, settings
from pusher.config.effective import effective
from pusher.config.kinds import ITEM_END, Secret
from pusher.config.loader import parse
from pusher.config.schema import variable
from pusher.config.values import Config
from tests.fuzz.draw import Draw

KEYS = tuple(setting.key.replace("<app>", "game") for setting in settings.declared())
VALUES = ("1", "100", "true", "1m30s", "a, b", "[a, b]", "host:1", "host:1,[::1]:2", "sqlite:///x", "https://h", "info")
APPS = "apns: {apps: game}\ngcm: {apps: game}\n"


def text(data: bytes) -> None:
    """A file."""
    _load(data.decode("utf-8", "replace"), {}, [])


def values(data: bytes) -> None:
    """Known keys with values of any kind, in the file, in variables and in flags."""
    draw = Draw(data)
    lines, environ, flags = [APPS], {}, []
    while draw.left:
        key, place = draw.choice(KEYS), draw.number(4)
        value = draw.choice(VALUES) if draw.flag() else draw.short().decode("utf-8", "replace").replace("\0", "")
        if place == 0:
            lines.append(f"{key}: {value}\n")
        elif place == 1:
            quoted = value.replace("'", "''")
            lines.append(f"{key}: '{quoted}'\n")
        elif place == 2:
            environ[variable(key)] = value
        else:
            flags.append(f"--{key}={value}")
    _load("".join(lines), environ, flags)


def one(data: bytes) -> None:
    """One setting: it takes a text from any source in the same way, and shows what it has taken so that it reads."""
    draw = Draw(data)
    setting, key = settings.declared()[draw.number(len(settings.declared()))], ""
    key = setting.key.replace("<app>", "game")
    value = draw.rest().decode("utf-8", "replace").replace("\0", "")
    apps = {"PUSHER_APNS_APPS": "game", "PUSHER_GCM_APPS": "game"}
    if key.endswith(".apps") or not value or ITEM_END in value:
        return
    by_flag = _load("", apps, [f"--{key}={value}"])
    by_variable = _load("", {**apps, variable(key): value}, [])
    assert _value(by_flag, key) == _value(by_variable, key)
    if by_flag is not None and not isinstance(setting.kind, Secret) and setting.has_effect:
        found = _value(by_flag, key)
        assert setting.kind.parse(setting.kind.show(found)) == found


def _value(config: Config | None, key: str) -> object:
    if config is None:
        return None
    return next(value.value for value in config.values() if value.setting.key == key)


def _load(file: str, environ: dict[str, str], flags: list[str]) -> Config | None:
    try:
        config = parse(file, environ, flags)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1, "more than a line"
        assert len(str(error)) < 2_000
        return None
    assert all(len(warning.splitlines()) == 1 for warning in config.warnings)
    assert all(len(line.splitlines()) <= 1 for line in effective(config))
    return config
