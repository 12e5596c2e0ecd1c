"""Reports to Sentry, through raven or sentry-sdk; nothing else imports these. Without a DSN every call does nothing.

Reporting never waits for Sentry, and a storm of errors cannot pile up (see ``posting``). Local variables and command
line arguments stay out of the events, since they hold tokens, payloads and passwords.
"""

from __future__ import annotations

import importlib
import os
from typing import Final

from pusher import __version__
from pusher.errors import StartError
from pusher.telemetry.sentry.posting import flush
from pusher.telemetry.sentry.reporter import ExcInfo, SentryReporter

__all__ = ["LIBRARIES", "flush", "report", "report_exception", "setup"]

#: The libraries by the name under which they are installed: module and class here. Only the one in use is imported.
LIBRARIES: Final = {"raven": ("with_raven", "Raven"), "sentry-sdk": ("with_sdk", "SentrySdk")}

_reporter: SentryReporter | None = None


def setup(dsn: str, command: str, library: str = "raven") -> None:
    """Turns reporting on; ``dsn`` "" means the variable SENTRY_DSN, or off.

    Raises StartError for a bad DSN, and for a library that is not installed.
    """
    global _reporter  # noqa: PLW0603  # one Sentry a process
    _reporter = None
    if dsn := dsn or os.environ.get("SENTRY_DSN", ""):
        _reporter = _open(dsn, command, library)


def _open(dsn: str, command: str, library: str) -> SentryReporter:
    module, name = LIBRARIES[library]
    try:
        found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ImportError:
        raise StartError(f"sentry.library: {library} is not installed; `pip install 'pusherd[sentry]'`") from None
    try:
        if not dsn.startswith(("http://", "https://")):
            raise ValueError
        reporter: SentryReporter = found(dsn, {"version": __version__, "cmd": command})
    except ValueError:  # whose text has the DSN
        raise StartError(
            "sentry.url: not a Sentry DSN; give one such as https://key@host/project, or none to turn Sentry off"
        ) from None
    return reporter


def report(message: str, **tags: str) -> None:
    """Reports a message. Does not wait."""
    if _reporter is not None:
        _reporter.message(message, tags)


def report_exception(exc_info: ExcInfo | None = None, **tags: str) -> None:
    """Reports an exception with its trace; None: the one that is being handled. Does not wait."""
    if _reporter is not None:
        _reporter.exception(exc_info, tags)
