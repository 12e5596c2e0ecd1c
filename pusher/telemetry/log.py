"""Log lines on stderr: ``time="…" level=info msg="…" key=value``, or JSON objects with the same members.

Every record is one line whatever it contains: characters that are not printable are escaped, so that no message,
token or error text can forge a line. Libraries log through the same handler; what they call information is of
interest to developers only and counts as debug here, and what they repeat is written once a minute.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

#: First words of the names of libraries' loggers.
_LIBRARIES = ("kafka", "raven", "sentry", "sleekxmpp", "h2", "hpack", "urllib3", "google", "asyncio")
#: Beginnings of their lines that tell an operator nothing, and are for debugging: a new topic is looked up before it is
#: there, and the steps of kafka-python's loop are timed with all that other greenlets do meanwhile.
_NO_FAULT = ("Topic %s not found in cluster metadata", "Task ")
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
_PLAIN = re.compile(r"[A-Za-z0-9._/@^+:-]+")
#: A library's repeated line is left out for this long.
_REPEAT_PERIOD_S = 60.0
#: More different lines than this are not told apart.
_REMEMBERED = 1_000


class Logger:
    """A logger whose keyword arguments become fields. A call below the level costs about a tenth of a microsecond."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def debugging(self) -> bool:
        """Whether debug lines are written: for callers whose fields are dear."""
        return self._log.isEnabledFor(logging.DEBUG)

    def debug(self, message: str, /, **fields: object) -> None:
        """For developers; the only level that may show tokens and payloads."""
        if self._log.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """The ordinary course."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Worth a look."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Somebody has to do something."""
        self._write(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """An error with the trace of the exception that is being handled."""
        self._write(logging.ERROR, message, fields, exc_info=True)

    def _write(self, level: int, message: str, fields: Mapping[str, object], *, exc_info: bool = False) -> None:
        if self._log.isEnabledFor(level):
            self._log.log(level, "%s", message, extra={"fields": fields}, exc_info=exc_info)


def logger(name: str) -> Logger:
    """One a module, by its ``__name__``."""
    return Logger(name)


class Seldom:
    """Writes at most one line a period for each key, with the number of those that were left out."""

    def __init__(self, log: Logger, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._period_s, self._clock = log, period_s, clock
        self._seen: dict[object, tuple[float, int]] = {}

    def warning(self, key: object, message: str, /, **fields: object) -> None:
        """As :meth:`Logger.warning`."""
        left_out = self.turn(key)
        if left_out is not None:
            self._log.warning(message, **fields, **left_out)

    def error(self, key: object, message: str, /, **fields: object) -> None:
        """As :meth:`Logger.error`."""
        left_out = self.turn(key)
        if left_out is not None:
            self._log.error(message, **fields, **left_out)

    def turn(self, key: object) -> dict[str, int] | None:
        """None when the key's line was written less than a period ago; else the field that says what was left out."""
        now = self._clock()
        written_at, left_out = self._seen.get(key, (None, 0))
        if written_at is not None and now - written_at < self._period_s:
            self._seen[key] = (written_at, left_out + 1)
            return None
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[key] = (now, 0)
        return {"left_out": left_out} if left_out else {}


def setup(level: str, *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Sends all logging of the process, warnings of Python included, to stderr. May be called again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    handler.addFilter(_tame(Seldom(logger(__name__), _REPEAT_PERIOD_S)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, (_Json, _Text)):
            root.removeHandler(old)
    root.addHandler(handler)
    number = _LEVELS[level]
    root.setLevel(number)
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def _tame(seldom: Seldom) -> Callable[[logging.LogRecord], bool]:
    """The filter of the libraries' lines."""

    def admit(record: logging.LogRecord) -> bool:
        if not record.name.startswith(_LIBRARIES):
            return True
        if record.levelno <= logging.INFO:
            record.levelno = logging.DEBUG
            return True
        if str(record.msg).startswith(_NO_FAULT):
            record.levelno = logging.DEBUG
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        left_out = seldom.turn((record.name, record.msg))
        if left_out:
            record.fields = left_out
        return left_out is not None

    return admit


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        head = f'time="{_time(record)}" level={_NAMES.get(record.levelno, "info")} msg={_quoted(record.getMessage())}'
        return " ".join([head, *(f"{_key(name)}={_value(value)}" for name, value in fields.items())])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        own = {"level": _NAMES.get(record.levelno, "info"), "msg": record.getMessage(), "time": _time(record)}
        fields = {f"fields.{name}" if name in own else name: value for name, value in _fields(record).items()}
        return json.dumps(fields | own, sort_keys=True, separators=(",", ":"), default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created).astimezone()
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _key(name: str) -> str:
    return name if name.isprintable() and not set(name) & set(' "=') else _quoted(name)


def _value(value: object) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def _quoted(text: str) -> str:
    if not text.isprintable() or '"' in text or "\\" in text:
        text = "".join(_escaped(character) for character in text)
    return f'"{text}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"
