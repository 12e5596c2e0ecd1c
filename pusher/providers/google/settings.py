"""The settings of Google, over FCM HTTP v1 and XMPP: ``gcm.*``."""

from __future__ import annotations

from pusher.config.schema import (
    AppSetting,
    CredentialsText,
    Duration,
    Host,
    Int,
    Path,
    ProxyUrl,
    Secret,
    Setting,
    Text,
    Url,
    unused,
)

FIREBASE_CREDENTIALS = AppSetting(
    "gcm.firebaseCredentials.<app>",
    CredentialsText(),
    "",
    "Google credentials: JSON text, base64 of it, the path of its file, or `application-default`: the app is served "
    "through FCM HTTP v1.",
)
FCM_PROJECT_ID = AppSetting(
    "gcm.fcm.projectId.<app>",
    Text(),
    "",
    "Firebase project of the app, where its credentials do not name it.",
)
API_KEY = AppSetting("gcm.certs.<app>.apiKey", Secret(), "", "Server key: the app is served through XMPP.")
SENDER_ID = AppSetting("gcm.certs.<app>.senderID", Text(), "", "Sender id that belongs to the server key.")
PUSH_QUEUE_SIZE = Setting("gcm.pushQueueSize", Int(1, unit="pushes"), 2_000, "As `apns.pushQueueSize`.")
XMPP_HOST = Setting("gcm.xmpp.host", Host(empty=False), "fcm-xmpp.googleapis.com", "Host of the XMPP service.")
XMPP_PORT = Setting(
    "gcm.xmpp.port", Int(0, 65_535), 0, "Port of the XMPP service; 0 = 5235 with `--production`, else 5236."
)
XMPP_CA_FILE = Setting("gcm.xmpp.caFile", Path(), "", "PEM certificates trusted besides the system's.")
XMPP_CRL_FILE = Setting("gcm.xmpp.crlFile", Path(), "", "PEM revocation lists; with `gcm.xmpp.caFile` only.")
PING_INTERVAL = Setting("gcm.pingInterval", Duration("s", minimum_s=0.001), 20.0, "XMPP: time between pings.")
PING_TIMEOUT = Setting(
    "gcm.pingTimeout", Duration("s", minimum_s=0.001), 30.0, "XMPP: longest wait for a pong; then the link is replaced."
)
MAX_PENDING_MESSAGES = Setting(
    "gcm.maxPendingMessages",
    Int(1, unit="messages"),
    100,
    "XMPP: unacknowledged messages a connection; Google admits 100.",
)
ACK_TIMEOUT = Setting(
    "gcm.ackTimeout", Duration("s", minimum_s=0.001), 60.0, "XMPP: longest wait for an answer; then it is retried."
)
RECONNECT_INTERVAL = Setting(
    "gcm.reconnect.interval", Duration("s", minimum_s=0.001), 1.0, "First wait before connecting again; it doubles."
)
RECONNECT_MAX_INTERVAL = Setting(
    "gcm.reconnect.maxInterval", Duration("s", minimum_s=0.001), 60.0, "Longest wait before connecting again."
)
RETRY_MAX_ATTEMPTS = Setting("gcm.retry.maxAttempts", Int(1, unit="sends"), 5, "XMPP: sends of a push in all.")
RETRY_INTERVAL = Setting("gcm.retry.interval", Duration("s"), 1.0, "XMPP: first wait before a retry; it doubles.")
CONCURRENT_WORKERS = Setting(
    "gcm.concurrentWorkers", Int(1, unit="requests"), 100, "FCM: requests in flight at once, for each app."
)
PROXY = Setting(
    "gcm.proxy",
    ProxyUrl(),
    "",
    "Proxy (HTTP CONNECT) to FCM, token endpoints and XMPP; empty: what HTTPS_PROXY and NO_PROXY say.",
)
FCM_ENDPOINT = Setting("gcm.fcm.endpoint", Url(), "https://fcm.googleapis.com", "Address of FCM HTTP v1.")
FCM_CA_FILE = Setting("gcm.fcm.caFile", Path(), "", "PEM certificates trusted besides the system's.")
FCM_CRL_FILE = Setting("gcm.fcm.crlFile", Path(), "", "PEM revocation lists; with `gcm.fcm.caFile` only.")
FCM_CONNECTION_POOL_SIZE = Setting("gcm.fcm.connectionPoolSize", Int(1, unit="connections"), 1, "Links of each app.")
FCM_REQUEST_TIMEOUT = Setting(
    "gcm.fcm.requestTimeout", Duration("s", minimum_s=0.001), 60.0, "Longest wait for an answer; then it is retried."
)
FCM_MAX_RATE = Setting(
    "gcm.fcm.maxRate",
    Int(0, unit="pushes a minute"),
    600_000,
    "FCM: sends of each Firebase project, in each process; they grow to it in the first minute. 0 = neither.",
)
FCM_RETRY_MAX_ATTEMPTS = Setting("gcm.fcm.retry.maxAttempts", Int(1, unit="sends"), 5, "FCM: sends of a push in all.")
FCM_RETRY_INTERVAL = Setting(
    "gcm.fcm.retry.interval", Duration("s"), 10.0, "FCM: first wait before a retry; it doubles, with jitter."
)
FCM_RETRY_MAX_ELAPSED = Setting(
    "gcm.fcm.retry.maxElapsed", Duration("s"), 3_600.0, "FCM: no retry later than this after the first send."
)

#: Keys of earlier files that have no meaning here.
UNUSED = (unused("gcm.client.initialization.retries", text="Accepted, no effect: connecting is retried for ever."),)
