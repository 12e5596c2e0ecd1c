"""Opens the limits of a process, if the configuration sets any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from pusher.config.values import Config
from pusher.push.limits import settings
from pusher.push.limits.rules import rules
from pusher.telemetry.stats import Stats

if TYPE_CHECKING:
    from pusher.push.limits.limiter import Limits


def open_limits(config: Config, platform: str, apps: Iterable[str], hostname: str, stats: Stats) -> Limits | None:
    """The limits of these apps; None if no app has any. Does not wait."""
    if not any(rules(config, platform, app).is_on for app in apps):
        return None
    # the client library is loaded only by those who need it
    from pusher.push.limits.limiter import Limits

    return Limits(config, platform, hostname, stats)


def checks(config: Config, platform: str, apps: Iterable[str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """The check of each needed Redis for ``--check``: connects and runs a script."""
    found = [rules(config, platform, app) for app in apps]
    wanted = {"rateLimiter.redis": any(one.limit for one in found), "dedup.redis": any(one.compares for one in found)}
    for key, needed in wanted.items():
        if needed:
            yield key, partial(_check, config, key)


def _check(config: Config, key: str) -> str:
    from pusher.push.limits.server import check_server

    return check_server(config, settings.DEDUP if key.startswith("dedup") else settings.RATE_LIMITER)
