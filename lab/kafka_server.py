"""The private Kafka of tests that break it: `KafkaServer(tmp_path / "kafka")`, then start, kill, freeze, stop."""

from scripts.kafka.server import KafkaServer, free_port

__all__ = ["KafkaServer", "free_port"]
