"""Probable mistakes in what ``enqueue`` writes: no sender reads the topic, or a sender would refuse a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pusher.config import settings
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.providers.provider import provider
from pusher.push import topics
from pusher.push.fields import InvalidMessage


class Doubts:
    """Looks at the messages of one topic as a sender with these settings would. Never refuses any."""

    def __init__(self, topic: str, config: Config) -> None:
        self._topic, self._config = topic, config
        self._lines = self._refused = 0
        self._first = ""
        self._reader, self._parse = self._find_reader()

    def look(self, message: bytes) -> None:
        """At one message, in order."""
        self._lines += 1
        if self._parse is None:
            return
        try:
            self._parse(message, "enqueue")
        except InvalidMessage as error:
            self._refused += 1
            self._first = self._first or f"message {self._lines} ({error.reason}: {error.detail})"

    def warnings(self) -> Iterator[str]:
        """The doubts, one line each."""
        if self._reader:
            yield f"no sender with these settings reads {self._topic}: {self._reader}"
        if self._refused:
            number = f"{self._refused} of {self._lines} messages"
            yield f"a sender would refuse {number} as invalid; the first is {self._first}"

    def _find_reader(self) -> tuple[str, Callable[..., Any] | None]:
        """Why the topic is not read, or "", and what reads its messages."""
        if topics.is_written_by_pusher(self._topic):
            return "", None
        apps = {app for setting in settings.apps().values() for app in self._config[setting]}
        name = topics.parse(self._topic, apps)
        if name is None:
            return "its name is not push-<game>_<platform>...", None
        setting = settings.of_provider(name.platform).apps
        if name.game not in self._config[setting]:
            return f"{setting.key} does not contain {name.game}", None
        try:
            parse = provider(name.platform).parser(self._config, name.game)
        except StartError as error:
            return str(error), None
        chosen = self._config[settings.QUEUE.topics]
        if not any(one == self._topic or (one.startswith("^") and re.match(one, self._topic)) for one in chosen):
            return f"{settings.QUEUE.topics.key} ({', '.join(chosen)}) does not match it", parse
        return "", parse
