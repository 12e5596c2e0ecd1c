"""Access tokens through google-auth, for credentials other than a service account's key.

google-auth knows the protocols; every octet goes over ``http1``, which bounds it and can be interrupted. An executable
that gives a credential is ended with the same limit of time. The library's own transports (requests, urllib3) are not
used.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gevent
import google.auth.transport
import orjson
from google.auth import aws, compute_engine, exceptions, external_account_authorized_user, identity_pool, pluggable
from google.auth import impersonated_credentials as impersonated
from google.auth.compute_engine import _metadata as metadata
from google.oauth2 import credentials as authorized_user

from pusher.errors import CredentialError
from pusher.providers.google.fcm.access_token import (
    DEFAULT_LIFETIME_S,
    MAX_RETRY_AFTER_S,
    REQUEST_TIMEOUT_S,
    Grant,
    TokenFailed,
    TokenSource,
    grant_of,
)
from pusher.providers.google.fcm.credentials import GOOGLE_TOKEN_URI, SCOPE, checked_project_id
from pusher.providers.http1 import Client, ExchangeFailed, Request, Response, exchange
from pusher.push.fields import Json
from pusher.push.retry import parse_retry_after

#: At the start the metadata server is asked for its project: it is beside the machine or not there.
_METADATA_TIMEOUT_S = 3.0
_METADATA_SERVER = "Google's metadata server"
_SHOWN_CHARACTERS = 200
#: Of texts that the library makes of answers: what is as long as a token is left out, and an executable's output.
_SECRET = re.compile(r"[A-Za-z0-9+/=_.~-]{40,}|(?<=Error: )b['\"].*")
_SCOPES = [SCOPE]


def from_json(fields: dict[str, Json], where: str, project_id: str, client: Client) -> TokenSource:
    """Of the JSON of credentials that are no service account's key. Raises ``CredentialError``."""
    load = _LOADERS.get(str(fields.get("type")))
    if load is None:
        raise CredentialError(f"{where}: its type is not one of service_account, {', '.join(_LOADERS)}")
    try:
        credentials = load(fields)
    except Exception as error:  # noqa: BLE001  # whatever foreign JSON makes the library raise
        raise CredentialError(f"{where}: {_line(error)}") from None
    found = project_id or fields.get("project_id") or fields.get("quota_project_id") or _project_of_environment()
    if not isinstance(found, str) or not found:
        raise CredentialError(f"{where} names no project: set gcm.fcm.projectId.<app>")
    kind = str(fields["type"])
    identity = ("google-auth", hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).digest())
    return TokenSource(checked_project_id(found, where), kind, identity, partial(_fetch, credentials, kind, client))


def metadata_server(project_id: str, client: Client) -> TokenSource:
    """Of the machine's own account. Waits up to 3 s when no project is given; raises ``CredentialError``."""
    found = project_id or _project_of_environment() or _project_of_metadata(client)
    credentials = compute_engine.Credentials(scopes=_SCOPES)
    fetch = partial(_fetch, credentials, _METADATA_SERVER, client)
    return TokenSource(checked_project_id(found, _METADATA_SERVER), _METADATA_SERVER, _METADATA_SERVER, fetch)


def _project_of_environment() -> str:
    return os.environ.get("GOOGLE_CLOUD_PROJECT", "")


def _project_of_metadata(client: Client) -> str:
    transport = Transport(client, _METADATA_TIMEOUT_S)
    try:
        found = _within(_METADATA_TIMEOUT_S, _METADATA_SERVER, lambda: metadata.get_project_id(transport))
    except TokenFailed as error:
        raise _no_default(str(error)) from None
    except Exception as error:  # noqa: BLE001  # as above
        raise _no_default(_line(error)) from None
    return str(found)


def _no_default(reason: str) -> CredentialError:
    return CredentialError(
        "application-default: neither GOOGLE_APPLICATION_CREDENTIALS nor gcloud's credentials file exists, and "
        f"{_METADATA_SERVER} does not answer: {reason}"
    )


# --- what google-auth is asked for


def _external_account(fields: Mapping[str, Any]) -> Any:
    """Workload identity federation, by where the outer credential comes from."""
    if fields.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
        return aws.Credentials.from_info(fields, scopes=_SCOPES)
    source = fields.get("credential_source")
    if not isinstance(source, dict) or not isinstance(source.get("file", ""), str):
        # of a number the library would open, and close, that descriptor of the process
        raise exceptions.MalformedError("credential_source is not of a kind that Google documents")
    if source.get("executable") is not None:
        return pluggable.Credentials.from_info(fields, scopes=_SCOPES)
    return identity_pool.Credentials.from_info(fields, scopes=_SCOPES)


