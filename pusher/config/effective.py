"""The effective configuration as text: what is in force and where it came from."""

from __future__ import annotations

from collections.abc import Iterator

from pusher.config.loader import Config, Refused, Value


def effective(config: Config) -> Iterator[str]:
    """One line a setting, secrets masked; keys without effect only where they are given."""
    rows = [(value.setting.key, _shown(value), value.where) for value in config.values() if _counts(value)]
    key_width = max(len(row[0]) for row in rows)
    value_width = min(max(len(row[1]) for row in rows), 40)
    for key, shown, where in rows:
        yield f"{key:{key_width}}  {shown:{value_width}}  {where}"


def _counts(value: Value) -> bool:
    return value.setting.has_effect or value.where != "default"


def _shown(value: Value) -> str:
    if not value.setting.has_effect:
        return "(no effect)"
    if isinstance(value.value, Refused):
        return "(not valid)"
    text = value.setting.kind.show(value.value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return f"{text} {value.setting.kind.unit}".rstrip() or '""'
