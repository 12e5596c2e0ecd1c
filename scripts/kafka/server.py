"""The Kafka of ``lab.kafka.server``, for scripts outside of this tree that know it by this name."""

from lab.kafka.server import KafkaServer, free_port

__all__ = ["KafkaServer", "free_port"]
