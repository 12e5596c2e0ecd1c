"""Chooses a broker by the scheme of its address: Kafka's bootstrap servers, which have none, or ``sqlite:///path``.

A broker is a plug-in of the group ``pusher.brokers``, named by its scheme, and imported only if it is used:
``open_broker(config, at, address) -> Broker``.
"""

from __future__ import annotations

from collections.abc import Callable

from pusher.broker.interface import Broker
from pusher.config import doors
from pusher.config.addresses import scheme
from pusher.config.kafka import BrokerSettings
from pusher.config.values import Config

OpenBroker = Callable[[Config, BrokerSettings, str], Broker]


def broker(config: Config, at: BrokerSettings, address: str = "") -> Broker:
    """The broker of a role, at its own address or another one. Does not wait for it.

    Raises ``StartError`` where the settings of the access cannot be used.
    """
    address = address or config[at.brokers]
    open_broker: OpenBroker = doors.door(doors.BROKERS, scheme(address)).load()
    return open_broker(config, at, address)
