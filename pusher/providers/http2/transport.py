"""TLS over a gevent socket, with the cryptography apart from the socket.

OpenSSL works on memory (`ssl.MemoryBIO`), and the socket carries what it made: one system call reads many TLS records
and one writes a whole batch, the reader and the writer greenlet never meet in OpenSSL, and there is no hidden
handshake that waits. The certificate chain and the host name are always verified, and the peer must choose HTTP/2.
"""

import socket as stdlib_socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

import gevent
from gevent import socket

from pusher.providers.budget import Turns
from pusher.providers.proxy import Proxy, open_tunnel

RECEIVE_OCTETS: Final = 64 * 1024
MAX_SILENT_OCTETS: Final = 256 * 1024
"""Octets that may come, in the handshake or after it, without any content: session tickets and the like."""
ALPN: Final = "h2"


@dataclass(frozen=True)
class Origin:
    """The server to connect to, through `proxy` if it is set. `authority` is for requests; "" = the host."""

    host: str
    port: int = 443
    authority: str = ""
    proxy: Proxy | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ConnectFailed(Exception):
    """No connection. The text is one line for an operator."""


class TlsSocket:
    """A connected socket. One greenlet may receive while another sends."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._ended = False
        self._failed: ssl.SSLError | None = None
        self._silent_octets = 0
        self._turns = Turns()

    def handshake(self, alpn: str) -> None:
        """Waits. Raises OSError (ssl.SSLError among them), ConnectFailed when the peer does not speak HTTP/2."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._turns.give_way()
                if not self._take_in():
                    raise ConnectionError("the peer closed the connection during the TLS handshake") from None
            else:
                break
            finally:
                if self._outgoing.pending:  # an alert that says why we refuse, or the last flight
                    self._flush()
        chosen = self._tls.selected_alpn_protocol()
        if alpn and chosen != alpn:
            raise ConnectFailed(f"the server does not speak HTTP/2 (ALPN: {chosen or 'nothing'})")

    def _flush(self) -> None:
        octets = self._outgoing.read()
        sent = self._socket.send(octets)  # nearly always all; gevent's sendall asks for the size of a buffer first
        if sent < len(octets):
            self._socket.sendall(memoryview(octets)[sent:])

    def _take_in(self) -> bool:
        """One read of the socket; false when the peer has closed. Waits, but not where much has come already."""
        data = self._socket.recv(RECEIVE_OCTETS)
        self._incoming.write(data)
        self._silent_octets += len(data)
        if self._silent_octets > MAX_SILENT_OCTETS:
            raise ConnectionError("the peer keeps sending TLS records without content")
        return bool(data)

    def receive(self) -> bytes:
        """What has come, all that one read of the socket held; b"" when the peer has closed. Waits.

        What was decrypted before an error is returned; the error is raised at the next call.
        """
        while not self._ended:
            if self._failed is not None:
                raise self._failed
            if not self._take_in():
                break
            plain = self._decrypted()
            if plain:
                self._silent_octets = 0
                return plain
            self._turns.give_way()
        return b""

    def _decrypted(self) -> bytes:
        parts = []
        try:
            while part := self._tls.read(RECEIVE_OCTETS):
                parts.append(part)
                if not (self._incoming.pending or self._tls.pending()):
                    break  # drained, without an exception that says so
            else:
                self._ended = True  # close_notify
        except ssl.SSLWantReadError:
            pass  # drained
        except ssl.SSLError as error:
            self._failed = error
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Send it all; waits while the peer's buffers are full."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        self._flush()

    def settimeout(self, seconds: float | None) -> None:
        """Limit each wait for the network; TimeoutError is raised."""
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """Closes the socket; a greenlet that waits for it gets an OSError. Does not wait."""
        self._socket.close()


def connect(origin: Origin, context: ssl.SSLContext, timeout_s: float, alpn: str = ALPN) -> TlsSocket:
    """Look the name up, try its addresses in turn, agree on TLS and HTTP/2 (`alpn=""`: TLS alone).

    Waits up to `timeout_s`.
    Raises ConnectFailed; ValueError for a context that would not verify the peer.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("the TLS context does not verify its peer")
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    if alpn:
        context.set_alpn_protocols([alpn])
    deadline = time.monotonic() + timeout_s
    with gevent.Timeout(timeout_s, ConnectFailed(f"no connection within {timeout_s:g} s")):
        try:
            first = origin.proxy or origin
            addresses = socket.getaddrinfo(first.host, first.port, 0, stdlib_socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectFailed(f"name lookup failed: {describe(error)}") from error
        reason = "the name has no address"
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                # Each address gets its share of the time left, so that a mute one does not hide the next.
                sock.settimeout(max(0.001, deadline - time.monotonic()) / (len(addresses) - tried))
                return _connected(sock, address, origin, context, alpn)
            except ssl.SSLError as error:
                raise ConnectFailed(describe(error)) from error
            except OSError as error:
                reason = f"{address[0]}: {describe(error)}"
        raise ConnectFailed(reason)


def _connected(
    sock: socket.socket, address: tuple[object, ...], origin: Origin, context: ssl.SSLContext, alpn: str
) -> TlsSocket:
    try:
        sock.connect(address)
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        if origin.proxy is not None:
            open_tunnel(sock, origin.proxy, origin.host, origin.port)
        transport = TlsSocket(sock, context, origin.host)
        transport.handshake(alpn)
        sock.settimeout(None)
        return transport
    except BaseException:
        sock.close()
        raise


def describe(error: OSError) -> str:
    """An operating system's or OpenSSL's error as one line without codes."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return error.strerror or str(error) or type(error).__name__
