"""Every outgoing TLS connection against servers that it must not trust: real servers, real handshakes."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from gevent.server import StreamServer

from pusher.errors import CredentialError
from pusher.providers.google.fcm.access_token import TokenEndpoint, TokenFailed
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.google.xmpp.link import Link, LinkError, LinkSettings
from pusher.providers.http1 import Client
from pusher.providers.http2 import Origin
from pusher.providers.http2.transport import ConnectFailed, connect
from pusher.providers.tls import TlsTrust
from pusher.sim.certificate import Certificate, make_ca, make_server_certificate

V = ssl.TLSVersion


class Server:
    """Shakes hands, and says nothing more."""

    def __init__(self, directory: Path, certificate: Certificate) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate.write(directory, "server"))
        self.context.set_alpn_protocols(["h2"])
        self.versions: list[str] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port = int(self._server.address[1])

    def _serve(self, plain: Any, _address: object) -> None:
        try:
            with self.context.wrap_socket(plain, server_side=True) as tls:
                self.versions.append(tls.version() or "")
                tls.recv(1)
        except OSError:
            plain.close()  # the client's refusal

    def close(self) -> None:
        self._server.stop(timeout=1)


def by_http2(port: int, trust: TlsTrust) -> None:
    connect(Origin("localhost", port), trust.context(), 10.0).close()


def by_oauth(port: int, trust: TlsTrust) -> None:
    key = rsa.generate_private_key(65_537, 2_048)
    account = ServiceAccount("p", "a@b", key, "", f"https://localhost:{port}/token")
    TokenEndpoint(account, Client(trust.context), timeout_s=2.0).fetch()


def by_xmpp(port: int, trust: TlsTrust) -> None:
    settings = LinkSettings("localhost", port, "1", "key", connect_timeout_s=2.0)
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    Link(settings, on_message=nothing, on_stanza_error=nothing, on_down=nothing).open(trust.context())


Way = Callable[[int, TlsTrust], None]
WAYS = pytest.mark.parametrize("way", [by_http2, by_oauth, by_xmpp])
#: What a way raises when the handshake was refused.
REFUSED = (ConnectFailed, TokenFailed, LinkError)


class Ground:
    """Authorities, certificates and lists in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = make_ca()
        self.ca_file, _ = self.ca.write(directory, "ca")
        self.servers: list[Server] = []

    def serve(self, certificate: Certificate) -> Server:
        self.servers.append(Server(self.directory, certificate))
        return self.servers[-1]

    def crl(self, *revoked: Certificate, ca: Certificate | None = None, days: int = 7) -> TlsTrust:
        ca = ca or self.ca
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(ca.certificate.subject)
        builder = builder.last_update(now - dt.timedelta(30)).next_update(now + dt.timedelta(days))
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - dt.timedelta(1)).build())
        file = self.directory / "list.pem"
        file.write_bytes(builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return TlsTrust(self.ca_file, str(file))


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    for server in made.servers:
        server.close()


def refusal(way: Way, server: Server, trust: TlsTrust) -> str:
    with pytest.raises(REFUSED) as refused:
        way(server.port, trust)
    gevent.sleep(0)
    return str(refused.value)


@WAYS
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wrong host", "ostname mismatch"),
        ("expired", "expired"),
        ("self-signed", "self.signed"),
        ("unknown authority", "unable to get local issuer"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(ground: Ground, way: Way, kind: str, words: str) -> None:
    ca = ground.ca
    certificate = {
        "wrong host": lambda: make_server_certificate(ca, names=("other.example",)),
        "expired": lambda: make_server_certificate(ca, expired=True),
        "self-signed": lambda: make_ca("localhost"),
        "unknown authority": lambda: make_server_certificate(make_ca("another")),
    }[kind]()
    server = ground.serve(certificate)
    said = refusal(way, server, TlsTrust(ground.ca_file))
    assert words.replace(".", "-") in said.replace(" ", "-") or words in said
    assert server.versions in ([], ["TLSv1.3"])  # with TLS 1.3 the server is done before the client refuses


@WAYS
@pytest.mark.parametrize("version", [V.TLSv1, V.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(ground: Ground, way: Way, version: ssl.TLSVersion) -> None:
    server = ground.serve(make_server_certificate(ground.ca))
    server.context.set_ciphers("ALL:@SECLEVEL=0")
    server.context.minimum_version = server.context.maximum_version = version
    refusal(way, server, TlsTrust(ground.ca_file))
    assert server.versions == []


@pytest.mark.parametrize(("version", "name"), [(V.TLSv1_2, "TLSv1.2"), (V.TLSv1_3, "TLSv1.3")])
def test_new_versions_are_taken(ground: Ground, version: ssl.TLSVersion, name: str) -> None:
    server = ground.serve(make_server_certificate(ground.ca))
    server.context.minimum_version = server.context.maximum_version = version
    by_http2(server.port, TlsTrust(ground.ca_file))
    gevent.sleep(0.05)
    assert server.versions == [name]


@WAYS
def test_a_revoked_certificate_is_refused_where_a_list_is_given(ground: Ground, way: Way) -> None:
    certificate = make_server_certificate(ground.ca)
    server = ground.serve(certificate)
    by_http2(server.port, TlsTrust(ground.ca_file))
    by_http2(server.port, ground.crl(make_server_certificate(ground.ca)))
    assert "revoked" in refusal(way, server, ground.crl(certificate))


@pytest.mark.parametrize(
    ("kind", "words"), [("ended", "CRL has expired"), ("another's", "unable to get certificate CRL")]
)
def test_a_list_that_says_nothing_lets_nobody_in(ground: Ground, kind: str, words: str) -> None:
    server = ground.serve(make_server_certificate(ground.ca))
    trust = ground.crl(days=-1) if kind == "ended" else ground.crl(ca=make_ca("another"))
    assert words in refusal(by_http2, server, trust)


def test_a_list_that_cannot_be_read_is_an_error_at_the_start(ground: Ground) -> None:
    broken = ground.directory / "broken.pem"
    broken.write_text("not a list")
    with pytest.raises(CredentialError, match="cannot read"):
        TlsTrust(ground.ca_file, str(broken)).context()
