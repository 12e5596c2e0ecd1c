"""Chooses a broker by its address: Kafka's bootstrap servers, or ``sqlite:///path`` for the embedded broker.

The implementations are imported where they are used, so that nobody loads the one that is not.
"""

from __future__ import annotations

from pusher.broker.interface import Broker
from pusher.config import Config
from pusher.config.kafka import BrokerSettings

_EMBEDDED = "sqlite:"


def broker(config: Config, at: BrokerSettings, address: str = "") -> Broker:
    """The broker of a role, at its own address or another one. Does not wait for it.

    Raises ``StartError`` where the settings of the access cannot be used.
    """
    address = address or config[at.brokers]
    if address.startswith(_EMBEDDED):
        from pusher.broker.sqlite.broker import SqliteBroker

        return SqliteBroker(config, address)
    from pusher.broker.kafka.broker import KafkaBroker

    return KafkaBroker(config, at, address)
