"""The effective configuration as text: each value and its source."""

from __future__ import annotations

from collections.abc import Iterator

from pusher.config import settings
from pusher.config.kinds import masked
from pusher.config.values import Config, RefusedValue, Value

#: Groups that only senders read.
_OF_SENDERS = frozenset({"queue", "feedback", "dedup", "rateLimiter"})


def effective(config: Config) -> Iterator[str]:
    """One line a setting, secrets masked; keys without effect only where they are given."""
    rows = [(masked(value.setting.key), _shown(value), value.where) for value in config.values() if _counts(value)]
    key_width = max(len(row[0]) for row in rows)
    value_width = min(max(len(row[1]) for row in rows), 40)
    for key, shown, where in rows:
        yield f"{key:{key_width}}  {shown:{value_width}}  {where}"


def without_effect(config: Config, command: str) -> Iterator[str]:
    """One warning for each key that is given, that the daemon ``command`` would have read, and that does nothing."""
    senders = settings.apps().keys()
    others = (senders - {command}) | {group for group, reader in settings.readers().items() if reader != command}
    if command not in senders:
        others |= _OF_SENDERS
    for value in config.values():
        setting = value.setting
        if value.where != "default" and not setting.has_effect and setting.key.partition(".")[0] not in others:
            reason = setting.text.removeprefix("Accepted, no effect").rstrip(".")
            yield f"{value.where}: {setting.key} has no effect{reason}"


def _counts(value: Value) -> bool:
    return value.setting.has_effect or value.where != "default"


def _shown(value: Value) -> str:
    if not value.setting.has_effect:
        return "(no effect)"
    if isinstance(value.value, RefusedValue):
        return "(not valid)"
    text = masked(value.setting.kind.show(value.value))
    text = text if text.isprintable() else repr(text)[1:-1]
    return f"{text} {value.setting.kind.unit}".rstrip() or '""'
