"""The interface of a Sentry client."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class SentryReporter(Protocol):
    """One Sentry project. None of it waits or raises."""

    def message(self, text: str, tags: Mapping[str, str]) -> None:
        """Reports a message."""

    def exception(self, exc_info: ExcInfo | None, tags: Mapping[str, str]) -> None:
        """Reports an exception with its trace, without local variables; None: the one that is being handled."""
