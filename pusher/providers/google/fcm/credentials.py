"""The credentials for Google: a service account, and the assertion that it signs to get an access token.

Sources: Google, "Using OAuth 2.0 for server to server applications"; RFC 7523 (JWT bearer grant). The account is the
JSON object that the Firebase console hands out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pusher.errors import CredentialError
from pusher.push.fields import Json

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
#: Google takes assertions of an hour at most.
ASSERTION_LIFETIME_S = 3_600
#: The id becomes a part of the request's path; some old ones have a domain in them.
_PROJECT_ID = re.compile(r"[A-Za-z0-9.:_-]+")
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class ServiceAccount:
    """A service account with its key."""

    project_id: str
    client_email: str
    key: rsa.RSAPrivateKey
    #: "" leaves it out.
    key_id: str
    token_uri: str

    @classmethod
    def read(cls, account: dict[str, Json], where: str) -> ServiceAccount:
        """Of the members of its JSON; errors call it ``where``. Raises ``CredentialError``, which shows no secret."""
        project_id = checked_project_id(_text(account, "project_id", where), where)
        return cls(
            project_id,
            _text(account, "client_email", where),
            _key(_text(account, "private_key", where), where),
            _text(account, "private_key_id", where, ""),
            _token_uri(_text(account, "token_uri", where, GOOGLE_TOKEN_URI), where),
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for accounts whose access tokens are interchangeable."""
        numbers = self.key.public_key().public_numbers()
        return self.project_id, self.client_email, self.token_uri, self.key_id, str(numbers.n)

    def assertion(self, now_s: float) -> str:
        """The signed claim to be this account, for the token endpoint. Costs a millisecond; ``now_s`` is Unix time."""
        claims = {
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": int(now_s),
            "exp": int(now_s) + ASSERTION_LIFETIME_S,
        }
        return jwt.encode(claims, self.key, "RS256", headers={"kid": self.key_id} if self.key_id else None)


def checked_project_id(project_id: str, where: str) -> str:
    """Fit for the path of a request. Raises ``CredentialError``."""
    if _PROJECT_ID.fullmatch(project_id) is None:
        raise CredentialError(f"{where}: project_id contains characters that are not allowed")
    return project_id


def _text(account: dict[str, Json], name: str, where: str, default: str | None = None) -> str:
    value = account.get(name, default)
    if value is None or (value == "" and default is None):
        raise CredentialError(f"{where} has no {name}: use the JSON key file as Google provides it")
    if not isinstance(value, str):
        raise CredentialError(f"{where}: {name} is not a string")
    return value


def _key(pem: str, where: str) -> rsa.RSAPrivateKey:
    try:
        # Texts that went through a shell or a template often hold "\n" as two characters.
        key = load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialError(f"{where}: private_key is not a PEM key without password") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CredentialError(f"{where}: private_key is not an RSA key")
    return key


def _token_uri(uri: str, where: str) -> str:
    try:
        parts = urlsplit(uri)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or _PRINTABLE.fullmatch(uri) is None:
        raise CredentialError(f"{where}: token_uri is not an https address")
    return uri
