"""Messages of librdkafka as records.

According to the library's types a message may lack its offset; this holds only for messages that are not stored yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Message

from pusher.broker.interface import Header
from pusher.broker.offsets import TopicPartition

_NO_TEXT = "\ufffd"


class ReceivedRecord:
    """A ``Record`` over the library's message. Headers, which few look at, are taken when they are asked for."""

    __slots__ = ("_headers", "_message", "offset", "partition", "timestamp", "topic", "value")

    def __init__(self, key: TopicPartition, message: Message) -> None:
        self.topic, self.partition = key
        self.offset: int = message.offset()  # type: ignore[assignment]
        self.value: bytes | None = message.value()
        kind, at_ms = message.timestamp()
        self.timestamp: int = at_ms if kind else -1
        self._message = message
        self._headers: Sequence[Header] | None = None

    @property
    def headers(self) -> Sequence[Header]:
        """Names and values, in order; a name that is no text is U+FFFD."""
        if self._headers is None:
            self._headers = _headers(self._message)
        return self._headers


def place(message: Message) -> TopicPartition:
    """Its topic and partition; those of an error that belongs to none are "" and some number."""
    return TopicPartition(message.topic() or "", message.partition() or 0)


def _headers(message: Message) -> Sequence[Header]:
    found: Any
    try:
        found = message.headers() or ()
    except SystemError:
        # The library could not decode a name. It keeps the list, with nothing at all in the place of the name, which
        # must not be touched: only the text of the pair shows it.
        pairs: Any = message.headers() or ()
        found = [(_NO_TEXT if repr(pair).startswith("(<NULL>,") else pair[0], pair[1]) for pair in pairs]
    return [(name, value or b"") for name, value in found]
