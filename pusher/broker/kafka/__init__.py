"""Kafka through kafka-python, on gevent.

The library's I/O thread is a greenlet here, its locks and events are gevent's and its selector waits on the hub. That
holds only if the standard library was patched before ``kafka`` is first imported; otherwise it hangs.
"""

from gevent import monkey

if not monkey.is_module_patched("threading"):
    raise ImportError("gevent has to patch the standard library before pusher.broker.kafka is imported")

from pusher.broker.kafka.publisher import KafkaPublisher  # noqa: E402  # after the check
from pusher.broker.kafka.reader import KafkaReader  # noqa: E402
from pusher.broker.kafka.source import KafkaSource  # noqa: E402

__all__ = ["KafkaPublisher", "KafkaReader", "KafkaSource"]
