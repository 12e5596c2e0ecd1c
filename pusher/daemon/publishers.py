"""The publishers of a process: one for each broker, because several kinds of records may go to the same broker."""

from __future__ import annotations

import time

from pusher.broker import connect
from pusher.broker.interface import Broker, Failed, Publisher
from pusher.config.kafka import BrokerSettings
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.telemetry import sentry
from pusher.telemetry.health import Health
from pusher.telemetry.log import logger

log = logger(__name__)


class Publishers:
    """Opens a publisher when it is first asked for. ``failed`` gets the error of a record whose end failed."""

    def __init__(self, config: Config, failed: Failed) -> None:
        self._config, self._failed = config, failed
        self._brokers: dict[BrokerSettings, Broker] = {}
        self._opened: dict[str, Publisher] = {}

    def at(self, at: BrokerSettings) -> Publisher:
        """The publisher of a role's broker. Does not wait for it."""
        if at not in self._brokers:
            self._brokers[at] = connect.broker(self._config, at)
        name = str(self._brokers[at])
        if name not in self._opened:
            self._opened[name] = self._brokers[at].publisher(self._failed)
        return self._opened[name]

    def reload(self, config: Config) -> bool:
        """Lets new connections use the present credentials; whether any changed. Raises ``StartError``."""
        changed = {broker.reload(config) for broker in self._brokers.values()}
        return True in changed

    @property
    def full(self) -> bool:
        """Whether one of them has no room, so that consuming should pause."""
        return any(publisher.full for publisher in self._opened.values())

    def health(self) -> dict[str, Health]:
        """Of each, by name."""
        return {f"publisher {address}": publisher.health() for address, publisher in self._opened.items()}

    def pending(self) -> dict[str, int]:
        """Records of each that are neither stored nor refused, by address."""
        return {address: publisher.pending for address, publisher in self._opened.items()}

    def flush(self, left_s: float) -> str:
        """A step of the stop order: waits until all is stored."""
        deadline = time.monotonic() + left_s
        left = sum(p.flush(max(0.0, deadline - time.monotonic())) for p in self._opened.values())
        return f"{left} records are not acknowledged" if left else ""

    def close(self, _left_s: float) -> str:
        """A step of the stop order."""
        for publisher in self._opened.values():
            publisher.close()
        return ""


def reload_brokers(source: Broker, publishers: Publishers, config: Config) -> None:
    """Lets new connections use the present credentials. What fails leaves the old in use, in one error line."""
    try:
        changed = [source.reload(config), publishers.reload(config)]
    except StartError as error:
        log.error("the new credentials for the brokers cannot be used, the old ones stay in use", error=str(error))
    except Exception:
        # what else is to be reloaded is reloaded all the same
        log.exception("reloading the credentials for the brokers failed, the old ones stay in use")
        sentry.report_exception(None, signal="SIGHUP")
    else:
        log.info("brokers: new credentials in use" if any(changed) else "brokers: the credentials are unchanged")
