"""What is fuzzed, in one place. A new target is one row, its seeds and its corpus follow."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.fuzz import (
    answers,
    checks,
    configuration,
    feedbacks,
    http2_hostile,
    http2_legal,
    json_mutations,
    push_messages,
    xmpp,
)

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """Something that reads bytes: ``run`` raises when an input shows a fault."""

    run: Callable[[bytes], None]
    #: The modules whose coverage tells how far the fuzzing has come.
    modules: tuple[str, ...]
    #: Share of the time when all are run.
    weight: int = 1
    max_octets: int = 4_096
    #: Changes an input in a way that keeps its structure.
    mutate: Mutate | None = None
    #: Calls of functions that an input may cost, beside some for each of its octets: work is counted, not timed.
    calls: int = 10_000


KINDS = ("pusher.config.schema", "pusher.config.kinds", "pusher.config.addresses")
HTTP2 = (
    "pusher.providers.http2.connection",
    "pusher.providers.http2.inbound",
    "pusher.providers.http2.outbound",
    "pusher.providers.http2.header_block",
)
JSON = json_mutations.mutate
JSON_AFTER_OCTET = json_mutations.mutate_after_octet

TARGETS: Mapping[str, Target] = {
    "apns-message": Target(
        push_messages.apns, ("pusher.providers.apns.message", "pusher.push.fields"), 3, mutate=JSON_AFTER_OCTET
    ),
    "gcm-message": Target(
        push_messages.gcm, ("pusher.providers.google.xmpp.message", "pusher.push.fields"), 2, mutate=JSON_AFTER_OCTET
    ),
    "fcm-message": Target(
        push_messages.fcm,
        ("pusher.providers.google.fcm.message", "pusher.providers.google.xmpp.message"),
        3,
        mutate=JSON_AFTER_OCTET,
    ),
    "replay": Target(push_messages.replay, ("pusher.commands.replay.message",), mutate=JSON_AFTER_OCTET),
    "topics": Target(push_messages.names, ("pusher.push.topics",), max_octets=300),
    "feedback": Target(feedbacks.sorter, ("pusher.listener.sorter",), 2, mutate=JSON_AFTER_OCTET),
    "commit": Target(feedbacks.ranges, ("pusher.broker.offsets",)),
    "partition": Target(feedbacks.partition, ("pusher.broker.offsets",), 2, 1_024),
    "apns-answer": Target(
        answers.apns, ("pusher.providers.apns.reasons", "pusher.push.feedback"), mutate=JSON_AFTER_OCTET
    ),
    "fcm-answer": Target(
        answers.fcm, ("pusher.providers.google.fcm.errors", "pusher.push.feedback"), mutate=JSON_AFTER_OCTET
    ),
    "gcm-answer": Target(answers.xmpp, ("pusher.providers.google.xmpp.errors", "pusher.push.feedback"), mutate=JSON),
    "retry-after": Target(answers.retry_after, ("pusher.push.retry",), max_octets=200),
    "token-answer": Target(
        answers.token, ("pusher.providers.google.fcm.access_token", "pusher.providers.http1"), 2, calls=60_000
    ),
    "account": Target(
        answers.account,
        ("pusher.providers.google.fcm.credentials", "pusher.providers.google.fcm.token_source"),
        mutate=JSON,
        calls=60_000,
    ),
    "http2-octets": Target(http2_hostile.octets, HTTP2, 4, mutate=http2_hostile.mutate, calls=40_000),
    "http2-frames": Target(http2_hostile.frames, HTTP2, 4, calls=400_000),
    "http2-legal": Target(http2_legal.meeting, HTTP2, 4, calls=150_000),
    "xmpp": Target(
        xmpp.session,
        (
            "pusher.providers.google.xmpp.engine",
            "pusher.providers.google.xmpp.link",
            "pusher.providers.google.xmpp.window",
        ),
        3,
        16_384,
        calls=60_000,
    ),
    "config-file": Target(configuration.text, ("pusher.config.file", "pusher.config.loader"), 2, calls=300_000),
    "config-values": Target(configuration.values, (*KINDS, "pusher.config.unread"), 2, calls=300_000),
    "config-setting": Target(configuration.one, KINDS, max_octets=300, calls=300_000),
    "check": Target(checks.command, ("pusher.commands.check", *KINDS, "pusher.config.loader"), 3, calls=1_000_000),
}
