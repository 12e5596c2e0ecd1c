"""The credentials for Apple: a provider token signed with a ``.p8`` key, or a client certificate.

Sources: Apple, "Establishing a token-based connection to APNs" and "Establishing a certificate-based connection to
APNs". A token is an ES256 JWT with ``kid``, ``iss`` and ``iat``; Apple takes one for an hour and refuses more than one
new token in 20 minutes, which it counts by team (Apple staff, developer forum, thread 702056).

All processes with the same key, and a restarted process, must show Apple the same token. Therefore a token depends only
on key and time: it is dated at the full or half hour, and its signature has no random part (RFC 6979). If Apple accepts
no new one just after the full or half hour, the one before is used until it is 50 minutes old.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from pusher.errors import CredentialError
from pusher.providers.key_text import content, described
from pusher.providers.tls import Files, TlsTrust

#: Tokens are dated at its multiples, and are replaced at the next one.
DATED_EVERY_S = 30 * 60
#: No token is used for less: one that is taken into use late is replaced late, before it is 50 minutes old.
RENEW_AT_MOST_EVERY_S = 20 * 60
#: Wall clocks are slewed by less than this in 50 minutes; a larger difference means that the clock was set.
_SLEWED_AT_MOST_S = 60.0


def elapsed_s() -> float:
    """A clock that is never set, and that continues while the machine is suspended: used for ages."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ProviderToken:
    """The token of a key, the same in all processes, renewed in time and never too often. Shared by all connections.

    ``clock`` dates a token, ``elapsed`` measures its age: when the wall clock is set, rightly or wrongly, a token that
    Apple takes stays in use.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        key_id: str,
        team_id: str,
        clock: Callable[[], float],
        elapsed: Callable[[], float],
    ) -> None:
        self._key, self._key_id, self._team_id, self._clock, self._elapsed = key, key_id, team_id, clock, elapsed
        self.signer = (key.public_key().public_numbers(), key_id, team_id)
        #: What its ``iat`` says, by both clocks.
        self._dated, self._dated_at = 0.0, 0.0
        self._used_from = self._used_until = 0.0
        #: Whether it is dated before it was made, which may be too early for a clock that is behind Apple's.
        self._dated_back = False
        self._token = ""

    @classmethod
    def load(
        cls,
        key_given: str,
        key_id: str,
        team_id: str,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed_s,
    ) -> ProviderToken:
        """Reads a ``.p8`` key: its path, text or base64. Raises ``CredentialError``, which shows none of a key."""
        data = content(key_given, "the key")
        try:
            load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
            key = load(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            where = described(key_given)
            raise CredentialError(f"{where} is not a PKCS#8 PEM key; Apple's .p8 file is expected") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise CredentialError(f"{described(key_given)} is not a P-256 key; Apple's .p8 file is expected")
        return cls(key, key_id, team_id, clock, elapsed)

    @property
    def age_s(self) -> float:
        """Seconds since the time that the token is dated."""
        return self._elapsed() - self._dated_at

    @property
    def misdated(self) -> bool:
        """Whether the wall clock was set since the token was issued: one of the two times was wrong."""
        return abs((self._clock() - self._dated) - self.age_s) > _SLEWED_AT_MOST_S

    def same_as(self, other: ProviderToken) -> bool:
        """Whether both sign in the same name with the same key."""
        return self.signer == other.signer

    @property
    def issued(self) -> bool:
        """Whether there has been one."""
        return bool(self._token)

    def current(self) -> str:
        """The token to send now."""
        if not self._token or self._elapsed() >= self._used_until:
            now = self._clock()
            self._issue(now, dated=now - now % DATED_EVERY_S)
        return self._token

    def renew(self) -> bool:
        """A token of this second, since Apple calls the last one too old.

        False when that was one of its second too, and has been used for less than 20 minutes, and is rightly dated.
        """
        used_s = self._elapsed() - self._used_from
        if used_s < RENEW_AT_MOST_EVERY_S and not self._dated_back and not self.misdated:
            return False
        now = self._clock()
        self._issue(now, dated=now)
        return True

    def change(self, refused: str) -> None:
        """To the token before this one, or back from that: Apple accepts no new one of the team, but maybe the other.

        Changes nothing if ``refused`` is not in use any more: all apps of a team share this and are refused together.
        A process that was started again may be the first to show the present token, less than 20 minutes after the one
        before was first shown, which Apple knows. That one is used until it is 50 minutes old.
        """
        if refused != self._token:
            return
        now = self._clock()
        dated = now - now % DATED_EVERY_S
        lasts_s = dated + RENEW_AT_MOST_EVERY_S - now
        if self._dated != dated or lasts_s <= 0:
            self._issue(now, dated=dated)
        else:
            self._issue(now, dated=dated - DATED_EVERY_S)
            self._used_until = self._used_from + lasts_s

    def _issue(self, now: float, dated: float) -> None:
        self._used_from = self._elapsed()
        self._dated, self._dated_at = dated, self._used_from - (now - dated)
        self._dated_back = int(dated) < int(now)
        self._used_until = max(self._dated_at + DATED_EVERY_S, self._used_from + RENEW_AT_MOST_EVERY_S)
        self._token = _signed(
            self._key, {"alg": "ES256", "kid": self._key_id}, {"iss": self._team_id, "iat": int(dated)}
        )


def _signed(key: ec.EllipticCurvePrivateKey, header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """A JWT (RFC 7515, 3.1 and A.3), the same for the same words, unless OpenSSL is older than 3.2."""
    words = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    try:
        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        algorithm = ec.ECDSA(hashes.SHA256())
    r, s = decode_dss_signature(key.sign(words, algorithm))
    return (words + b"." + _base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


#: By key, key id and team, for as long as a service uses them.
_tokens: WeakValueDictionary[Hashable, ProviderToken] = WeakValueDictionary()


def shared(token: ProviderToken) -> ProviderToken:
    """The token of the process for the same key, key id and team: Apple counts new ones by team, not by app."""
    return _tokens.setdefault(token.signer, token)


@dataclass(frozen=True)
class ClientCertificate:
    """A provider certificate with its key, both PEM."""

    chain_pem: bytes
    key_pem: bytes
    expires_at_s: float

    @classmethod
    def load(cls, given: str, password: str) -> ClientCertificate:
        """Reads a ``.pem`` with certificate and key, or a ``.p12``: its path, text or base64.

        Raises ``CredentialError``, which shows none of a key.
        """
        data = content(given, "the certificate")
        secret = password.encode() or None
        try:
            return cls._from_pem(data, secret) if b"-----BEGIN" in data else cls._from_p12(data, secret)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CredentialError(
                f"{described(given)} does not hold a certificate and its key that certPassword opens: {error}"
            ) from None

    @classmethod
    def _from_pem(cls, data: bytes, password: bytes | None) -> ClientCertificate:
        key = load_pem_private_key(data, password if b"ENCRYPTED" in data else None)
        certificates = _leaf_first(x509.load_pem_x509_certificates(data), key)
        return cls(
            b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificates[0].not_valid_after_utc.timestamp(),
        )

    @classmethod
    def _from_p12(cls, data: bytes, password: bytes | None) -> ClientCertificate:
        bundle = pkcs12.load_pkcs12(data, password)
        if bundle.cert is None or bundle.key is None:
            raise ValueError("no certificate or no key in the bundle")
        chain = [bundle.cert, *bundle.additional_certs]
        return cls(
            b"".join(member.certificate.public_bytes(Encoding.PEM) for member in chain),
            bundle.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            bundle.cert.certificate.not_valid_after_utc.timestamp(),
        )

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises ``CredentialError``. The ssl module reads only files: this one exists for that moment, mode 0600."""
        descriptor, path = tempfile.mkstemp(suffix=".pem")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.chain_pem + self.key_pem)
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise CredentialError(f"the certificate and its key do not belong together: {error.reason}") from None
        finally:
            Path(path).unlink()


