"""A stand-in for Google's OAuth token endpoint: service accounts, the JWTs they sign, the access tokens they get.

Sources: Google, "Using OAuth 2.0 for server to server applications"; RFC 7523; the wordings are those seen in Google's
answers. It speaks HTTP/1.1 over TLS on a port of its own, because that is what ordinary clients speak to a token
endpoint, and Google too has two hosts.
"""

import json
import secrets
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import gevent
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from pusher.sim.faults import Fault, Faults, FaultSyntaxError

SCOPES = {
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
}
#: What Google's libraries put in whatever the address is that they ask.
GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Granted too: for impersonation, not for sending.
IAM_SCOPE = "https://www.googleapis.com/auth/iam"
ASSERTION_LIFETIME_S = 3600
CLOCK_SKEW_S = 300  #: how far an assertion's clock may be off
TOKEN_PATH = "/token"  # noqa: S105  # an address
ACTIONS = {"ok", "silence"}  #: of the faults, besides a status

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class OAuthError(Exception):
    """An error of RFC 6749, 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error, self.description = error, description


class KnownAccount(NamedTuple):
    """What the endpoint knows of a service account."""

    project_id: str
    key: rsa.RSAPublicKey


class IssuedToken(NamedTuple):
    """What an access token stands for, and until when (Unix time, s)."""

    project_id: str
    expires_at: float


class QuietServer(WSGIServer):
    """Counts failed TLS handshakes instead of printing them."""

    def __init__(self, counts: Counter[str], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._counts = counts

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """What gevent calls for each connection."""
        try:
            return super().wrap_socket_and_handle(client_socket, address)
        except OSError:
            self._counts["tls_failures"] += 1
            return None


class OAuth:
    """The endpoint. `counts` tells what it did; `most_at_once` is the largest number of requests at one time."""

    def __init__(
        self,
        tls_context: ssl.SSLContext,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token_lifetime_s: float = 3599,
        faults: Sequence[str] = (),
        seed: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.host = host
        self.port = port  #: 0 until the first start() chose a free one
        self.token_lifetime_s = token_lifetime_s
        self.counts: Counter[str] = Counter()
        self.most_at_once = 0
        self.now = now
        self._seed = seed
        self._at_once = 0
        self._accounts: dict[str, KnownAccount] = {}
        self._tokens: dict[str, IssuedToken] = {}
        self._tls_context = tls_context
        self._tls_context.set_alpn_protocols(["http/1.1"])
        self._server: WSGIServer | None = None
        self._greenlets = Pool()
        self.set_faults(faults)

    @property
    def token_uri(self) -> str:
        """Where accounts ask for tokens; known once it listens."""
        return f"https://{'localhost' if self.host in {'0.0.0.0', '::'} else self.host}:{self.port}{TOKEN_PATH}"  # noqa: S104  # read, not bound

    def start(self) -> None:
        """Listens; after stop() again on the same port. Raises OSError when the port is taken."""
        self._server = QuietServer(
            self.counts,
            (self.host, self.port),
            self._application,
            log=None,
            error_log=None,
            spawn=self._greenlets,
            ssl_context=self._tls_context,
        )
        self._server.start()
        self.port = int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """Stops listening and drops what is going on; waits some milliseconds."""
        if self._server is not None:
            self._server.stop(timeout=0)
            self._server = None
        self._greenlets.kill()

    def set_faults(self, script: Sequence[str]) -> None:
        """Replaces the script of faults, which selects by the account's address. Raises FaultSyntaxError."""
        faults = Faults(script, self._seed)
        for fault in faults.script:
            if not fault.status and fault.action not in ACTIONS:
                raise FaultSyntaxError(f"{fault.text!r}: the token endpoint plays a status, ok and silence only")
        self._faults = faults

    # ---- accounts and tokens

    def new_account(self, project_id: str, client_email: str = "") -> dict[str, str]:
        """Makes a service account for a project, and its JSON key as the Firebase console hands it out."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        account = {
            "type": "service_account",
            "project_id": project_id,
            "private_key_id": secrets.token_hex(20),
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "client_email": client_email or f"firebase-adminsdk@{project_id}.iam.gserviceaccount.com",
            "client_id": str(secrets.randbits(60)),
            "token_uri": self.token_uri,
        }
        self.add_account(account)
        return account

    def add_account(self, account: dict[str, str]) -> None:
        """Accepts an account from its JSON key. Raises ValueError."""
        missing = {"client_email", "private_key", "project_id"} - account.keys()
        if missing:
            raise ValueError(f"a service account has {', '.join(sorted(missing))}")
        key = load_pem_private_key(account["private_key"].encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("a service account's key is an RSA key")  # noqa: TRY004  # a wrong file, not a wrong type
        self._accounts[account["client_email"]] = KnownAccount(account["project_id"], key.public_key())

    def remove_account(self, client_email: str) -> None:
        """The account is deleted: it gets no tokens any more, and those it has are void."""
        project_id = self._accounts.pop(client_email).project_id
        self._tokens = {token: held for token, held in self._tokens.items() if held.project_id != project_id}

    def issue(self, project_id: str) -> str:
        """An access token for a project, as if somebody had asked for it in another way."""
        token = f"ya29.{secrets.token_urlsafe(48)}"
        now = self.now()
        self._tokens = {old: held for old, held in self._tokens.items() if held.expires_at > now}
        self._tokens[token] = IssuedToken(project_id, now + self.token_lifetime_s)
        return token

    def revoke_tokens(self) -> None:
        """All access tokens are void from now on."""
        self._tokens.clear()

    def project_of(self, token: str) -> str | None:
        """The project for which an access token is good now."""
        held = self._tokens.get(token)
        return held.project_id if held is not None and held.expires_at > self.now() else None

    # ---- requests

    def _application(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            status, body, headers = self._respond(environ)
        finally:
            self._at_once -= 1
        self.counts[status] += 1
        headers += [("Date", formatdate(self.now(), usegmt=True)), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]

    def _respond(self, environ: dict[str, Any]) -> tuple[str, bytes, list[tuple[str, str]]]:
        if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] != TOKEN_PATH:
            return "404 Not Found", b"<html><title>Error 404</title></html>", [("Content-Type", "text/html")]
        form = {name: values[-1] for name, values in parse_qs(environ["wsgi.input"].read().decode("latin-1")).items()}
        assertion = form.get("assertion", "")
        fault = self._faults.pick(_issuer(assertion), assertion)
        if fault is not None:
            gevent.sleep(3600 if fault.action == "silence" else fault.delay_s)
            if fault.status:
                return _faulty(fault)
        json_type = [("Content-Type", "application/json; charset=utf-8")]
        try:
            answer: dict[str, Any] = self._grant(form.get("grant_type", ""), assertion)
        except OAuthError as refused:
            answer = {"error": refused.error, "error_description": refused.description}
            return "400 Bad Request", json.dumps(answer).encode(), json_type
        return "200 OK", json.dumps(answer).encode(), json_type

    def _grant(self, grant_type: str, assertion: str) -> dict[str, Any]:
        if grant_type != GRANT_TYPE:
            raise OAuthError("unsupported_grant_type", f"Invalid grant_type: {grant_type}")
        account = self._accounts.get(_issuer(assertion))
        if account is None:
            raise OAuthError("invalid_grant", "Invalid grant: account not found")
        scopes = self._verify(assertion, account)
        token = self.issue(account.project_id if SCOPES & scopes else "")
        return {"access_token": token, "expires_in": int(self.token_lifetime_s), "token_type": "Bearer"}

    def _verify(self, assertion: str, account: KnownAccount) -> set[str]:
        """The scopes that are asked for. Raises Refused."""
        try:
            # The times are compared with this endpoint's own clock, below.
            claims = jwt.decode(
                assertion,
                account.key,
                algorithms=["RS256"],
                audience=[self.token_uri, GOOGLE_AUDIENCE],
                options={"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "exp", "iat"]},
            )
        except jwt.InvalidAudienceError:
            raise OAuthError("invalid_grant", "Invalid JWT: Failed audience check.") from None
        except jwt.MissingRequiredClaimError as error:
            raise OAuthError("invalid_grant", f"Invalid JWT: {error}") from None
        except jwt.PyJWTError:
            raise OAuthError("invalid_grant", "Invalid JWT Signature.") from None
        scopes = set(str(claims.get("scope", "")).split())
        if not (SCOPES | {IAM_SCOPE}) & scopes:
            raise OAuthError("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        issued_at, expires_at, now = float(claims["iat"]), float(claims["exp"]), self.now()
        if (
            not 0 < expires_at - issued_at <= ASSERTION_LIFETIME_S
            or issued_at > now + CLOCK_SKEW_S
            or expires_at < now - CLOCK_SKEW_S
        ):
            raise OAuthError(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim.",
            )
        return scopes


def _issuer(assertion: str) -> str:
    """Whom an assertion claims to come from; not yet verified."""
    try:
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.PyJWTError:
        return ""
    return str(claims.get("iss", ""))


def _faulty(fault: Fault) -> tuple[str, bytes, list[tuple[str, str]]]:
    body = b"<html><h1>%d</h1></html>" % fault.status if fault.body is None else fault.body
    if fault.reason:
        body = json.dumps({"error": fault.reason, "error_description": "as the script has it"}).encode()
    headers = [("Content-Type", "application/json" if fault.reason else "text/html")]
    if fault.retry_after:
        headers.append(("Retry-After", fault.retry_after))
    return f"{fault.status} Fault", body, headers
