"""The service of an app, made by its platform's provider."""

from __future__ import annotations

from typing import Any

from pusher.config import Config
from pusher.providers.provider import OpenLane, Service, provider

__all__ = ["OpenLane", "build_service", "reload_credentials"]


def build_service(platform: str, config: Config, app: str, open_lane: OpenLane) -> Any:
    """The service of an app. Raises ``StartError`` where its settings or credentials cannot be used."""
    return provider(platform).build(config, app, open_lane)


def reload_credentials(service: Service, config: Config, app: str) -> bool:
    """Lets a service use the credentials that are configured now; false where there is nothing new.

    Waits for the provider where that can tell whether they are good. Raises ``StartError``: the old ones stay in use.
    """
    return provider(service.lane.settings.platform).reload(service, config, app)
