"""The periodic summary line of each app: its counts since the last line."""

from __future__ import annotations

from collections.abc import Mapping

import gevent

from pusher.config import settings
from pusher.config.values import Config
from pusher.providers.provider import Service
from pusher.push.lane import Totals
from pusher.push.outcome import Kind
from pusher.telemetry.log import logger

log = logger(__name__)


def summarize(services: Mapping[str, Service], config: Config, platform: str) -> None:
    """Runs without end. An app without changes gets no line."""
    interval_s = config[settings.of_provider(platform).log_stats_interval]
    before: dict[str, dict[str, int]] = {}
    while True:
        gevent.sleep(interval_s)
        for app, service in list(services.items()):
            now = _summary(service.lane.totals)
            earlier = before.get(app, {})
            # an app that was removed and added again starts at 0
            added = {name: max(0, value - earlier.get(name, 0)) for name, value in now.items()}
            before[app] = now
            if any(added.values()):
                log.info(
                    "flushing stats", method="logStats", game=app, **{"interval(ns)": int(interval_s * 1e9)}, **added
                )


def _summary(totals: Totals) -> dict[str, int]:
    outcomes = totals.outcomes
    return {
        "sentMessages": totals.sent,
        "ignoredMessages": outcomes[Kind.EXPIRED] + outcomes[Kind.INVALID],
        "responsesReceived": totals.responses,
        "successesReceived": outcomes[Kind.DELIVERED],
        "failuresReceived": outcomes[Kind.REJECTED] + outcomes[Kind.FAILED],
        "limitedMessages": outcomes[Kind.LIMITED],
    }
