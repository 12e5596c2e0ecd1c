"""Connections to Redis whose answers cost a bounded share.

redis-py reads as long as the server writes, and believes what it says: a port that is none of Redis's, or a server that
has gone mad, would hold up the whole process, fill its memory, or end a greenlet with an error of any kind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import redis
from redis import connection as library

#: Of an answer: a digit for each push, or the map of a cluster.
MAX_ANSWER_BYTES = 1_048_576
#: Others get their turn after so long.
_SLICE_S = 0.005


class _BoundedSocket:
    """A socket that lets others run between its reads, and fails after too many octets since the last request."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._octets = 0
        self._turn_ends = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        """A request."""
        self._octets = 0
        self._turn_ends = time.monotonic() + _SLICE_S
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        """Raises ``OSError`` after too much."""
        data: bytes = self._sock.recv(size)
        self._count(len(data))
        return data

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        """The same, for the parser in C."""
        size: int = self._sock.recv_into(buffer, *arguments)
        self._count(size)
        return size

    def _count(self, octets: int) -> None:
        self._octets += octets
        if self._octets > MAX_ANSWER_BYTES:
            raise OSError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() >= self._turn_ends:
            gevent.sleep(0)
            self._turn_ends = time.monotonic() + _SLICE_S


class _Bounded:
    def _connect(self) -> Any:
        return _BoundedSocket(super()._connect())  # type: ignore[misc]  # of the library's class beside it


class PlainConnection(_Bounded, library.Connection):
    """In clear text."""


class TlsConnection(_Bounded, library.SSLConnection):
    """Over TLS."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """What redis-py makes of words that no server of Redis says, as a ``redis.ConnectionError``."""
    try:
        yield
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError, OverflowError, MemoryError) as error:
        raise redis.ConnectionError(f"it does not answer as Redis does ({type(error).__name__})") from None


def answer_of(connection: Any) -> Any:
    """The next answer. Waits; raises ``redis.RedisError`` or ``OSError``, whatever the server says."""
    with plain_errors():
        return connection.read_response(disconnect_on_error=False)
