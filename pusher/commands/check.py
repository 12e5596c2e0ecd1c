"""``--check``: are the settings usable, the credentials good, the other ends reachable? Nothing is sent or consumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pusher.broker import connect
from pusher.broker.interface import log_failure
from pusher.config import doors, settings
from pusher.config.values import Config
from pusher.daemon.publishers import Publishers
from pusher.daemon.reporters import OpenStatsReporter
from pusher.errors import StartError
from pusher.listener import settings as listener_settings
from pusher.listener.opening import open_stores
from pusher.providers.http2.transport import ConnectFailed
from pusher.providers.provider import Check, provider
from pusher.push.limits import opening
from pusher.push.reporter import Around, OpenReporter
from pusher.telemetry.stats import Stats

OK, CANNOT_START = 0, 2


def check_sender(platform: str, config: Config) -> int:
    """A platform's command with ``--check``: one line a check, exit code 0 or 2. May wait."""
    apps = config[settings.of_provider(platform).apps]
    return run_checks(
        [
            *_broker_checks(config),
            *_stats_checks(config),
            *opening.checks(config, platform, apps),
            *provider(platform).checks(config),
        ]
    )


def _doors() -> Iterator[str]:
    """All that are installed, with package and version; whether what others have brought can be imported."""
    for group in (*doors.GROUPS, doors.SETTINGS):
        for door in doors.installed(group).values():
            try:
                if not door.is_shipped:
                    door.load()
                yield str(door)
            except doors.Broken as error:
                yield str(error)


def run_checks(checks: list[Check]) -> int:
    """Runs all of them and prints one line each; 0 when all are good, else 2."""
    for line in _doors():
        sys.stdout.write(f"door    {line}\n")
    failed = 0
    for name, check in checks:
        try:
            line = f"ok      {name}: {check()}"
        except (StartError, ConnectFailed, OSError) as error:
            failed += 1
            line = f"failed  {name}: {error}"
        except Exception as error:  # noqa: BLE001 - plugged in: it costs its own line
            failed += 1
            line = f"failed  {name}: {type(error).__name__}: {error}"
        sys.stdout.write(f"{line}\n")
    return CANNOT_START if failed else OK


def _broker_checks(config: Config) -> Iterator[Check]:
    yield settings.QUEUE.brokers.key, lambda: connect.broker(config, settings.QUEUE.at).check()
    if not config[settings.FEEDBACK_REPORTERS]:
        yield (
            settings.FEEDBACK_REPORTERS.key,
            lambda: "none is named, so nothing is fed back and no dead token is deleted",
        )
    for name in config[settings.FEEDBACK_REPORTERS]:
        yield f"{settings.FEEDBACK_REPORTERS.key} {name}", lambda name=name: _check_feedback(config, name)  # type: ignore[misc]


def _check_feedback(config: Config, name: str) -> str:
    """Nothing is reported, so what it would run in greenlets is not started."""
    publishers = Publishers(config, log_failure)
    open_reporter: OpenReporter = doors.door(doors.FEEDBACK, name).load()
    try:
        return open_reporter(Around(config, Stats(""), publishers.at, lambda *_: None)).check()
    finally:
        publishers.close(0.0)


def _stats_checks(config: Config) -> Iterator[Check]:
    for name in config[settings.STATS_REPORTERS]:
        yield f"{settings.STATS_REPORTERS.key} {name}", lambda name=name: _check_stats(config, name)  # type: ignore[misc]


def _check_stats(config: Config, name: str) -> str:
    open_reporter: OpenStatsReporter = doors.door(doors.STATS, name).load()
    return open_reporter(config).check()


def check_listener(config: Config) -> int:
    """One line a check, exit code 0 or 2. May wait some seconds."""
    at = listener_settings.QUEUE
    stores = open_stores(config)
    try:
        return run_checks(
            [
                (at.brokers.key, lambda: connect.broker(config, at.at).check()),
                *(check for store in stores.values() for check in store.checks()),
                *_stats_checks(config),
                *_guard_checks(config),
            ]
        )
    finally:
        for store in stores.values():
            store.close()


def _guard_checks(config: Config) -> Iterator[Check]:
    """What stands between a mistake and the tokens, where it is off."""
    if not config[listener_settings.GUARD_ENABLED]:
        yield (
            listener_settings.GUARD_ENABLED.key,
            lambda: "the guard is off: a wrong topic may delete the tokens of a whole game",
        )
