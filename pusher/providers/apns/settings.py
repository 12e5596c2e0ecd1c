"""The settings of Apple's APNs: ``apns.*``."""

from __future__ import annotations

from pusher.config.addresses import BundleId, Host, ProxyUrl
from pusher.config.kinds import CredentialsText, Duration, Int, Path, Secret, Word
from pusher.config.schema import AppSetting, Setting, unused

AUTH_KEY_PATH = AppSetting(
    "apns.certs.<app>.authKeyPath",
    CredentialsText(),
    "",
    "Apple's .p8 key: its path, its text, or the base64 of the file.",
)
KEY_ID = AppSetting("apns.certs.<app>.keyID", Word(), "", "Id of the .p8 key, ten characters.")
TEAM_ID = AppSetting("apns.certs.<app>.teamID", Word(), "", "Id of the Apple developer team, ten characters.")
TOPIC = AppSetting("apns.certs.<app>.topic", BundleId(), "", "Bundle id of the app, sent as `apns-topic`.")
CERT_PATH = AppSetting(
    "apns.certs.<app>.certPath",
    CredentialsText(),
    "",
    "Client certificate, used instead of a .p8 key: a .pem with its key, or a .p12; as path, text or base64.",
    aliases=("apns.certs.<app>",),
)
CERT_PASSWORD = AppSetting("apns.certs.<app>.certPassword", Secret(), "", "Password of the certificate's key.")
HOST = Setting(
    "apns.host",
    Host(),
    "",
    'Host of APNs; "" = `api.push.apple.com` with `--production`, else `api.sandbox.push.apple.com`.',
)
PORT = Setting("apns.port", Int(1, 65_535), 443, "Port of APNs (Apple also answers at 2197).")
CHANNELS_HOST = Setting(
    "apns.channels.host",
    Host(),
    "",
    'Host that `pusher channels` connects to; "" = `api-manage-broadcast.push.apple.com` with `--production`, else '
    "`api-manage-broadcast.sandbox.push.apple.com`.",
)
CHANNELS_PORT = Setting(
    "apns.channels.port",
    Int(0, 65_535),
    0,
    "Port that `pusher channels` connects to; 0 = 2196 with `--production`, else 2195.",
)
PROXY = Setting("apns.proxy", ProxyUrl(), "", "HTTP CONNECT proxy for connections to Apple; empty: no proxy.")
CA_FILE = Setting("apns.caFile", Path(), "", "File of PEM certificates that are trusted in addition to the system's.")
CRL_FILE = Setting("apns.crlFile", Path(), "", "File of PEM revocation lists; needs `apns.caFile`.")
CONCURRENT_WORKERS = Setting(
    "apns.concurrentWorkers", Int(1, unit="requests"), 10, "Maximum requests in flight for each app."
)
CONNECTION_POOL_SIZE = Setting(
    "apns.connectionPoolSize", Int(1, unit="connections"), 1, "Connections (links) of each app."
)
PUSH_QUEUE_SIZE = Setting(
    "apns.pushQueueSize",
    Int(1, unit="pushes"),
    2_000,
    "When this many pushes of an app wait to be sent, retries included, its partitions are paused.",
)
REQUEST_TIMEOUT = Setting(
    "apns.requestTimeout",
    Duration("s", minimum_s=0.001),
    60.0,
    "Time limit for an answer; after it the push is retried.",
)
CONNECT_TIMEOUT = Setting(
    "apns.connectTimeout", Duration("s", minimum_s=0.001), 10.0, "Time limit for establishing a connection."
)
RECONNECT_INTERVAL = Setting(
    "apns.reconnect.interval",
    Duration("s", minimum_s=0.001),
    1.0,
    "Wait before the first reconnection attempt; it doubles with each attempt.",
)
RECONNECT_MAX_INTERVAL = Setting(
    "apns.reconnect.maxInterval", Duration("s", minimum_s=0.001), 60.0, "Longest wait between reconnection attempts."
)
RETRY_INTERVAL = Setting(
    "apns.retry.interval",
    Duration("s"),
    1.0,
    "Wait before the first retry; it doubles with each retry, with jitter, up to 60 s.",
)
RETRY_MAX_ATTEMPTS = Setting(
    "apns.retry.maxAttempts",
    Int(1, unit="sends"),
    3,
    "Maximum attempts, including the first, for a push that Apple answers with 429 TooManyRequests.",
    aliases=("apns.retry.maxRetryAttempts",),
)
RETRY_MAX_ELAPSED = Setting(
    "apns.retry.maxElapsed",
    Duration("s"),
    3_600.0,
    "After 500, 503, a time-out or a lost connection: a push is not retried later than this after its first attempt.",
)

#: Keys of earlier files that have no meaning here.
UNUSED = (
    unused("feedback.cache.requestTimeout", text="Accepted, no effect: see `apns.requestTimeout`."),
    unused("apns.responseChannelSize"),
)
