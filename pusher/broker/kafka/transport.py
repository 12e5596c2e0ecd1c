"""How connections of kafka-python read and write, without what a message that arrives alone pays for without use.

The library waits for a socket before each write, registers it anew for each read, and reads in pieces of 4 KiB until
the system refuses.
"""

from __future__ import annotations

import selectors
import time
from typing import Any, Final

from kafka.errors import KafkaConnectionError, KafkaProtocolError
from kafka.net import selector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

_PIECE_OCTETS: Final = 64 * 1024
#: Read in one turn, before others have theirs.
_MAX_PIECES: Final = 16


def use_few_steps() -> None:
    """Lets the library's transports work so. To be called once."""
    selector.NetworkSelector._stay = _stay  # noqa: SLF001
    KafkaTCPTransport._read_from_sock = _read_from_sock  # noqa: SLF001
    KafkaTCPTransport._sock_recv = _receive  # noqa: SLF001
    _read_to_the_end(KafkaSSLTransport)
    _write_at_once(KafkaTCPTransport)


def _stay(net: Any) -> None:
    """A reading task waits for its socket, which stays registered."""
    net._current.state = selector.TaskState.WAIT_IO  # noqa: SLF001


async def _read_from_sock(self: Any) -> None:
    sock, net = self._sock, self._net
    net.register_event(sock, selectors.EVENT_READ, net._current)  # noqa: SLF001
    try:
        while self._read and not self._closed:
            await selector.KernelEvent("_stay")
            received, error = self._sock_recv()
            if error:
                self.abort(error=error)
                return
            self.last_read = time.monotonic()
            try:
                self._protocol.data_received(received)
            except KafkaProtocolError as broken:
                self.abort(error=broken)
                return
    finally:
        net.unregister_event(sock, selectors.EVENT_READ)


def _receive(self: Any) -> tuple[bytes, Exception | None]:
    """What has come. Its end comes at the next turn: what came before may say why, as of a login that is refused."""
    pieces: list[bytes] = []
    for _ in range(_MAX_PIECES):
        try:
            piece = self._sock.recv(_PIECE_OCTETS)
        except (BlockingIOError, InterruptedError):
            break
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection has come to its end
            return b"".join(pieces), None if pieces else KafkaConnectionError(error)
        if not piece and not pieces:
            return b"", KafkaConnectionError("socket disconnected")
        pieces.append(piece)
        if len(piece) < _PIECE_OCTETS:
            break
    return b"".join(pieces), None


def _read_to_the_end(transport: Any) -> None:
    """Lets a transport hand on what came together with the end of the connection.

    The library drops it: the answer that says why a login is refused, behind which brokers close at once.
    """
    receive = transport._sock_recv  # noqa: SLF001

    def sock_recv(self: Any) -> tuple[bytes, Exception | None]:
        received, error = receive(self)
        return received, None if received else error  # the next turn meets the end again

    transport._sock_recv = sock_recv  # noqa: SLF001


def _write_at_once(transport: Any) -> None:
    """Lets a transport send what its socket takes at once; the library waits for the socket first, each time."""
    later = transport.write

    def write(self: Any, data: Any) -> None:
        if self._writing or self._closed or not self._write or not data:
            later(self, data)
            return
        self._write_buffer.append(data)
        _, error = self._sock_send()
        self.last_write = time.monotonic()
        if error:
            self._net.call_soon(lambda: self.abort(error=error))
        elif self._write_buffer:
            self._writing = True
            self._write_task = self._net.call_soon(self._write_to_sock)

    transport.write = write
