"""What pusher has to reach: every row of the table that `python -m bench` prints, declared once."""

from typing import NamedTuple


class Goal(NamedTuple):
    """A row: what is measured, under which name measurements.py gives it, and what is good enough."""

    what: str
    figure: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    decimals: int = 1

    @property
    def is_cpu_time(self) -> bool:
        """Whether the figure grows as the machine becomes slower."""
        return "cpu" in self.figure.partition(".")[2].split("_")

    def text(self) -> str:
        """The goal as the table shows it; "" for a row that only informs."""
        if self.at_most is not None:
            return f"at most {self.at_most:,g} {self.unit}"
        return "" if self.at_least is None else f"at least {self.at_least:,g} {self.unit}"

    def met(self, value: float) -> bool:
        """Whether a measured value is good enough."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def shown(self, value: float) -> str:
        """A value with as many digits as mean something."""
        return f"{value:,.{self.decimals}f}"


GOALS = (
    Goal("APNs, as config/default.yaml has it (300 in flight): CPU a push", "apns.cpu_us", "us", at_most=31),
    Goal("APNs, as config/default.yaml has it: one process", "apns.rate_s", "pushes/s", at_least=15_000, decimals=0),
    Goal("APNs, without that file's window (10 in flight): CPU a push", "defaults.cpu_us", "us"),
    Goal("APNs, without that file's window: one process", "defaults.rate_s", "pushes/s", decimals=0),
    Goal("APNs with confluent-kafka: CPU a push", "librdkafka.cpu_us", "us", at_most=22),
    Goal("APNs with confluent-kafka: one process", "librdkafka.rate_s", "pushes/s", decimals=0),
    Goal("HTTP/2 alone, sender and reader", "http2.cpu_us", "us", at_most=15),
    Goal("FCM v1: CPU a push", "fcm.cpu_us", "us", at_most=75),
    Goal("FCM v1: one process", "fcm.rate_s", "pushes/s", decimals=0),
    Goal("GCM over XMPP: CPU a push", "gcm.cpu_us", "us", at_most=180),
    Goal("GCM, answers after 50 ms: rate as a share of the window's limit", "gcm50.share", "%", at_least=95),
    Goal("Listener: one process", "listener.rate_s", "feedbacks/s", at_least=20_000, decimals=0),
    Goal("Listener: CPU a feedback", "listener.cpu_us", "us", at_most=30),
    Goal("Two processes in a group: CPU a push more than that of one", "two.growth", "%", at_most=10),
    Goal("Two processes: the slowest partition's share of the mean", "two.slowest", "%", at_least=10, decimals=0),
    Goal("Two processes: together", "two.rate_s", "pushes/s", decimals=0),
    Goal(
        "100 apps of a topic each: CPU a push as a multiple of that of one app",
        "apps.growth",
        "x",
        at_most=1.4,
        decimals=2,
    ),
    Goal("100 apps of a topic each: Kafka's share of a core", "apps.kafka", "%", decimals=0),
    Goal("At rest: share of a core", "rates.idle_cpu", "%", at_most=0.6, decimals=2),
    Goal("At 10 pushes a second: share of a core", "rates.cpu_10", "%", at_most=1.5, decimals=2),
    Goal("At 100/s: share of a core", "rates.cpu_100", "%", at_most=5),
    Goal("At 1,000/s: share of a core", "rates.cpu_1000", "%", at_most=15),
    Goal("With confluent-kafka, at rest: share of a core", "librdkafka_rates.idle_cpu", "%", decimals=2),
    Goal("With confluent-kafka, at 100 pushes a second: share of a core", "librdkafka_rates.cpu_100", "%"),
    Goal("With confluent-kafka, at 1,000/s: share of a core", "librdkafka_rates.cpu_1000", "%", at_most=12),
    Goal("With confluent-kafka, latency at 1,000/s, p99", "librdkafka_rates.p99_1000", "ms"),
    Goal("Latency at 10/s, Kafka's timestamp to accepted, p99", "rates.p99_10", "ms"),
    Goal("Latency at 1,000/s, Kafka's timestamp to accepted, p50", "rates.p50_1000", "ms", at_most=12),
    Goal("Latency at 1,000/s, Kafka's timestamp to accepted, p99", "rates.p99_1000", "ms", at_most=25),
    Goal("Memory at full load, peak", "apns.peak_mb", "MB", at_most=85),
    Goal("Memory, idle", "rates.idle_mb", "MB", at_most=58),
    Goal("Memory in front of the backlog, peak", "backlog.peak_mb", "MB", at_most=80),
    Goal("Memory in front of the backlog, growth while it is worked off", "backlog.grown_mb", "MB", at_most=3),
    Goal("Start of the process to the first feedback, Kafka running", "apns.start_s", "s", at_most=1.5, decimals=2),
)
