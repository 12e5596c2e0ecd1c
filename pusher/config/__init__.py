"""Configuration: ``config[settings.APNS_PORT]``, ``config.of(settings.APNS_TOPIC, app)``."""

from pusher.config import settings
from pusher.config.loader import DEFAULT_PATH, Config, load, parse
from pusher.config.schema import AppSetting, ConfigError, Setting, SocketAddress

__all__ = [
    "DEFAULT_PATH",
    "AppSetting",
    "Config",
    "ConfigError",
    "Setting",
    "SocketAddress",
    "load",
    "parse",
    "settings",
]
