"""Figures that are not accumulated: they are read from the process when Prometheus asks for them.

The admin port shows them beside the metrics of ``metrics.py``; StatsD does not get them. docs/metrics.md is made from
here too.
"""

from __future__ import annotations

from pusher.telemetry.metrics import Metric

_APP = ("platform", "game")
_PARTITION = (*_APP, "topic", "partition")

# --- the process

INFO = Metric("info", "gauge", ("command", "version", "hostname"), "Always 1; the labels describe this process.")
READY = Metric("ready", "gauge", (), "1 when the process can do all its work, else 0; /readyz says why.")
ALIVE = Metric("alive", "gauge", (), "1 while all required greenlets run, else 0; /healthz says which one died.")

# --- Kafka

CONSUMER_LAG = Metric(
    "consumer_lag",
    "gauge",
    _PARTITION,
    "Messages of an owned partition, from the lowest unfinished one to the end of the partition.",
)
OLDEST_UNFINISHED = Metric(
    "oldest_unfinished_seconds", "gauge", _PARTITION, "Time since the oldest unfinished message was read."
)
POLL_AGE = Metric("poll_age_seconds", "gauge", (), "Time since the process last polled Kafka for messages.")
OUT_OF_RANGE = Metric("positions_out_of_range", "count", (), "Positions that Kafka no longer had: messages were lost.")
PUBLISHER_PENDING = Metric("publisher_pending", "gauge", ("broker",), "Records that Kafka has not acknowledged.")

# --- senders: consumed = sum of outcomes + in_hand + dropped

CONSUMED = Metric("consumed", "count", _APP, "Messages read.")
OUTCOMES = Metric(
    "outcomes",
    "count",
    (*_APP, "outcome"),
    "Messages by outcome: delivered, rejected, failed, expired, invalid, limited.",
)
IN_HAND = Metric("in_hand", "gauge", _APP, "Messages that were read and have no outcome yet.")
DROPPED = Metric("dropped", "count", _APP, "Unfinished messages that were left to the next owner of their partition.")
INBOX = Metric("inbox", "gauge", _APP, "Pushes that wait to be sent for the first time.")
RETRIES_WAITING = Metric("retries_waiting", "gauge", _APP, "Pushes that wait for their retry.")
IN_FLIGHT = Metric("in_flight", "gauge", _APP, "Requests without an answer.")
LINKS = Metric("links", "gauge", _APP, "Open connections to the provider that take pushes.")
APP_READY = Metric("app_ready", "gauge", _APP, "1 when pushes of the app can be sent and fed back now, else 0.")
CREDENTIALS_REFUSED = Metric(
    "credentials_refused", "gauge", _APP, "1 while the provider refuses the app's credentials, else 0."
)
PACE = Metric(
    "pace_per_second",
    "gauge",
    _APP,
    "Pushes per second that the pace allows now, for all apps of the Firebase project; 0 while its quota is used up.",
)
QUOTA = Metric(
    "quota_per_second",
    "gauge",
    _APP,
    "Pushes per second that the provider accepted from this process between the last two refills of its quota.",
)
PROVIDER_TOKEN_AGE = Metric(
    "provider_token_age_seconds", "gauge", _APP, "Age of the authentication token that is sent to Apple."
)
CERTIFICATE_EXPIRY = Metric(
    "certificate_expiry_days",
    "gauge",
    _APP,
    "Days until the app's client certificate expires; negative: days since it expired.",
)

# --- the feedback listener

FEEDBACKS = Metric("feedbacks", "count", _APP, "Feedbacks read.")
TOKENS_BUFFERED = Metric("tokens_buffered", "gauge", _APP, "Dead tokens that wait for the next DELETE.")
TOKENS_DELETING = Metric("tokens_deleting", "gauge", _APP, "Dead tokens whose DELETE is running or is being retried.")
HOLDING = Metric("holding", "gauge", _APP, "Feedbacks on their way to the held topic.")
DELETES_BLOCKED = Metric("deletes_blocked", "gauge", _APP, "1 while tokens of the game cannot be deleted, else 0.")
GUARD_STOPPING = Metric("guard_stopping", "gauge", _APP, "1 while the guard stops deletions, else 0.")

ALL: tuple[Metric, ...] = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
