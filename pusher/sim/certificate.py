"""Self-made certificates and provider keys for the simulators.

One certificate authority signs everything; a client trusts the simulator by trusting `ca.pem` (for the sender: the key
`apns.caFile`). Keys are P-256, as Apple's provider keys are, because they are made in a millisecond.
"""

import datetime as dt
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
DAY = dt.timedelta(days=1)


class Certificate(NamedTuple):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS#8, not encrypted)."""
        return private_pem(self.key)

    def write(self, directory: str | Path, name: str) -> tuple[str, str]:
        """Writes `name`.pem and `name`.key into the directory; returns both paths."""
        certificate, key = Path(directory, f"{name}.pem"), Path(directory, f"{name}.key")
        certificate.write_bytes(self.pem())
        write_private(key, self.key_pem())
        return str(certificate), str(key)


class TlsFiles(NamedTuple):
    """Paths of what a TLS server needs, and of the authority its clients trust."""

    ca: str
    certificate: str
    key: str


def make_ca(name: str = "Push simulator CA") -> Certificate:
    """A certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    builder = _unsigned(subject, subject, key, expired=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Certificate(builder.sign(key, hashes.SHA256()), key)


def make_server_certificate(
    ca: Certificate, names: Sequence[str] = LOOPBACK_NAMES, *, expired: bool = False
) -> Certificate:
    """A certificate for these host names and IP addresses; `expired` ended yesterday."""
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    return _issue(ca, _common_name(names[0]), ExtendedKeyUsageOID.SERVER_AUTH, alternatives, expired=expired)


def make_client_certificate(ca: Certificate, topic: str, *, expired: bool = False) -> Certificate:
    """A provider certificate as Apple makes them: the topic is the subject's user id."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.USER_ID, topic),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Apple Push Services: {topic}"),
        ]
    )
    return _issue(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, None, expired=expired)


def make_p8() -> bytes:
    """A provider token signing key in the form of Apple's .p8 files: PEM, PKCS#8, P-256."""
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PEM (PKCS#8, not encrypted)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_verification_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a .p8 or of a public PEM. Raises ValueError when it is neither, or not an EC key."""
    key = (
        serialization.load_pem_private_key(pem, password=None).public_key()
        if b"PRIVATE KEY" in pem
        else serialization.load_pem_public_key(pem)
    )
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("a provider key is an EC key on P-256")  # noqa: TRY004  # a wrong file, not a wrong type
    return key


def write_private(path: str | Path, pem: bytes) -> None:
    """Writes a key that only its owner may read, in a directory that is made when missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)


def tls_files(directory: str | Path, names: Sequence[str] = ()) -> TlsFiles:
    """Files in the directory for a server on loopback, made when missing, so that simulators may share a directory.

    With `names` the server's certificate is made anew for these host names too.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(*(str(directory / name) for name in ("ca.pem", "server.pem", "server.key")))
    if not Path(files.ca).exists():
        make_ca().write(directory, "ca")
    if names or not Path(files.certificate).exists():
        ca = read_certificate(directory, "ca")
        make_server_certificate(ca, (*LOOPBACK_NAMES, *names)).write(directory, "server")
    return files


def read_certificate(directory: str | Path, name: str) -> Certificate:
    """What write() wrote. Raises OSError, ValueError."""
    certificate = x509.load_pem_x509_certificate(Path(directory, f"{name}.pem").read_bytes())
    key = serialization.load_pem_private_key(Path(directory, f"{name}.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{name}.key is not an EC key")  # noqa: TRY004  # a wrong file, not a wrong type
    return Certificate(certificate, key)


def server_context(files: TlsFiles, client_ca: str | None = None) -> ssl.SSLContext:
    """TLS for an HTTP/2 server; with `client_ca` (a PEM path) clients may show a certificate, which is verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(client_ca)
    return context


def _issue(
    ca: Certificate,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    alternatives: x509.SubjectAlternativeName | None,
    *,
    expired: bool,
) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _unsigned(subject, ca.certificate.subject, key, expired=expired)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(authority, critical=False)
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return Certificate(builder.sign(ca.key, hashes.SHA256()), key)


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now - DAY if expired else now + 365 * DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
