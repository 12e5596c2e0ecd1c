"""A configuration of the Go program as it was written: texts by key, from the file and the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pusher.config import file
from pusher.config.kinds import ITEM_END
from pusher.config.schema import variable

#: Keys that only the newest version reads.
_OF_THE_NEWEST = (
    r"log\.level|.*\.rateLimit\.rpm|.*\.dedup\.ttl|rateLimiter\..*|dedup\..*|pprof\..*|gcm\.firebaseCredentials\..*|"
    r"gcm\.concurrentWorkers|apns\.pushQueueSize|apns\.retry\.maxRetryAttempts"
)


class GoConfiguration:
    """Keys in any case; variables win over the file, empty ones count as not set."""

    def __init__(self, lines: Iterable[file.Line], variables: Mapping[str, str]) -> None:
        self._lines = {line.key.lower(): line for line in lines}
        self.variables = {key: text for key, text in variables.items() if text}

    def text(self, key: str) -> str:
        """The text of a key; "" if it is not set. A list's items are separated by blanks."""
        found = self.variables.get(variable(key))
        if found is None:
            line = self._lines.get(key.lower())
            found = line.text if line is not None else ""
        return found.replace(ITEM_END, " ").strip()

    def where(self, key: str) -> str:
        """Where it is given."""
        if variable(key) in self.variables:
            return f"variable {variable(key)}"
        line = self._lines.get(key.lower())
        return f"line {line.number}" if line is not None else "not given"

    def keys(self, pattern: str) -> list[str]:
        """The matching keys, as they are spelled in the file."""
        return [line.key for line in self._lines.values() if re.fullmatch(pattern, line.key, re.IGNORECASE)]

    def apps(self, platform: str) -> list[str]:
        """Of a platform."""
        return [app for app in re.split(r"[\s,]+", self.text(f"{platform}.apps")) if app]

    @property
    def is_of_the_newest(self) -> bool:
        """Whether it has keys that only the newest version reads."""
        names = [variable(key) for key in ("apns.rateLimit.rpm", "gcm.rateLimit.rpm", "log.level", "dedup.games")]
        return bool(self.keys(_OF_THE_NEWEST)) or any(name in self.variables for name in names)
