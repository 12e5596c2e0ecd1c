"""Every metric, once: name, kind, tags in their order, meaning. docs/metrics.md is made from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["count", "gauge", "timing"]


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric. Timings are in milliseconds."""

    name: str
    kind: Kind
    tags: tuple[str, ...]
    text: str


_APP = ("platform", "game")
_TOKENS = ("hostname", "game", "platform")

# --- senders

SENT = Metric("sent", "count", (*_APP, "topic"), "Pushes handed to a link; a retry does not count again.")
ACK = Metric("ack", "count", _APP, "Pushes that the provider accepted.")
FAILED = Metric("failed", "count", (*_APP, "reason"), "Pushes that the provider refused, or that could not be sent.")
EXPIRED = Metric("expired", "count", _APP, "Pushes whose expiry passed before they were sent.")
INVALID = Metric(
    "invalid",
    "count",
    (*_APP, "reason"),
    "Messages that can never be sent; for the listener: feedbacks that cannot be read.",
)
INVALID_UNPUBLISHED = Metric(
    "invalid_unpublished",
    "count",
    _APP,
    "Messages that can never be sent and that Kafka did not accept for the invalid topic.",
)
RETRIED = Metric("retried", "count", (*_APP, "reason"), "Pushes scheduled for a retry.")
INITIALIZE_FAILURE = Metric("initialize_failure", "count", _APP, "Apps that could not be set up.")
SEND_NOTIFICATION_LATENCY = Metric(
    "send_notification_latency", "timing", (*_APP, "client"), "Time from handing a push to a link to its final answer."
)
FIREBASE_LATENCY = Metric("firebase_latency", "timing", ("game",), "Time from a request to Firebase to its answer.")
QUEUE_LATENCY = Metric(
    "queue_latency", "timing", _APP, "Time from a message's timestamp in Kafka to handing it to a link."
)
RATE_LIMIT_REACHED = Metric(
    "rate_limit_reached",
    "count",
    _APP,
    "Pushes that were not sent because their device had reached its limit for the minute.",
)
RATE_LIMIT_FAILED = Metric(
    "rate_limit_failed",
    "count",
    _APP,
    "Pushes that were sent without being counted because Redis could not be reached.",
)
DUPLICATED_MESSAGES = Metric(
    "duplicated_messages", "count", _TOKENS, "Duplicates that were found, whether they were sent or dropped."
)
DEDUP_ERRORS = Metric(
    "dedup_errors", "count", _TOKENS, "Pushes that were not checked for duplicates because Redis could not be reached."
)
OFFSET_OUT_OF_RANGE = Metric(
    "offset_out_of_range",
    "count",
    ("topic",),
    "Partitions whose committed offset no longer existed in Kafka: messages were lost.",
)

START_SKIPPED = Metric(
    "start_skipped",
    "count",
    ("topic",),
    "Messages that were skipped because the group was new and started at the latest offset.",
)

# --- the process

NUM_GOROUTINE = Metric("num_goroutine", "gauge", ("hostname",), "Number of greenlets.")
ALLOCATED_NOT_FREED = Metric("allocated_not_freed", "gauge", ("hostname",), "Resident memory in bytes.")
HEAP_OBJECTS = Metric("heap_objects", "gauge", ("hostname",), "Number of memory blocks that Python has allocated.")
NEXT_GC_BYTES = Metric("next_gc_bytes", "gauge", ("hostname",), "Highest resident memory so far in bytes.")

HUB_HELD = Metric("hub_held", "count", ("hostname",), "Times that one greenlet blocked all others for longer than 1 s.")

# --- the feedback listener

FEEDBACK_LISTENER_RESTART = Metric("feedback_listener_restart", "count", ("hostname",), "Starts of the listener.")
QUEUE_OUT_CHANNEL = Metric("queue_out_channel", "gauge", ("hostname",), "Feedbacks that wait to be processed.")
BROKER_IN_CHANNEL = Metric("broker_in_channel", "gauge", ("hostname",), "The same as `queue_out_channel`.")
BROKER_INVALID_TOKEN_CHANNEL = Metric(
    "broker_invalid_token_channel", "gauge", ("hostname",), "Dead tokens that wait for the deleter."
)
INVALID_TOKEN_HANDLER_BUFFER = Metric(
    "invalid_token_handler_buffer", "gauge", ("hostname",), "Dead tokens that wait for the next DELETE."
)
TOKENS_DELETE_SUCCESS = Metric("tokens_delete_success", "count", _TOKENS, "Rows that were deleted.")
TOKENS_DELETE_ERROR = Metric(
    "tokens_delete_error",
    "count",
    _TOKENS,
    "Tokens that could not be deleted; a token counts once for each failed attempt.",
)
TOKENS_DELETE_NONEXISTENT = Metric("tokens_delete_nonexistent", "count", _TOKENS, "Tokens that had no row.")
GUARD_STOPPED = Metric("guard_stopped", "count", _TOKENS, "Times that the guard stopped deletion.")
GUARD_HELD = Metric("guard_held", "count", _TOKENS, "Feedbacks that the guard put into the held topic.")
GUARD_DROPPED = Metric("guard_dropped", "count", _TOKENS, "Feedbacks that the guard dropped.")

ALL: tuple[Metric, ...] = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
