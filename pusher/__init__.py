"""pusher: reads push requests from Kafka, sends them to Apple and Google and publishes every outcome."""

__version__ = "3.6.1"
