"""``--check``: are the settings usable, the credentials good, the other ends reachable? Nothing is sent or consumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pusher.broker.connect import check_broker
from pusher.config import Config, settings
from pusher.errors import StartError
from pusher.providers.http2.transport import ConnectFailed
from pusher.providers.provider import Check, provider

OK, CANNOT_START = 0, 2


def check_sender(platform: str, config: Config) -> int:
    """The command ``apns`` or ``gcm`` with ``--check``: one line a check, exit code 0 or 2. May wait."""
    return run_checks([*_broker_checks(config), *provider(platform).checks(config)])


def run_checks(checks: list[Check]) -> int:
    """Runs all of them and prints one line each; 0 when all are good, else 2."""
    failed = 0
    for name, check in checks:
        try:
            line = f"ok      {name}: {check()}"
        except (StartError, ConnectFailed, OSError) as error:
            failed += 1
            line = f"failed  {name}: {error}"
        sys.stdout.write(f"{line}\n")
    return CANNOT_START if failed else OK


def _broker_checks(config: Config) -> Iterator[Check]:
    yield settings.QUEUE.brokers.key, lambda: check_broker(config[settings.QUEUE.brokers])
    if config[settings.FEEDBACK_REPORTERS]:
        yield settings.FEEDBACK_BROKERS.key, lambda: check_broker(config[settings.FEEDBACK_BROKERS])
