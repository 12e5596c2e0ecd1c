"""Faults of single apps and their reasons: a fault affects only its app, never the process or another app.

A loop over all apps calls the code of each app through ``Troubles.contain``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pusher.telemetry import sentry
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: Of a reason that health shows.
_MOST_CHARACTERS = 300

T = TypeVar("T")


def internal_error(part: str, reason: str) -> str:
    """Why an app is not ready, one line."""
    return " ".join(f"internal error in its {part}: {reason}".split())[:_MOST_CHARACTERS]


class Troubles:
    """The faults that last, by app and part."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str] = {}

    def contain(self, app: str, part: str, act: Callable[[], T], otherwise: T) -> T:
        """Returns ``act()``, or ``otherwise`` if it raises: the app is then not ready until ``act`` works again."""
        try:
            found = act()
        except Exception as error:
            left_out = _seldom.turn((app, part), "a part of an app has failed")
            if left_out is not None:
                log.exception("a part of an app has failed", game=app, part=part, **left_out)
                sentry.report_exception(None, game=app, part=part)
            self.note(app, part, internal_error(part, f"{type(error).__name__}: {error}"))
            return otherwise
        self.note(app, part, "")
        return found

    def note(self, app: str, part: str, reason: str) -> None:
        """``reason`` is one line; "" ends the trouble."""
        if reason:
            self._reasons[app, part] = reason
        else:
            self._reasons.pop((app, part), None)

    def forget(self, app: str) -> None:
        """The app is not served any more."""
        self._reasons = {(one, part): reason for (one, part), reason in self._reasons.items() if one != app}

    def is_in(self, app: str) -> bool:
        """Whether a part of the app does not work."""
        return any(one == app for one, _ in self._reasons)

    def apps(self, part: str) -> list[str]:
        """The apps in which this part does not work."""
        return [app for app, one in self._reasons if one == part]

    def reasons(self, app: str | None = None) -> list[str]:
        """One line for each part, of one app or of all."""
        return [f"{one}: {reason}" for (one, _), reason in self._reasons.items() if app is None or one == app]
