"""Every setting of pusher, once: key, kind, default, meaning.

From here come the keys of the file, the ``PUSHER_`` variables, the flags, ``pusher settings`` and
docs/configuration.md. Times come out in seconds, whatever unit the key counts in.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pusher.config import platforms
from pusher.config.schema import (
    Address,
    AppSetting,
    Bool,
    Brokers,
    Choice,
    Credentials,
    Duration,
    HostPort,
    Int,
    List,
    Number,
    Path,
    Secret,
    Setting,
    Text,
    Topic,
    Url,
    unused,
)
from pusher.config.unused import UNUSED

_PORT = Int(1, 65_535)

# --- the process

GRACEFUL_SHUTDOWN_TIMEOUT = Setting(
    "gracefulShutdownTimeout",
    Duration("s"),
    10.0,
    "Longest time that a sender takes to stop.",
    aliases=("gracefullShutdownTimeout",),
)
LOG_LEVEL = Setting(
    "log.level",
    Choice("debug", "info", "warning", "error", "fatal", "panic", also={"warn": "warning"}),
    "info",
    "Least important lines that are written; the flag `--debug` wins.",
)
SENTRY_URL = Setting("sentry.url", Secret(), "", 'DSN of Sentry; "" = the variable SENTRY_DSN, or none.')
ADMIN_HOST = Setting("admin.host", Text(empty=False), "127.0.0.1", "Where health, metrics and status page are served.")
ADMIN_PORT = Setting("admin.port", Int(0, 65_535), 8081, "Port of health, metrics and status page; 0 = off.")
ADMIN_DEBUG = Setting("admin.debug", Bool(), default=False, text="Serve `/debug/greenlets` as well.")
SQLITE_RETENTION = Setting(
    "sqlite.retention",
    Duration("d", minimum_s=1.0),
    7 * 86_400.0,
    "How long the embedded broker keeps records; those that a group has not finished are never removed.",
)

# --- APNs

APNS_APPS = Setting("apns.apps", List(), (), "Apps that `apns` serves.")
APNS_AUTH_KEY_PATH = AppSetting("apns.certs.<app>.authKeyPath", Path(), "", "Apple's .p8 key (PKCS#8 PEM, EC).")
APNS_KEY_ID = AppSetting("apns.certs.<app>.keyID", Text(), "", "Id of the .p8 key, ten characters.")
APNS_TEAM_ID = AppSetting("apns.certs.<app>.teamID", Text(), "", "Id of the team at Apple, ten characters.")
APNS_TOPIC = AppSetting("apns.certs.<app>.topic", Text(), "", "Bundle id of the app, sent as `apns-topic`.")
APNS_CERT_PATH = AppSetting(
    "apns.certs.<app>.certPath",
    Path(),
    "",
    "Client certificate instead of a .p8 key: .pem with its key, or .p12.",
    aliases=("apns.certs.<app>",),
)
APNS_CERT_PASSWORD = AppSetting("apns.certs.<app>.certPassword", Secret(), "", "Password of the certificate's key.")
APNS_HOST = Setting(
    "apns.host",
    Text(),
    "",
    'Host of APNs; "" = `api.push.apple.com` with `--production`, else `api.sandbox.push.apple.com`.',
)
APNS_PORT = Setting("apns.port", _PORT, 443, "Port of APNs (Apple also answers at 2197).")
APNS_CA_FILE = Setting("apns.caFile", Path(), "", "PEM certificates trusted besides the system's.")
APNS_CRL_FILE = Setting("apns.crlFile", Path(), "", "PEM revocation lists; with `apns.caFile` only.")
APNS_CONCURRENT_WORKERS = Setting(
    "apns.concurrentWorkers", Int(1, unit="requests"), 10, "Requests in flight at once, for each app."
)
APNS_CONNECTION_POOL_SIZE = Setting("apns.connectionPoolSize", Int(1, unit="connections"), 1, "Links of each app.")
APNS_PUSH_QUEUE_SIZE = Setting(
    "apns.pushQueueSize",
    Int(1, unit="pushes"),
    2_000,
    "Pushes of an app that wait to be sent, retries included, from which on its partitions are paused.",
)
APNS_REQUEST_TIMEOUT = Setting(
    "apns.requestTimeout", Duration("s", minimum_s=0.001), 60.0, "Longest wait for an answer; then the push is retried."
)
APNS_CONNECT_TIMEOUT = Setting(
    "apns.connectTimeout", Duration("s", minimum_s=0.001), 10.0, "Longest time that a connection may take to stand."
)
APNS_RECONNECT_INTERVAL = Setting(
    "apns.reconnect.interval", Duration("s", minimum_s=0.001), 1.0, "First wait before connecting again; it doubles."
)
APNS_RECONNECT_MAX_INTERVAL = Setting(
    "apns.reconnect.maxInterval", Duration("s", minimum_s=0.001), 60.0, "Longest wait before connecting again."
)
APNS_RETRY_INTERVAL = Setting(
    "apns.retry.interval", Duration("s"), 1.0, "First wait before a retry; it doubles, with jitter, up to 60 s."
)
APNS_RETRY_MAX_ATTEMPTS = Setting(
    "apns.retry.maxAttempts",
    Int(1, unit="sends"),
    3,
    "Sends of a push in all, the first included.",
    aliases=("apns.retry.maxRetryAttempts",),
)
APNS_LOG_STATS_INTERVAL = Setting(
    "apns.logStatsInterval", Duration("ms", minimum_s=0.001), 5.0, "Period of the summary line of each app."
)

# --- Google

GCM_APPS = Setting("gcm.apps", List(), (), "Apps that `gcm` serves.")
GCM_FIREBASE_CREDENTIALS = AppSetting(
    "gcm.firebaseCredentials.<app>",
    Credentials(),
    "",
    "Service account, as JSON text or as the path of its file: the app is served through FCM HTTP v1.",
)
GCM_API_KEY = AppSetting("gcm.certs.<app>.apiKey", Secret(), "", "Server key: the app is served through XMPP.")
GCM_SENDER_ID = AppSetting("gcm.certs.<app>.senderID", Text(), "", "Sender id that belongs to the server key.")
GCM_PUSH_QUEUE_SIZE = Setting("gcm.pushQueueSize", Int(1, unit="pushes"), 2_000, "As `apns.pushQueueSize`.")
GCM_LOG_STATS_INTERVAL = Setting(
    "gcm.logStatsInterval", Duration("ms", minimum_s=0.001), 5.0, "Period of the summary line of each app."
)
GCM_XMPP_HOST = Setting("gcm.xmpp.host", Text(empty=False), "fcm-xmpp.googleapis.com", "Host of the XMPP service.")
GCM_XMPP_PORT = Setting(
    "gcm.xmpp.port", Int(0, 65_535), 0, "Port of the XMPP service; 0 = 5235 with `--production`, else 5236."
)
GCM_XMPP_CA_FILE = Setting("gcm.xmpp.caFile", Path(), "", "PEM certificates trusted besides the system's.")
GCM_XMPP_CRL_FILE = Setting("gcm.xmpp.crlFile", Path(), "", "PEM revocation lists; with `gcm.xmpp.caFile` only.")
GCM_PING_INTERVAL = Setting("gcm.pingInterval", Duration("s", minimum_s=0.001), 20.0, "XMPP: time between pings.")
GCM_PING_TIMEOUT = Setting(
    "gcm.pingTimeout", Duration("s", minimum_s=0.001), 30.0, "XMPP: longest wait for a pong; then the link is replaced."
)
GCM_MAX_PENDING_MESSAGES = Setting(
    "gcm.maxPendingMessages",
    Int(1, unit="messages"),
    100,
    "XMPP: unacknowledged messages a connection; Google admits 100.",
)
GCM_ACK_TIMEOUT = Setting(
    "gcm.ackTimeout", Duration("s", minimum_s=0.001), 60.0, "XMPP: longest wait for an answer; then it is retried."
)
GCM_RECONNECT_INTERVAL = Setting(
    "gcm.reconnect.interval", Duration("s", minimum_s=0.001), 1.0, "First wait before connecting again; it doubles."
)
GCM_RECONNECT_MAX_INTERVAL = Setting(
    "gcm.reconnect.maxInterval", Duration("s", minimum_s=0.001), 60.0, "Longest wait before connecting again."
)
GCM_RETRY_MAX_ATTEMPTS = Setting("gcm.retry.maxAttempts", Int(1, unit="sends"), 5, "XMPP: sends of a push in all.")
GCM_RETRY_INTERVAL = Setting("gcm.retry.interval", Duration("s"), 1.0, "XMPP: first wait before a retry; it doubles.")
GCM_CONCURRENT_WORKERS = Setting(
    "gcm.concurrentWorkers", Int(1, unit="requests"), 100, "FCM: requests in flight at once, for each app."
)
FCM_ENDPOINT = Setting("gcm.fcm.endpoint", Url(), "https://fcm.googleapis.com", "Address of FCM HTTP v1.")
FCM_CA_FILE = Setting("gcm.fcm.caFile", Path(), "", "PEM certificates trusted besides the system's.")
FCM_CRL_FILE = Setting("gcm.fcm.crlFile", Path(), "", "PEM revocation lists; with `gcm.fcm.caFile` only.")
FCM_CONNECTION_POOL_SIZE = Setting("gcm.fcm.connectionPoolSize", Int(1, unit="connections"), 1, "Links of each app.")
FCM_REQUEST_TIMEOUT = Setting(
    "gcm.fcm.requestTimeout", Duration("s", minimum_s=0.001), 60.0, "Longest wait for an answer; then it is retried."
)
FCM_RETRY_MAX_ATTEMPTS = Setting("gcm.fcm.retry.maxAttempts", Int(1, unit="sends"), 5, "FCM: sends of a push in all.")
FCM_RETRY_INTERVAL = Setting(
    "gcm.fcm.retry.interval", Duration("s"), 10.0, "FCM: first wait before a retry; it doubles, with jitter."
)
FCM_RETRY_MAX_ELAPSED = Setting(
    "gcm.fcm.retry.maxElapsed", Duration("s"), 3_600.0, "FCM: no retry later than this after the first send."
)

#: Where the names of apps stand, by the first word of the apps' own keys.
APPS_OF = {"apns": APNS_APPS, "gcm": GCM_APPS} | {
    word: Setting(f"{word}.apps", List(), (), f"Apps that `{word}` serves.")
    for word in platforms.WORDS
    if word not in ("apns", "gcm")
}

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


def _queue(prefix: str, topics: str, topics_text: str) -> QueueSettings:
    reset_words = {"largest": "latest", "end": "latest", "smallest": "earliest", "beginning": "earliest"}
    return QueueSettings(
        topics=Setting(
            f"{prefix}.topics", List(), (topics,), f"{topics_text} A leading `^` marks a regular expression."
        ),
        brokers=Setting(
            f"{prefix}.brokers",
            Brokers(),
            "localhost:9092",
            "Kafka's bootstrap servers, or `sqlite:///path` for the embedded broker.",
        ),
        group=Setting(f"{prefix}.group", Text(empty=False), "test", "Consumer group."),
        session_timeout=Setting(
            f"{prefix}.sessionTimeout", Duration("ms", minimum_s=0.001), 6.0, "Kafka's session.timeout.ms."
        ),
        fetch_min_bytes=Setting(f"{prefix}.fetch.min.bytes", Int(1, unit="bytes"), 1, "Kafka's fetch.min.bytes."),
        fetch_wait_max=Setting(f"{prefix}.fetch.wait.max.ms", Duration("ms"), 0.1, "Kafka's fetch.max.wait.ms."),
        offset_reset_strategy=Setting(
            f"{prefix}.offsetResetStrategy",
            Choice("latest", "earliest", also=reset_words),
            "latest",
            "Where a group that is new starts. Topics that appear later are read from their beginning.",
        ),
        handle_all_messages_before_exiting=Setting(
            f"{prefix}.handleAllMessagesBeforeExiting",
            Bool(),
            default=True,
            text="At a stop, finish what was consumed; false: commit what is finished and leave the rest.",
        ),
        commit_interval=Setting(
            f"{prefix}.commitInterval", Duration("s", minimum_s=0.001), 0.5, "Time between commits of finished offsets."
        ),
        max_uncommitted=Setting(
            f"{prefix}.maxUncommitted",
            Int(1, 1_000_000, unit="offsets"),
            10_000,
            "How far a partition runs ahead of its lowest unfinished message before it is paused.",
        ),
        metadata_refresh=Setting(
            f"{prefix}.metadataRefresh", Duration("s", minimum_s=0.001), 30.0, "How often new topics are looked for."
        ),
        channel_size=unused(f"{prefix}.channelSize"),
    )


#: What the senders consume.
QUEUE = _queue(
    "queue", f"^push-.+_({platforms.PATTERN})[_-](single|massive)", "Consumed topics; others' platforms are left out."
)
#: What the feedback listener consumes.
LISTENER_QUEUE = _queue(
    "feedbackListeners.queue", f"^push-.+-({platforms.PATTERN})-feedbacks$", "Consumed feedback topics."
)
QUEUE_INVALID_TOPIC = Setting(
    "queue.invalidTopic",
    Topic(),
    "push-<game>-<platform>-invalid",
    'Where messages go that can never be sent; "" = nowhere.',
)

# --- what is published

FEEDBACK_REPORTERS = Setting("feedback.reporters", List("kafka"), (), "Where outcomes go: `kafka`, or nowhere.")
FEEDBACK_SUCCESSES = Setting(
    "feedback.successes", Bool(), default=True, text="Feed back successes too, not only failures."
)
FEEDBACK_BROKERS = Setting(
    "feedback.kafka.brokers", Brokers(), "localhost:9941", "Bootstrap servers for feedbacks, or `sqlite:///path`."
)
FEEDBACK_LINGER = Setting(
    "feedback.kafka.linger.ms", Duration("ms"), 0.02, "How long a feedback waits for others to be sent with."
)
FEEDBACK_BUFFER_KIB = Setting(
    "feedback.kafka.batch.size",
    Int(1, unit="KiB"),
    32_768,
    "Buffer for feedbacks that Kafka has not acknowledged; when it is full, consuming pauses.",
)
FEEDBACK_COMPRESSION = Setting(
    "feedback.kafka.compression",
    Choice("none", "gzip", "snappy", "lz4", "zstd"),
    "none",
    "Compression of feedbacks; none costs the least CPU time.",
)

# --- StatsD

STATS_REPORTERS = Setting("stats.reporters", List("statsd"), (), "Where metrics go: `statsd`, or nowhere.")
STATSD_HOST = Setting("stats.statsd.host", HostPort(8125), Address("localhost", 8125), "StatsD server (UDP).")
STATSD_PREFIX = Setting("stats.statsd.prefix", Text(), "test", "Put before every name, without a dot of its own.")
STATSD_FLUSH_INTERVAL = Setting(
    "stats.statsd.flushIntervalMs",
    Duration("ms", minimum_s=0.001),
    1.0,
    "Time between two flushes of the metrics.",
    aliases=("stats.statsd.flushIntervalInMs",),
)
STATS_FLUSH = Setting("stats.flush.s", Duration("s", minimum_s=0.001), 5.0, "Listener: period of its gauges.")

# --- the feedback listener

LISTENER_GRACEFUL_SHUTDOWN_TIMEOUT = Setting(
    "feedbackListeners.gracefulShutdownTimeout", Duration("s"), 1.0, "Longest time that the listener takes to stop."
)
LISTENER_INBOX_SIZE = Setting(
    "feedbackListeners.broker.invalidTokenChan.size",
    Int(1, unit="tokens"),
    1_000,
    "Dead tokens that wait for the deleter before consuming pauses.",
)
LISTENER_DELETES = Setting(
    "feedbackListeners.broker.invalidTokenEnabled", Bool(), default=True, text="false: read and confirm, never delete."
)
LISTENER_FLUSH_INTERVAL = Setting(
    "feedbackListeners.invalidToken.flush.time.ms",
    Duration("ms", minimum_s=0.001),
    5.0,
    "Longest time that a dead token waits for others to be deleted with.",
)
LISTENER_BUFFER_SIZE = Setting(
    "feedbackListeners.invalidToken.buffer.size", Int(1, unit="tokens"), 1_000, "Tokens that are deleted together."
)
_PG = "feedbackListeners.invalidToken.pg"
PG_HOST = Setting(f"{_PG}.host", Text(), "localhost", "Host of PostgreSQL.", aliases=("invalidToken.pg.host",))
PG_PORT = Setting(f"{_PG}.port", _PORT, 5432, "Port of PostgreSQL.", aliases=("invalidToken.pg.port",))
PG_USER = Setting(f"{_PG}.user", Text(), "", "User.", aliases=("invalidToken.pg.user",))
PG_PASSWORD = Setting(f"{_PG}.pass", Secret(), "", "Password.", aliases=("invalidToken.pg.pass",))
PG_DATABASE = Setting(f"{_PG}.database", Text(), "", "Database.", aliases=("invalidToken.pg.database",))
PG_POOL_SIZE = Setting(
    f"{_PG}.poolSize", Int(1, unit="connections"), 20, "Most connections.", aliases=("invalidToken.pg.poolSize",)
)
PG_CONNECTION_TIMEOUT = Setting(
    f"{_PG}.connectionTimeout",
    Duration("ms", minimum_s=0.001),
    5.0,
    "How long the database may take to answer at the start.",
    aliases=("invalidToken.pg.connectionTimeout",),
)
PG_STATEMENT_TIMEOUT = Setting(
    f"{_PG}.statementTimeout", Duration("s", minimum_s=0.001), 60.0, "Longest time that a DELETE may take."
)
PG_SSL_MODE = Setting(
    f"{_PG}.sslmode",
    Choice(
        "disable",
        "allow",
        "prefer",
        "require",
        "verify-ca",
        "verify-full",
        also={"true": "require", "false": "disable"},
    ),
    "prefer",
    "TLS as libpq names it; only the last two verify the certificate.",
    aliases=("invalidToken.pg.sslmode",),
)
PG_SSL_ROOT_CERT = Setting(
    f"{_PG}.sslrootcert", Path(), "", "PEM certificates that `verify-ca` and `verify-full` trust."
)
GUARD_ENABLED = Setting(
    "feedbackListeners.guard.enabled",
    Bool(),
    default=True,
    text="Stop deleting for reasons that a wrong set-up also causes when they become too frequent.",
)
GUARD_ACTION = Setting(
    "feedbackListeners.guard.action",
    Choice("hold", "drop"),
    "hold",
    "What becomes of feedbacks that the guard stops: published to `push-<game>-<platform>-held`, or dropped.",
)
GUARD_WINDOW = Setting("feedbackListeners.guard.window", Duration("s", minimum_s=1.0), 600.0, "Time that is looked at.")
GUARD_SHARE = Setting(
    "feedbackListeners.guard.share", Number(0, 1), 0.2, "Share of such refusals in all outcomes that is too much."
)
GUARD_MINIMUM = Setting(
    "feedbackListeners.guard.minimum", Int(1, unit="feedbacks"), 100, "Fewer refusals than this never stop deletion."
)
GUARD_SUCCESSES_EXPECTED = Setting(
    "feedbackListeners.guard.successesExpected",
    Bool(),
    default=True,
    text="Senders feed back successes too; false: without successes `guard.maximum` decides instead of the share.",
)
GUARD_MAXIMUM = Setting(
    "feedbackListeners.guard.maximum",
    Int(1, unit="feedbacks"),
    1_000,
    "Refusals in the window that are too many where the share cannot be taken.",
)
ARCHIVE_TABLE = Setting(
    "feedbackListeners.archive.table",
    Text(),
    "",
    'Table that keeps deleted rows, so that they can be restored; "" = none.',
)


def _declared() -> tuple[Setting[Any], ...]:
    """All settings of this module, in the order in which they stand here."""
    found: list[Setting[Any]] = []
    for value in globals().copy().values():
        if isinstance(value, Setting):
            found.append(value)
        elif isinstance(value, QueueSettings):
            found += vars(value).values()
    for word in platforms.WORDS:
        if word not in ("apns", "gcm"):
            found.append(APPS_OF[word])
            own = vars(importlib.import_module(f"{platforms.PACKAGES[word]}.settings"))
            found += [value for value in own.values() if isinstance(value, Setting)]
    return (*found, *UNUSED)


ALL: tuple[Setting[Any], ...] = _declared()