def _authorized_user(fields: Mapping[str, Any]) -> Any:
    """What `gcloud auth application-default login` writes. Its token_uri counts, which the library's loader drops."""
    needed = ("refresh_token", "client_id", "client_secret")
    missing = [name for name in needed if not isinstance(fields.get(name), str) or not fields[name]]
    if missing:
        raise exceptions.MalformedError(f"no {', '.join(missing)}")
    given = {name: fields[name] for name in needed}
    return authorized_user.Credentials(None, token_uri=fields.get("token_uri") or GOOGLE_TOKEN_URI, **given)


_LOADERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "authorized_user": _authorized_user,
    "external_account": _external_account,
    "external_account_authorized_user": external_account_authorized_user.Credentials.from_info,
    "impersonated_service_account": lambda fields: impersonated.Credentials.from_impersonated_service_account_info(
        fields, scopes=_SCOPES
    ),
}


class AuthResponse(google.auth.transport.Response):
    """An answer in google-auth's form."""

    def __init__(self, answer: Response) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        """HTTP's."""
        return self._answer.status

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        return self._answer.headers

    @property
    def data(self) -> bytes:
        """The body."""
        return self._answer.body


class Transport(google.auth.transport.Request):
    """The requests of one fetch. ``last`` is the answer to the last of them."""

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s
        self.last: Response | None = None

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> AuthResponse:
        """The transport for google-auth. Waits; raises ``TransportError``."""
        octets = body.encode() if isinstance(body, str) else body or b""
        timeout_s = min(timeout or self._timeout_s, self._timeout_s)
        self.last = None
        try:
            self.last = exchange(Request(method, url, headers or {}, octets), self._client, timeout_s)
        except ExchangeFailed as error:
            raise exceptions.TransportError(str(error)) from error
        return AuthResponse(self.last)


def _fetch(credentials: Any, name: str, client: Client) -> Grant:
    """One access token, in one or more exchanges. Waits up to ``REQUEST_TIMEOUT_S``; raises ``TokenFailed``."""
    transport = Transport(client, REQUEST_TIMEOUT_S)
    try:
        _within(REQUEST_TIMEOUT_S, name, lambda: credentials.refresh(transport))
    except TokenFailed:
        raise
    except Exception as error:  # whatever foreign answers make the library raise
        raise _failure(error, name, transport.last) from error
    return grant_of(credentials.token, _lifetime_s(credentials.expiry), name)


def _within(timeout_s: float, name: str, ask: Callable[[], Any]) -> Any:
    """A limit of its own kind: the library catches every Exception here and there."""
    limit = gevent.Timeout.start_new(timeout_s)
    try:
        return ask()
    except gevent.Timeout as passed:
        if passed is not limit:
            raise
        raise TokenFailed(f"no access token, {name} gave no answer within {timeout_s:g} s") from None
    finally:
        limit.close()


def _lifetime_s(expiry: datetime.datetime | None) -> float:
    """google-auth's times are UTC without saying so."""
    if expiry is None:
        return DEFAULT_LIFETIME_S
    return (expiry.replace(tzinfo=datetime.UTC) - datetime.datetime.now(datetime.UTC)).total_seconds()


def _failure(error: Exception, name: str, last: Response | None) -> TokenFailed:
    """Refused by an answer, or by what stands in the credentials; unless the library says that it passes."""
    answered = last is None or last.status in {400, 401, 403}
    passing = isinstance(error, exceptions.TransportError) or isinstance(error.__cause__, exceptions.TransportError)
    retry_after = "" if last is None else last.headers.get("retry-after", "")
    return TokenFailed(
        f"no access token, {name}: {_line(error)}",
        refused=answered and not passing and not getattr(error, "retryable", False),
        retry_after_s=min(parse_retry_after(retry_after, time.time()) or 0.0, MAX_RETRY_AFTER_S),
    )


def _line(error: Exception) -> str:
    """Without what may be a secret."""
    if isinstance(error, AttributeError | KeyError | TypeError):
        return "a field is missing in it or has a wrong type"
    text = " ".join(str(error.args[0] if error.args else type(error).__name__).split())
    return _SECRET.sub("…", text)[:_SHOWN_CHARACTERS]
