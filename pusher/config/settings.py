"""Every setting of pusher, once: key, kind, default, meaning.

From here come the keys of the file, the ``PUSHER_`` variables, the flags, ``pusher settings`` and
docs/configuration.md. Times come out in seconds, whatever unit the key counts in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from pusher.config import doors
from pusher.config.addresses import Brokers, Doors, Dsn, Host, SiteUrl, TopicName, Topics
from pusher.config.doors import PLATFORMS
from pusher.config.kafka import COMMON, BrokerSettings, KafkaSettings, kafka_settings
from pusher.config.kinds import Bool, Choice, Duration, Int, List, Secret, Text
from pusher.config.schema import Setting, unused
from pusher.config.unused import UNUSED

_PORT = Int(1, 65_535)

# --- the process

GRACEFUL_SHUTDOWN_TIMEOUT = Setting(
    "gracefulShutdownTimeout",
    Duration("s"),
    10.0,
    "Time limit for a sender to stop.",
    aliases=("gracefullShutdownTimeout",),
)
LOG_LEVEL = Setting(
    "log.level",
    Choice("debug", "info", "warning", "error", "fatal", "panic", also={"warn": "warning"}),
    "info",
    "Lowest level of the log lines that are written; the flag `--debug` overrides it.",
)
SENTRY_URL = Setting(
    "sentry.url",
    Dsn(),
    "",
    'DSN of Sentry; "" = the value of the variable SENTRY_DSN; without either, errors are not sent to Sentry.',
)
SENTRY_LIBRARY = Setting(
    "sentry.library",
    Choice("raven", "sentry-sdk"),
    "raven",
    "Library that sends to Sentry: raven (the older protocol) or sentry-sdk (envelopes; needs the extra "
    "`pusherd[sentry]`).",
)
ADMIN_HOST = Setting(
    "admin.host", Host(empty=False), "127.0.0.1", "Address on which health, metrics and the status page are served."
)
ADMIN_PORT = Setting("admin.port", Int(0, 65_535), 8081, "Port of health, metrics and the status page; 0 = off.")
ADMIN_TOKEN = Setting(
    "admin.token",
    Secret(),
    "",
    "Bearer token that every path except `/healthz` and `/readyz` requires. "
    'Set it if others can reach `admin.host`; "" = no token is required.',
)
ADMIN_DOCS = Setting(
    "admin.docs",
    SiteUrl(),
    "",
    "Address of the site that `make docs` builds; the status page links its advice to it.",
)
ADMIN_READY_WHEN = Setting(
    "admin.readyWhen",
    Choice("all", "any"),
    "all",
    "`/readyz` answers 200 when all apps are served, or when at least one is (`any`), so that one app's fault does not "
    "stall a roll-out. `/readyz?app=NAME` reports a single app.",
)
ADMIN_DEBUG = Setting("admin.debug", Bool(), default=False, text="Also serve `/debug/greenlets`.")
SQLITE_RETENTION = Setting(
    "sqlite.retention",
    Duration("d", minimum_s=1.0),
    7 * 86_400.0,
    "How long the embedded broker keeps records. It never removes records that a group has not finished.",
)

# --- connections to Kafka

KAFKA = kafka_settings(COMMON)

# --- each provider


class ProviderSettings(NamedTuple):
    """The settings that every provider has, under its word."""

    apps: Setting[tuple[str, ...]]
    log_stats_interval: Setting[float]
    rate_limit: Setting[int]
    dedup_ttl: Setting[float]


@cache
def of_provider(word: str) -> ProviderSettings:
    """The settings that every provider has."""
    return ProviderSettings(
        Setting(f"{word}.apps", List(), (), f"Apps that `{word}` serves."),
        Setting(
            f"{word}.logStatsInterval",
            Duration("ms", minimum_s=0.001),
            5.0,
            "Time between two summary log lines of each app.",
        ),
        Setting(
            f"{word}.rateLimit.rpm",
            Int(0, unit="pushes a minute"),
            0,
            "Maximum pushes to a device per minute, counted in the Redis of `rateLimiter.redis.*`; 0 = no limit.",
        ),
        Setting(
            f"{word}.dedup.ttl",
            Duration("s", maximum_s=365 * 86_400),
            60.0,
            "How long a push of a game in `dedup.games` is remembered to find duplicates; 0 = it is not remembered.",
        ),
    )


# --- what is consumed


@dataclass(frozen=True)
class QueueSettings:
    """Settings of one consumer: the senders' or the listener's."""

    topics: Setting[tuple[str, ...]]
    brokers: Setting[str]
    group: Setting[str]
    session_timeout: Setting[float]
    fetch_min_bytes: Setting[int]
    fetch_wait_max: Setting[float]
    offset_reset_strategy: Setting[str]
    handle_all_messages_before_exiting: Setting[bool]
    commit_interval: Setting[float]
    max_uncommitted: Setting[int]
    metadata_refresh: Setting[float]
    channel_size: Setting[str]
    kafka: KafkaSettings

    @property
    def at(self) -> BrokerSettings:
        """Where it consumes."""
        return BrokerSettings(self.brokers, self.kafka)


def queue_settings(prefix: str, topics: str, topics_text: str) -> QueueSettings:
    """The settings of a consumer below ``prefix``; ``topics`` is the default of its topics."""
    reset_words = {"largest": "latest", "end": "latest", "smallest": "earliest", "beginning": "earliest"}
    return QueueSettings(
        topics=Setting(
            f"{prefix}.topics", Topics(), (topics,), f"{topics_text} A leading `^` marks a regular expression."
        ),
        brokers=Setting(
            f"{prefix}.brokers",
            Brokers(),
            "localhost:9092",
            "Kafka's bootstrap servers, or the embedded broker's file: `sqlite:///path` is relative to the working "
            "directory, `sqlite:////path` is absolute.",
        ),
        group=Setting(f"{prefix}.group", Text(empty=False), "test", "Consumer group."),
        session_timeout=Setting(
            f"{prefix}.sessionTimeout", Duration("ms", 0.01, 3_600), 6.0, "Kafka's session.timeout.ms."
        ),
        fetch_min_bytes=Setting(
            f"{prefix}.fetch.min.bytes", Int(1, 100_000_000, unit="bytes"), 1, "Kafka's fetch.min.bytes."
        ),
        fetch_wait_max=Setting(
            f"{prefix}.fetch.wait.max.ms", Duration("ms", maximum_s=300), 0.1, "Kafka's fetch.max.wait.ms."
        ),
        offset_reset_strategy=Setting(
            f"{prefix}.offsetResetStrategy",
            Choice("latest", "earliest", also=reset_words),
            "latest",
            "Where a new consumer group starts. Topics that appear later are read from their beginning.",
        ),
        handle_all_messages_before_exiting=Setting(
            f"{prefix}.handleAllMessagesBeforeExiting",
            Bool(),
            default=True,
            text="true: a stop finishes all consumed messages. false: it commits the finished messages; the next owner "
            "of the partition sends the others.",
        ),
        commit_interval=Setting(
            f"{prefix}.commitInterval", Duration("s", minimum_s=0.001), 0.5, "Time between commits of finished offsets."
        ),
        max_uncommitted=Setting(
            f"{prefix}.maxUncommitted",
            Int(1, 1_000_000, unit="offsets"),
            10_000,
            "A partition is paused when it has been read this far beyond its lowest unfinished message.",
        ),
        metadata_refresh=Setting(
            f"{prefix}.metadataRefresh",
            Duration("s", 0.001, 3_600),
            30.0,
            "Time between two searches for new topics.",
        ),
        channel_size=unused(f"{prefix}.channelSize"),
        kafka=kafka_settings(f"{prefix}.kafka"),
    )


#: What the senders consume.
QUEUE = queue_settings(
    "queue", f"^push-.+_({PLATFORMS})[_-](single|massive)", "Topics to consume; topics of other platforms are ignored."
)
QUEUE_INVALID_TOPIC = Setting(
    "queue.invalidTopic",
    TopicName(),
    "push-<game>-<platform>-invalid",
    'Topic for messages that can never be sent; "" = they are only logged and counted.',
)

# --- what is published

FEEDBACK_REPORTERS = Setting(
    "feedback.reporters",
    Doors(doors.FEEDBACK),
    (),
    "Where outcomes are published: `kafka`, or names of plug-ins (`pusher.feedback`); empty: nowhere.",
)
FEEDBACK_SUCCESSES = Setting(
    "feedback.successes", Bool(), default=True, text="Publish feedbacks of successes too, not only of failures."
)
FEEDBACK_BROKERS = Setting(
    "feedback.kafka.brokers",
    Brokers(),
    "localhost:9941",
    "Kafka's bootstrap servers for feedbacks, or `sqlite:///path`.",
)
FEEDBACK_LINGER = Setting(
    "feedback.kafka.linger.ms",
    Duration("ms", maximum_s=60),
    0.02,
    "How long a feedback waits so that several are sent in one batch.",
)
FEEDBACK_BUFFER_KIB = Setting(
    "feedback.kafka.batch.size",
    Int(1, unit="KiB"),
    32_768,
    "Size of the buffer for feedbacks that Kafka has not acknowledged; when it is full, consuming pauses.",
)
FEEDBACK_COMPRESSION = Setting(
    "feedback.kafka.compression",
    Choice("none", "gzip", "snappy", "lz4", "zstd"),
    "none",
    "Compression of feedbacks; `none` costs the least CPU time.",
)

#: Where feedbacks are published.
FEEDBACK_AT = BrokerSettings(FEEDBACK_BROKERS, kafka_settings("feedback.kafka"))

# --- stats

STATS_REPORTERS = Setting(
    "stats.reporters",
    Doors(doors.STATS),
    (),
    "Where metrics are reported: `statsd`, or names of plug-ins (`pusher.stats`); empty: nowhere.",
)
STATS_REPORT_INTERVAL = Setting(
    "stats.statsd.flushIntervalMs",
    Duration("ms", minimum_s=0.001),
    1.0,
    "Time between two reports of the metrics.",
    aliases=("stats.statsd.flushIntervalInMs",),
)
STATS_FLUSH = Setting(
    "stats.flush.s", Duration("s", minimum_s=0.001), 5.0, "Listener: time between two updates of its gauges."
)


@cache
def declared() -> tuple[Setting[Any], ...]:
    """All settings, in the order in which they are declared: pusher's own, then those of whatever is plugged in.

    A module behind a door may have a tuple ``UNUSED`` as well. One that cannot be imported is left out: see ``broken``.
    """
    found = [*_settings_in(globals())]
    for word in doors.installed(doors.PROVIDERS):
        found += of_provider(word)
    for module in (one for one in _plugged_in().values() if not isinstance(one, str)):
        found += [*_settings_in(vars(module)), *vars(module).get("UNUSED", ())]
    return (*found, *UNUSED)


@cache
def readers() -> Mapping[str, str]:
    """The only command that reads a group, by the group: the first word of the keys of a module with ``READ_BY``."""
    found: dict[str, str] = {}
    for door in doors.installed(doors.SETTINGS).values():
        module = vars(door.load())
        if "READ_BY" in module:
            found |= {setting.key.partition(".")[0]: module["READ_BY"] for setting in _settings_in(module)}
    return found


@cache
def _plugged_in() -> dict[str, ModuleType | str]:
    """Modules by the names of their doors, or why one cannot be imported."""
    found: dict[str, ModuleType | str] = {}
    for name, door in doors.installed(doors.SETTINGS).items():
        try:
            found[name] = door.load()
        except doors.Broken as error:
            found[name] = str(error)
    return found


def broken() -> list[str]:
    """Why settings that were plugged in are not known, one line each: that costs those who brought them alone."""
    return [found for found in _plugged_in().values() if isinstance(found, str)]


def apps() -> Mapping[str, Setting[tuple[str, ...]]]:
    """The settings that list the apps, by the first word of the apps' keys."""
    return {word: of_provider(word).apps for word in doors.installed(doors.PROVIDERS)}


def _settings_in(module: Mapping[str, object]) -> Iterator[Setting[Any]]:
    for value in list(module.values()):
        if isinstance(value, Setting):
            yield value
        elif isinstance(value, QueueSettings):
            yield from (setting for setting in vars(value).values() if isinstance(setting, Setting))
            yield from value.kafka.all()
        elif isinstance(value, BrokerSettings):
            yield from value.kafka.all()
        elif is_dataclass(value):
            # several that belong together, such as those of a connection
            yield from (setting for setting in vars(value).values() if isinstance(setting, Setting))
