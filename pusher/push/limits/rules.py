"""The configured limits: how many pushes a device of an app gets, and which pushes are checked for duplicates."""

from __future__ import annotations

from dataclasses import dataclass

from pusher.config.settings import of_provider
from pusher.config.values import Config
from pusher.push.limits.settings import DEDUP_ACTION, DEDUP_GAMES


@dataclass(frozen=True)
class DeviceRules:
    """Of one app."""

    #: Pushes of a device in each minute; 0: no limit.
    limit: int = 0
    #: How long a push is remembered; 0: pushes are not compared.
    memory_ms: int = 0
    #: Of this percentage of devices.
    percentage: int = 0
    #: Duplicates are not sent: they use up nothing, and what is not sent is not remembered.
    drop: bool = False

    @property
    def compares(self) -> bool:
        """Whether duplicates are looked for."""
        # below 0 the original compares everything, as above 100
        return self.memory_ms > 0 and self.percentage != 0

    @property
    def refuses(self) -> bool:
        """Whether some pushes are not sent."""
        return self.limit > 0 or (self.compares and self.drop)

    @property
    def is_on(self) -> bool:
        """Whether Redis is asked at all."""
        return self.limit > 0 or self.compares


def rules(config: Config, platform: str, app: str) -> DeviceRules:
    """Those of an app."""
    of_platform = of_provider(platform)
    return DeviceRules(
        limit=config[of_platform.rate_limit],
        memory_ms=round(config[of_platform.dedup_ttl] * 1000),
        percentage=config[DEDUP_GAMES].get(app, 0),
        drop=config[DEDUP_ACTION] == "drop",
    )
