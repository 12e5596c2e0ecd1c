"""Which record a push comes from: that of its first sending, however often it was replayed."""

from __future__ import annotations

from pusher.broker.interface import Record

#: Header of a replayed record: ``topic/partition/offset/timestamp`` of the record that was sent first.
ORIGIN_HEADER = "pusher-origin"
#: Header of a record in an invalid topic, and of what is replayed from there.
SOURCE_TOPIC_HEADER = "source-topic"


def origin(record: Record) -> str:
    """``topic/partition/offset/timestamp`` of the record sent first: a replayed one keeps that of its source."""
    for name, value in record.headers or ():
        if name == ORIGIN_HEADER and value:
            return value.decode("utf-8", "replace")
    return f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"
