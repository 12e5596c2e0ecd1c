"""``--check``: verifies settings, credentials and connections. It sends and consumes nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial

from pusher.broker import connect
from pusher.broker.interface import log_failure
from pusher.config import doors, settings
from pusher.config.settings import QueueSettings
from pusher.config.values import Config
from pusher.daemon.publishers import Publishers
from pusher.daemon.reporters import OpenStatsReporter
from pusher.errors import StartError
from pusher.listener import settings as listener_settings
from pusher.listener.opening import open_stores
from pusher.providers.http2.transport import ConnectFailed
from pusher.providers.provider import Check, provider
from pusher.push import topics
from pusher.push.limits import opening
from pusher.push.reporter import Around, OpenReporter
from pusher.telemetry.stats import Stats

OK, CANNOT_START = 0, 2
#: Of topics, in a line.
_MOST_NAMES = 10


def check_sender(platform: str, config: Config) -> int:
    """A platform's command with ``--check``: one line a check, exit code 0 or 2. May wait."""
    apps = config[settings.of_provider(platform).apps]
    return run_checks(
        [
            *_broker_checks(config),
            *_consumption(config, settings.QUEUE, partial(_is_read, config, platform)),
            *_stats_checks(config),
            *opening.checks(config, platform, apps),
            *provider(platform).checks(config),
        ]
    )


def _doors() -> Iterator[str]:
    """All installed doors, with package and version; imports those of other packages."""
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
            lambda: "no reporter is set, so no feedback is published and no dead token is deleted",
        )
    elif not config[settings.FEEDBACK_SUCCESSES]:
        yield (
            settings.FEEDBACK_SUCCESSES.key,
            lambda: "off, so only failures get a feedback: set guard.successesExpected: false for the listener",
        )
    for name in config[settings.FEEDBACK_REPORTERS]:
        yield f"{settings.FEEDBACK_REPORTERS.key} {name}", lambda name=name: _check_feedback(config, name)  # type: ignore[misc]


def _consumption(config: Config, queue: QueueSettings, fate: Callable[[str], str]) -> Iterator[Check]:
    """The topics to read; ``fate(topic)``: why a matching topic is not read or its messages are not sent, or ""."""
    yield queue.topics.key, partial(_matching_topics, config, queue, fate)
    if config[queue.offset_reset_strategy] == "latest":
        yield (
            queue.offset_reset_strategy.key,
            lambda: f"if the group {config[queue.group]} is new, it skips the messages that already wait (latest)",
        )


def _matching_topics(config: Config, queue: QueueSettings, fate: Callable[[str], str]) -> str:
    chosen = config[queue.topics]
    found = connect.broker(config, queue.at).topics()
    matching = [topic for topic in found if any(_matches(one, topic) for one in chosen)]
    by_fate: dict[str, list[str]] = {}
    for topic in matching:
        by_fate.setdefault(fate(topic), []).append(topic)
    read = by_fate.pop("", [])
    parts = [f"read now: {_some(read)}" if read else "no matching topic exists yet; a topic is read when it appears"]
    parts += [f"{reason}: {_some(names)}" for reason, names in by_fate.items()]
    return "; ".join(parts)


def _matches(chosen: str, topic: str) -> bool:
    return re.match(chosen, topic) is not None if chosen.startswith("^") else chosen == topic


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _is_read(config: Config, platform: str, topic: str) -> str:
    apps = config[settings.of_provider(platform).apps]
    name = topics.parse(topic, apps)
    if name is None or name.platform != platform or topics.is_written_by_pusher(topic):
        return "ignored, topics of other platforms"
    return "" if name.game in apps else "topics of games that are not configured, whose messages are invalid"


def _is_feedback_topic(topic: str) -> str:
    return "" if topic.endswith(topics.FEEDBACKS) else "ignored, not topics of feedbacks"


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
                *_consumption(config, at, _is_feedback_topic),
                *(check for store in stores.values() for check in store.checks()),
                *_stats_checks(config),
                *_guard_checks(config),
            ]
        )
    finally:
        for store in stores.values():
            store.close()


def _guard_checks(config: Config) -> Iterator[Check]:
    """Protections of the tokens that are turned off."""
    if not config[listener_settings.DELETES]:
        yield listener_settings.DELETES.key, lambda: "off: feedbacks are consumed and committed, no token is deleted"
    if not config[listener_settings.GUARD_ENABLED]:
        yield (
            listener_settings.GUARD_ENABLED.key,
            lambda: "the guard is off: a wrong topic may delete the tokens of a whole game",
        )
