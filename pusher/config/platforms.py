"""The platforms: the word that stands in topics and commands, and the module that knows all about it.

A further one is a package that declares the entry point ``word = its.package`` in the group ``pusher.platforms``.
The module ``provider`` of that package has a ``PROVIDER`` (see ``pusher.providers.provider``), ``settings`` declares
its settings.
"""

from __future__ import annotations

from importlib.metadata import entry_points

#: Package by word.
PACKAGES: dict[str, str] = {
    "apns": "pusher.providers.apns",
    "gcm": "pusher.providers.google",
} | {entry.name: entry.value for entry in entry_points(group="pusher.platforms")}
WORDS = tuple(PACKAGES)
#: Alternatives of a regular expression.
PATTERN = "|".join(WORDS)
