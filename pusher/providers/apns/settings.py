"""The settings of Apple's APNs: ``apns.*``."""

from __future__ import annotations

from pusher.config.schema import (
    AppSetting,
    BundleId,
    CredentialsText,
    Duration,
    Host,
    Int,
    Path,
    ProxyUrl,
    Secret,
    Setting,
    Word,
    unused,
)

AUTH_KEY_PATH = AppSetting(
    "apns.certs.<app>.authKeyPath",
    CredentialsText(),
    "",
    "Apple's .p8 key: its path, its text, or the base64 of the file.",
)
KEY_ID = AppSetting("apns.certs.<app>.keyID", Word(), "", "Id of the .p8 key, ten characters.")
TEAM_ID = AppSetting("apns.certs.<app>.teamID", Word(), "", "Id of the team at Apple, ten characters.")
TOPIC = AppSetting("apns.certs.<app>.topic", BundleId(), "", "Bundle id of the app, sent as `apns-topic`.")
CERT_PATH = AppSetting(
    "apns.certs.<app>.certPath",
    CredentialsText(),
    "",
    "Client certificate instead of a .p8 key: .pem with its key, or .p12; path, text or base64.",
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
    'Host that `pusher channels` asks; "" = `api-manage-broadcast.push.apple.com` with `--production`, else '
    "`api-manage-broadcast.sandbox.push.apple.com`.",
)
CHANNELS_PORT = Setting("apns.channels.port", Int(0, 65_535), 0, "Its port; 0 = 2196 with `--production`, else 2195.")
PROXY = Setting("apns.proxy", ProxyUrl(), "", "Proxy (HTTP CONNECT) to Apple; empty: none.")
CA_FILE = Setting("apns.caFile", Path(), "", "PEM certificates trusted besides the system's.")
CRL_FILE = Setting("apns.crlFile", Path(), "", "PEM revocation lists; with `apns.caFile` only.")
CONCURRENT_WORKERS = Setting(
    "apns.concurrentWorkers", Int(1, unit="requests"), 10, "Requests in flight at once, for each app."
)
CONNECTION_POOL_SIZE = Setting("apns.connectionPoolSize", Int(1, unit="connections"), 1, "Links of each app.")
PUSH_QUEUE_SIZE = Setting(
    "apns.pushQueueSize",
    Int(1, unit="pushes"),
    2_000,
    "Pushes of an app that wait to be sent, retries included, from which on its partitions are paused.",
)
REQUEST_TIMEOUT = Setting(
    "apns.requestTimeout", Duration("s", minimum_s=0.001), 60.0, "Longest wait for an answer; then the push is retried."
)
CONNECT_TIMEOUT = Setting(
    "apns.connectTimeout", Duration("s", minimum_s=0.001), 10.0, "Longest time that a connection may take to stand."
)
RECONNECT_INTERVAL = Setting(
    "apns.reconnect.interval", Duration("s", minimum_s=0.001), 1.0, "First wait before connecting again; it doubles."
)
RECONNECT_MAX_INTERVAL = Setting(
    "apns.reconnect.maxInterval", Duration("s", minimum_s=0.001), 60.0, "Longest wait before connecting again."
)
RETRY_INTERVAL = Setting(
    "apns.retry.interval", Duration("s"), 1.0, "First wait before a retry; it doubles, with jitter, up to 60 s."
)
RETRY_MAX_ATTEMPTS = Setting(
    "apns.retry.maxAttempts",
    Int(1, unit="sends"),
    3,
    "Sends of a push that Apple answers with 429 TooManyRequests, the first included.",
    aliases=("apns.retry.maxRetryAttempts",),
)
RETRY_MAX_ELAPSED = Setting(
    "apns.retry.maxElapsed",
    Duration("s"),
    3_600.0,
    "After 500, 503, a time-out or a lost connection: no retry later than this after the first send.",
)

#: Keys of earlier files that have no meaning here.
UNUSED = (
    unused("feedback.cache.requestTimeout", text="Accepted, no effect: see `apns.requestTimeout`."),
    unused("apns.responseChannelSize"),
)
