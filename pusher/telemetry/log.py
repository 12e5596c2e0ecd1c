"""Log lines on stderr: ``time="…" level=info msg="…" key=value``, or JSON objects with the same members.

Every record is one line whatever it contains: characters that are not printable are escaped, so that no message, token
or error text can forge a line, and every field is cut at ``MAX_FIELD`` characters. Libraries, Python's warnings and
uncaught exceptions log through the same handler. Info lines of libraries interest only developers and count as debug
here; repeated lines are written once a minute.

Events from outside must not fill the log: their lines go through ``Few``. ``writer.py`` writes the lines, so that
logging never waits.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO
from weakref import WeakSet

import gevent

from pusher.telemetry.writer import LineWriter

#: First words of the names of libraries' loggers.
_LIBRARIES = ("kafka", "raven", "sentry", "h2", "hpack", "urllib3", "google", "asyncio")
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
#: Characters of a field; a trace, whose end tells most, keeps its last ones.
MAX_FIELD, MAX_TRACE = 500, 1_200
_PLAIN = re.compile(r"[A-Za-z0-9._/@^+:-]+")
#: A library's repeated line is left out for this long.
_REPEAT_PERIOD_S = 60.0
#: More different lines than this are not told apart.
_REMEMBERED = 1_000


class Logger:
    """A logger whose keyword arguments become fields. A call below the level costs about a tenth of a microsecond."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

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
        """Somebody must act."""
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


class _Window:
    """What was said of one key since ``since``."""

    __slots__ = ("left_out", "message", "since", "written")

    def __init__(self, since: float, message: str) -> None:
        self.since, self.message = since, message
        self.written = 1
        self.left_out = 0


class Seldom:
    """Writes at most ``first`` lines a period for each key, and then the number of those that were left out."""

    def __init__(
        self, log: Logger, period_s: float, clock: Callable[[], float] = time.monotonic, *, first: int = 1
    ) -> None:
        self._log, self._period_s, self._clock, self._first = log, period_s, clock, first
        self._windows: dict[object, _Window] = {}
        _all_seldom.add(self)

    def warning(self, key: object, message: str, /, **fields: object) -> None:
        """As :meth:`Logger.warning`."""
        left_out = self.turn(key, message)
        if left_out is not None:
            self._log.warning(message, **fields, **left_out)

    def error(self, key: object, message: str, /, **fields: object) -> None:
        """As :meth:`Logger.error`."""
        left_out = self.turn(key, message)
        if left_out is not None:
            self._log.error(message, **fields, **left_out)

    def turn(self, key: object, message: str = "") -> dict[str, int] | None:
        """None when the key's lines of this period were written; else the field that says what was left out."""
        now = self._clock()
        window = self._windows.get(key)
        if window is not None and now - window.since < self._period_s:
            if window.written < self._first:
                window.written += 1
                return {}
            window.left_out += 1
            return None
        if len(self._windows) >= _REMEMBERED:
            self._windows.clear()
        self._windows[key] = _Window(now, message)
        return {"left_out": window.left_out} if window is not None and window.left_out else {}

    def tell_left_out(self) -> None:
        """One line for each key whose period is over and of which lines were left out. Called about once a second."""
        now = self._clock()
        over = [(key, window) for key, window in self._windows.items() if now - window.since >= self._period_s]
        for key, window in over:
            del self._windows[key]
            if window.left_out:
                about = (
                    key if isinstance(key, str) else " ".join(map(str, key)) if isinstance(key, tuple) else repr(key)
                )
                self._log.warning(
                    "similar lines were left out", line=window.message, about=about, left_out=window.left_out
                )


_all_seldom: WeakSet[Seldom] = WeakSet()


def few(log: Logger) -> Seldom:
    """For lines that what comes from outside causes: the first five of a key and minute, then their number."""
    return Seldom(log, period_s=60, first=5)


def tell_left_out() -> None:
    """Of everything that is written seldom. Called about once a second by what runs for long. Never waits."""
    for seldom in list(_all_seldom):
        seldom.tell_left_out()


