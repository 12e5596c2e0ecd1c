"""Kafka through confluent-kafka, whose librdkafka works in its own threads, beside gevent.

Calls that wait in the library run in a native thread (``native``), so the hub never waits. ``kafka.client`` chooses
between this package and ``pusher.broker.kafka``.
"""

from gevent import monkey

from pusher.errors import StartError

if not monkey.is_module_patched("threading"):
    raise ImportError("gevent has to patch the standard library before pusher.broker.librdkafka is imported")

try:
    import confluent_kafka  # noqa: F401  # whether it is there
except ImportError as error:
    raise StartError(
        f"kafka.client: confluent-kafka is not installed ({error}): install the extra `confluent`, "
        "or leave kafka.client at kafka-python"
    ) from None

from pusher.broker.librdkafka.publisher import LibrdkafkaPublisher
from pusher.broker.librdkafka.reader import LibrdkafkaReader
from pusher.broker.librdkafka.source import LibrdkafkaSource

__all__ = ["LibrdkafkaPublisher", "LibrdkafkaReader", "LibrdkafkaSource"]
