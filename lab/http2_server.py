"""A small HTTP/2 server over TLS on a free port: h2's server side, scripted by a function. Also its certificates."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import gevent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gevent import socket
from gevent.lock import RLock
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings


@dataclass
class Request:
    stream_id: int
    headers: dict[bytes, bytes]
    body: bytes = b""


Script = Callable[["Peer", Request], None]


def silent(peer: Peer, request: Request) -> None:
    """Never answer."""


def answer_200(peer: Peer, request: Request) -> None:
    peer.respond(request.stream_id, 200)


class Peer:
    """One accepted connection."""

    def __init__(self, server: Server, sock: Any) -> None:
        self.server = server
        self.sock = sock
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.requests: dict[int, Request] = {}
        self.resets: list[int] = []
        self.goaway_code: int | None = None
        self.closed = False
        self._lock = RLock()

    def respond(
        self, stream_id: int, status: int, body: bytes = b"", *headers: tuple[bytes, bytes], end: bool = True
    ) -> None:
        self.h2.send_headers(stream_id, [(b":status", str(status).encode()), *headers], end_stream=end and not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=end)
        self.flush()

    def reset(self, stream_id: int, code: int) -> None:
        self.h2.reset_stream(stream_id, code)
        self.flush()

    def announce(self, settings: dict[SettingCodes, int]) -> None:
        self.h2.update_settings(settings)  # type: ignore[arg-type] # h2 types the keys too narrowly
        self.flush()

    def raw(self, data: bytes) -> None:
        """Bytes behind h2's back."""
        with self._lock:
            self.sock.sendall(data)

    def flush(self) -> None:
        self.raw(self.h2.data_to_send())

    def cut(self) -> None:
        self.sock.close()
        self.closed = True

    def run(self) -> None:
        try:
            # Values set on the settings that are there would count as not announced yet.
            self.h2.local_settings = Settings(client=False, initial_values=self.server.settings)
            self.h2.initiate_connection()
            self.flush()
            while self.server.reading and (data := self.sock.recv(65536)):
                self.take(data)
            while not self.server.reading and not self.closed:
                gevent.sleep(0.01)
        except OSError:
            pass
        except ProtocolError as error:
            self.server.protocol_errors.append(repr(error))
        finally:
            self.cut()

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                assert event.stream_id is not None
                headers = {bytes(name): bytes(value) for name, value in event.headers or ()}
                self.requests[event.stream_id] = Request(event.stream_id, headers)
            elif isinstance(event, DataReceived):
                assert event.stream_id is not None
                self.requests[event.stream_id].body += event.data or b""
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                assert event.stream_id is not None
                request = self.requests[event.stream_id]
                self.server.received.append(request)
                self.server.script(self, request)
            elif isinstance(event, StreamReset):
                assert event.stream_id is not None
                self.resets.append(event.stream_id)
            elif isinstance(event, ConnectionTerminated):
                self.goaway_code = int(event.error_code or 0)
        if not self.closed:
            self.flush()


@dataclass
class Server:
    """`with Server(files) as server`: listens on 127.0.0.1. `script` is called with each complete request."""

    files: Files
    script: Script = answer_200
    settings: dict[SettingCodes, int] = field(default_factory=dict)
    alpn: str = "h2"
    reading: bool = True
    peers: list[Peer] = field(default_factory=list)
    received: list[Request] = field(default_factory=list)
    protocol_errors: list[str] = field(default_factory=list)
    handshake_errors: int = 0

    def __enter__(self) -> Self:
        self.start(0)
        return self

    def start(self, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.files.certificate, self.files.key)
        self._context.set_alpn_protocols([self.alpn])
        self._listener: Any = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(16)
        self.port: int = self._listener.getsockname()[1]
        self._greenlets: list[Any] = [gevent.spawn(self._accept)]

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._listener.close()
        for peer in self.peers:
            peer.cut()
        gevent.killall(self._greenlets)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._greenlets.append(gevent.spawn(self._serve, sock))

    def _serve(self, sock: socket.socket) -> None:
        try:
            peer = Peer(self, self._context.wrap_socket(sock, server_side=True))
        except OSError:
            self.handshake_errors += 1
            return
        self.peers.append(peer)
        peer.run()


@dataclass(frozen=True)
class Files:
    """PEM files: an authority and a server's certificate signed by it."""

    authority: Path
    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def make_files(directory: Path, name: str = "localhost", days: int = 1) -> Files:
    """Certificates for a host name; days < 0 makes the server's an expired one."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def named(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

    def signed(builder: x509.CertificateBuilder, subject: str, key: ec.EllipticCurvePrivateKey, last: int) -> bytes:
        certificate = (
            builder.subject_name(named(subject))
            .issuer_name(named("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=last))
            # Python 3.13 asks for what RFC 5280 asks for: both identifiers, and the authority's usage
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    authority = x509.CertificateBuilder().add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.add_extension(SIGNS, critical=True)
    server = x509.CertificateBuilder().add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    files = Files(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    files.authority.write_bytes(signed(authority, "test authority", authority_key, 1))
    files.certificate.write_bytes(signed(server, name, server_key, days))
    files.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files
