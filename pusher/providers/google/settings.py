"""The settings of Google, over FCM HTTP v1 and XMPP: ``gcm.*``."""

from __future__ import annotations

from pusher.config.addresses import Host, ProxyUrl, Url
from pusher.config.kinds import CredentialsText, Duration, Int, Path, Secret, Text
from pusher.config.schema import AppSetting, Setting, unused

FIREBASE_CREDENTIALS = AppSetting(
    "gcm.firebaseCredentials.<app>",
    CredentialsText(),
    "",
    "Google credentials: JSON text, its base64, the path of its file, or `application-default`. With credentials the "
    "app is served through FCM HTTP v1.",
)
FCM_PROJECT_ID = AppSetting(
    "gcm.fcm.projectId.<app>",
    Text(),
    "",
    "Firebase project of the app, if its credentials do not name it.",
)
API_KEY = AppSetting(
    "gcm.certs.<app>.apiKey",
    Secret(),
    "",
    "Server key; the app is served through XMPP if it has no `gcm.firebaseCredentials`.",
)
SENDER_ID = AppSetting("gcm.certs.<app>.senderID", Text(), "", "Sender id that belongs to the server key.")
PUSH_QUEUE_SIZE = Setting(
    "gcm.pushQueueSize",
    Int(1, unit="pushes"),
    2_000,
    "When this many pushes of an app wait to be sent, retries included, its partitions are paused.",
)
XMPP_HOST = Setting("gcm.xmpp.host", Host(empty=False), "fcm-xmpp.googleapis.com", "Host of the XMPP service.")
XMPP_PORT = Setting(
    "gcm.xmpp.port", Int(0, 65_535), 0, "Port of the XMPP service; 0 = 5235 with `--production`, else 5236."
)
XMPP_CA_FILE = Setting(
    "gcm.xmpp.caFile", Path(), "", "File of PEM certificates that are trusted in addition to the system's."
)
XMPP_CRL_FILE = Setting("gcm.xmpp.crlFile", Path(), "", "File of PEM revocation lists; needs `gcm.xmpp.caFile`.")
PING_INTERVAL = Setting("gcm.pingInterval", Duration("s", minimum_s=0.001), 20.0, "XMPP: time between pings.")
PING_TIMEOUT = Setting(
    "gcm.pingTimeout",
    Duration("s", minimum_s=0.001),
    30.0,
    "XMPP: time limit for a pong; after it the link is replaced.",
)
MAX_PENDING_MESSAGES = Setting(
    "gcm.maxPendingMessages",
    Int(1, unit="messages"),
    100,
    "XMPP: maximum unacknowledged messages per connection; Google allows 100.",
)
ACK_TIMEOUT = Setting(
    "gcm.ackTimeout",
    Duration("s", minimum_s=0.001),
    60.0,
    "XMPP: time limit for an answer; after it the push is retried.",
)
RECONNECT_INTERVAL = Setting(
    "gcm.reconnect.interval",
    Duration("s", minimum_s=0.001),
    1.0,
    "Wait before the first reconnection attempt; it doubles with each attempt.",
)
RECONNECT_MAX_INTERVAL = Setting(
    "gcm.reconnect.maxInterval", Duration("s", minimum_s=0.001), 60.0, "Longest wait between reconnection attempts."
)
RETRY_MAX_ATTEMPTS = Setting(
    "gcm.retry.maxAttempts", Int(1, unit="sends"), 5, "XMPP: maximum attempts for a push, including the first."
)
RETRY_INTERVAL = Setting(
    "gcm.retry.interval", Duration("s"), 1.0, "XMPP: wait before the first retry; it doubles with each retry."
)
CONCURRENT_WORKERS = Setting(
    "gcm.concurrentWorkers", Int(1, unit="requests"), 100, "FCM: maximum requests in flight for each app."
)
PROXY = Setting(
    "gcm.proxy",
    ProxyUrl(),
    "",
    "HTTP CONNECT proxy for FCM, token endpoints and XMPP; empty: HTTPS_PROXY and NO_PROXY decide.",
)
FCM_ENDPOINT = Setting("gcm.fcm.endpoint", Url(), "https://fcm.googleapis.com", "Address of FCM HTTP v1.")
FCM_CA_FILE = Setting(
    "gcm.fcm.caFile", Path(), "", "File of PEM certificates that are trusted in addition to the system's."
)
FCM_CRL_FILE = Setting("gcm.fcm.crlFile", Path(), "", "File of PEM revocation lists; needs `gcm.fcm.caFile`.")
FCM_CONNECTION_POOL_SIZE = Setting(
    "gcm.fcm.connectionPoolSize", Int(1, unit="connections"), 1, "Connections (links) of each app."
)
FCM_REQUEST_TIMEOUT = Setting(
    "gcm.fcm.requestTimeout",
    Duration("s", minimum_s=0.001),
    60.0,
    "Time limit for an answer; after it the push is retried.",
)
FCM_MAX_RATE = Setting(
    "gcm.fcm.maxRate",
    Int(0, unit="pushes a minute"),
    600_000,
    "FCM: maximum rate for each Firebase project in each process. The rate grows to this limit during the first "
    "minute. 0 = no limit and no growth phase.",
)
FCM_RETRY_MAX_ATTEMPTS = Setting(
    "gcm.fcm.retry.maxAttempts", Int(1, unit="sends"), 5, "FCM: maximum attempts for a push, including the first."
)
FCM_RETRY_INTERVAL = Setting(
    "gcm.fcm.retry.interval",
    Duration("s"),
    10.0,
    "FCM: wait before the first retry; it doubles with each retry, with jitter.",
)
FCM_RETRY_MAX_ELAPSED = Setting(
    "gcm.fcm.retry.maxElapsed",
    Duration("s"),
    3_600.0,
    "FCM: a push is not retried later than this after its first attempt.",
)

#: Keys of earlier files that have no meaning here.
UNUSED = (unused("gcm.client.initialization.retries", text="Accepted, no effect: pusher reconnects without limit."),)