class _Handler(logging.Handler):
    """Hands each line to the writer."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = LineWriter(2, self._left_out)

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        self.writer.write(self._line(record))

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _left_out(self, number: int) -> bytes:
        message = "log lines were dropped because stderr was not read"
        record = logging.makeLogRecord({"name": __name__, "levelno": logging.WARNING, "msg": message})
        record.fields = {"left_out": number}
        return self._line(record)


def setup(level: str, *, as_json: bool = False, stream: TextIO | None = None, one_shot: bool = False) -> None:
    """Sends all logging of the process to stderr, or to a stream: that of libraries, Python's warnings, and exceptions
    that nobody caught. May be called again. ``one_shot``: a command that prints its own result, beside which lines of
    Kafka's client are noise unless the level is debug.
    """
    handler = logging.StreamHandler(stream) if stream is not None else _Handler()
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
    if one_shot and number > logging.DEBUG:
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    _catch_the_rest()


def flush(timeout_s: float) -> None:
    """Waits, up to ``timeout_s``, until all lines are written. A blocked reader is given up."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.writer.flush(timeout_s)


def _catch_the_rest() -> None:
    """What would print a trace past the log becomes a line: an exception in a greenlet, a thread, a destructor."""
    uncaught = few(logger(__name__))

    def of_greenlet(context: object, kind: type[BaseException], error: object, trace: TracebackType | None) -> None:
        name = getattr(context, "name", None) or type(context).__name__
        shown = error if isinstance(error, BaseException) else kind(error)
        uncaught.error(
            ("greenlet", name, kind.__name__), "exception in a greenlet", where=name, **_traced(shown, trace)
        )

    def of_thread(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread else "?"
        shown = args.exc_value or args.exc_type()
        uncaught.error(("thread", name), "exception in a thread", where=name, **_traced(shown, args.exc_traceback))

    def of_destructor(args: sys.UnraisableHookArgs) -> None:
        where = type(args.object).__name__
        shown = args.exc_value or args.exc_type()
        uncaught.error(("destructor", where), "exception ignored", where=where, **_traced(shown, args.exc_traceback))

    gevent.get_hub().print_exception = of_greenlet  # type: ignore[method-assign,assignment]
    threading.excepthook = of_thread
    sys.unraisablehook = of_destructor


def _traced(error: BaseException, trace: TracebackType | None) -> dict[str, str]:
    return {"exception": logging.Formatter().formatException((type(error), error, trace))}


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
        if record.name.startswith("kafka.net") and not logging.getLogger().isEnabledFor(logging.DEBUG):
            record.exc_info = None  # of the network, where the error itself says all
        # By the place in its code: some of its messages differ each time.
        left_out = seldom.turn((record.name, record.lineno), record.getMessage())
        if left_out:
            record.fields = left_out
        return left_out is not None

    return admit


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        level, message = _NAMES.get(record.levelno, "info"), _quoted(_cut(record.getMessage()))
        head = f'time="{_time(record)}" level={level} msg={message}'
        return " ".join([head, *(f"{_key(name)}={_value(value)}" for name, value in fields.items())])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        own = {"level": _NAMES.get(record.levelno, "info"), "msg": _cut(record.getMessage()), "time": _time(record)}
        fields = {f"fields.{name}" if name in own else name: value for name, value in _fields(record).items()}
        return json.dumps(fields | own, sort_keys=True, separators=(",", ":"), default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: _cut_value(value) for name, value in getattr(record, "fields", {}).items()}
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    if "exception" in fields:
        fields["exception"] = _end(str(fields["exception"]))
    return fields


def _cut(text: str) -> str:
    return text if len(text) <= MAX_FIELD else f"{text[: MAX_FIELD - 1]}…"


def _cut_value(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(str(value))


def _end(trace: str) -> str:
    return trace if len(trace) <= MAX_TRACE else f"…{trace[1 - MAX_TRACE :]}"


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
