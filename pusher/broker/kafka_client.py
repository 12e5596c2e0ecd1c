"""Kafka's door: the library that speaks to it is a setting, and only the one that is chosen is imported."""

from __future__ import annotations

from pusher.broker.access import Access
from pusher.broker.interface import Broker
from pusher.config import settings
from pusher.config.kafka import BrokerSettings
from pusher.config.values import Config


def open_broker(config: Config, at: BrokerSettings, address: str) -> Broker:
    """The broker of a role. Does not wait for it; ``StartError`` where its access or its library cannot be used."""
    if Access.from_config(config, settings.KAFKA, at.kafka).client == "confluent-kafka":
        from pusher.broker.librdkafka.broker import LibrdkafkaBroker  # noqa: PLC0415  # an extra

        return LibrdkafkaBroker(config, at, address)
    from pusher.broker.kafka.broker import KafkaBroker  # noqa: PLC0415  # 10 MB

    return KafkaBroker(config, at, address)
