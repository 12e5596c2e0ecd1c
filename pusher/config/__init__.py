"""Configuration: ``config[settings.APNS_PORT]``, ``config.of(settings.APNS_TOPIC, app)``."""

from pusher.config import settings
from pusher.config.loader import DEFAULT_PATH, Config, load, parse
from pusher.config.schema import Address, AppSetting, ConfigError, Setting

__all__ = ["DEFAULT_PATH", "Address", "AppSetting", "Config", "ConfigError", "Setting", "load", "parse", "settings"]
