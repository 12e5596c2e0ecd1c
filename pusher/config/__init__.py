"""Configuration: ``config[settings.LOG_LEVEL]``, ``config.of(APP_SETTING, app)``."""

from pusher.config import settings
from pusher.config.addresses import SocketAddress
from pusher.config.loader import DEFAULT_PATH, load, parse
from pusher.config.schema import AppSetting, ConfigError, Setting
from pusher.config.values import Config

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
