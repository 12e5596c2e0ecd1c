"""The record that a push originally comes from, however often it was replayed.

Ids are derived from it, so a producer should not choose it. It counts only together with a second header that binds it
to the value; replay and the sender write both. A header that a producer copies to another message is ignored. This is
not a signature: a writer to the topics of an app who invents both headers can choose the ids of that app's own pushes.
"""

from __future__ import annotations

import hashlib

from pusher.broker.interface import Header, Record

#: Header of a replayed record: ``topic/partition/offset/timestamp`` of the record that was sent first.
ORIGIN_HEADER = "pusher-origin"
#: Binds the origin to the value of the record that it stands in.
BINDING_HEADER = "pusher-origin-binding"
#: Header of a record in an invalid topic, and of what is replayed from there.
SOURCE_TOPIC_HEADER = "source-topic"


def origin(record: Record) -> str:
    """``topic/partition/offset/timestamp`` of the record sent first: a replayed one keeps that of its source."""
    if record.headers:
        headers = dict(record.headers)
        given = headers.get(ORIGIN_HEADER)
        if given and headers.get(BINDING_HEADER) == _binding(given, record.value):
            return given.decode("utf-8", "replace")
    return f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"


def has_origin(record: Record) -> bool:
    """Whether a record carries the origin of another."""
    return origin(record) != f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"


def origin_headers(source: str, value: bytes) -> list[Header]:
    """The headers of a copy with this value, from which ``origin`` reads where it comes from."""
    given = source.encode()
    return [(ORIGIN_HEADER, given), (BINDING_HEADER, _binding(given, value))]


def _binding(given: bytes, value: bytes | None) -> bytes:
    digest = hashlib.blake2b(given, digest_size=16, person=b"pusher-origin")
    digest.update(b"\0" + (value or b""))
    return digest.hexdigest().encode()