def _leaf_first(certificates: list[x509.Certificate], key: PrivateKeyTypes) -> list[x509.Certificate]:
    """The chain from the certificate of the key upwards, in whatever order it is given. Raises ValueError."""
    own = [one for one in certificates if one.public_key() == key.public_key()]
    if not own:
        raise ValueError("no certificate belongs to the key")
    chain, rest = own[:1], [one for one in certificates if one is not own[0]]
    while issuers := [one for one in rest if one.subject == chain[-1].issuer]:
        chain.append(issuers[0])
        rest.remove(issuers[0])
    return chain


def refuse_dates(certificate: ClientCertificate, now_s: float) -> None:
    """Raises ``CredentialError`` for a certificate that has ended or is of the future."""
    leaf = x509.load_pem_x509_certificates(certificate.chain_pem)[0]
    if now_s > certificate.expires_at_s:
        raise CredentialError(f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it")
    if now_s < leaf.not_valid_before_utc.timestamp():
        raise CredentialError(f"the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


@dataclass(frozen=True)
class Credentials:
    """Either a token or a certificate, and what to trust."""

    trust: TlsTrust
    token: ProviderToken | None = None
    certificate: ClientCertificate | None = None
    #: The context with the certificate, by the state of the files that it was made of.
    _contexts: dict[Files, ssl.SSLContext] = field(default_factory=dict, init=False, repr=False, compare=False)

    def tls_context(self) -> ssl.SSLContext:
        """The context for a connection to Apple. Raises ``CredentialError``."""
        if self.certificate is None:
            return self.trust.context(alpn="h2")
        files = self.trust.files()
        if files not in self._contexts:
            context = self.trust.new_context(alpn="h2")
            self.certificate.load_into(context)
            self._contexts.clear()
            self._contexts[files] = context
        return self._contexts[files]

    def same_as(self, other: Credentials) -> bool:
        """Whether there is nothing new in them. A token must not be replaced without need: Apple accepts few."""
        if (self.trust, self.certificate) != (other.trust, other.certificate):
            return False
        if self.token is None or other.token is None:
            return self.token is other.token
        return self.token.same_as(other.token)
