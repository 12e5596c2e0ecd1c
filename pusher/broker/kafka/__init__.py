"""Kafka through kafka-python, on gevent.

The library's I/O thread is a greenlet here, its locks and events are gevent's and its selector waits on the hub. That
holds only if the standard library was patched before ``kafka`` is first imported; otherwise it hangs.
"""

from gevent import monkey

if not monkey.is_module_patched("threading"):
    raise ImportError("gevent has to patch the standard library before pusher.broker.kafka is imported")

from pusher.broker.kafka.publisher import KafkaPublisher
from pusher.broker.kafka.reader import KafkaReader
from pusher.broker.kafka.source import KafkaSource

__all__ = ["KafkaPublisher", "KafkaReader", "KafkaSource"]
