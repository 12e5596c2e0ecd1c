"""Whose access tokens an app uses: what ``gcm.firebaseCredentials.<app>`` means.

A value is JSON, as text, as base64 or in a file, or the word ``application-default``. A service account's key is used
by pusher itself; every other type of credentials that Google's libraries know is left to google-auth, which is loaded
only then.

Sources: Google Cloud, "How Application Default Credentials works" (the order of places) and "Workload identity
federation".
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from pathlib import Path

from pusher.errors import CredentialError
from pusher.providers.google.fcm.access_token import Tls, TokenEndpoint, TokenSource
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.push.fields import Json

APPLICATION_DEFAULT = "application-default"
#: What looks like this is shown when it is not there; anything else may be a secret that lost its braces.
_LOOKS_LIKE_A_PATH = re.compile(r"(\.{0,2}/)?([\w. -]{1,64}/)*[\w. -]{1,64}\.json")
_STRING_OR_WRITTEN_LINE_END = re.compile(r'("(?:[^"\\]|\\.)*")|\\r|\\n', re.DOTALL)
_MAX_PATH_CHARACTERS = 1_024
_MAX_FILE_BYTES = 65_536


def token_source(value: str, project_id: str, tls: Tls) -> TokenSource:
    """What an app's setting names; ``project_id`` goes before that of the credentials, "" = theirs.

    Waits for Google's metadata server where that is asked for the project; raises ``CredentialError``, which shows no
    secret.
    """
    if value.strip() == APPLICATION_DEFAULT:
        return _application_default(project_id, tls)
    text, where = _read(value)
    return _from_json(text, where, project_id, tls)


def _application_default(project_id: str, tls: Tls) -> TokenSource:
    project_id = project_id or os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    for path in (os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", ""), _gcloud_file()):
        if path:
            return _from_json(_file(path), f"the credentials {path}", project_id, tls)
    from pusher.providers.google.fcm import google_auth

    return google_auth.metadata_server(project_id, tls)


def _gcloud_file() -> str:
    """What `gcloud auth application-default login` wrote; "" where there is none."""
    directory = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud"
    path = Path(directory) / "application_default_credentials.json"
    return str(path) if path.is_file() else ""


def _read(value: str) -> tuple[bytes, str]:
    """The JSON of a value, and how errors call it."""
    text = value.strip()
    if text.startswith("{"):
        return text.encode("utf-8", "replace"), "the credentials"
    decoded = _from_base64(text)
    if decoded.startswith(b"{"):
        return decoded, "the credentials"
    if _LOOKS_LIKE_A_PATH.fullmatch(text) or _is_file(text):
        return _file(text), f"the credentials {text}"
    raise CredentialError(
        "the credentials are neither JSON text, nor base64 of it, nor the path of a .json file that is there, nor "
        f"{APPLICATION_DEFAULT}"
    )


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True).strip()
    except (binascii.Error, ValueError):
        return b""


def _is_file(text: str) -> bool:
    try:
        return text.isprintable() and 0 < len(text) <= _MAX_PATH_CHARACTERS and Path(text).is_file()
    except OSError:
        return False


def _file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"cannot read the credentials {path}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise CredentialError(f"the credentials {path} are larger than {_MAX_FILE_BYTES} bytes")
    return data


def _from_json(text: bytes, where: str, project_id: str, tls: Tls) -> TokenSource:
    fields = _fields(text, where)
    kind = fields.get("type", "service_account")
    if kind == "service_account":
        if project_id:
            fields = fields | {"project_id": project_id}
        account = ServiceAccount.read(fields, where)
        return TokenSource(
            account.project_id, account.client_email, account.identity, TokenEndpoint(account, tls).fetch
        )
    from pusher.providers.google.fcm import google_auth

    return google_auth.from_json(fields, where, project_id, tls)


def _fields(text: bytes, where: str) -> dict[str, Json]:
    try:
        fields = _loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise CredentialError(f"{where}: not JSON") from None
    if not isinstance(fields, dict):
        raise CredentialError(f"{where}: not a JSON object")
    return fields


def _loads(text: str) -> Json:
    """JSON that may have gone through a shell or a template.

    Line ends may stand in strings as they are, and be written out as two characters between them.
    """
    loaded: Json = json.loads(_STRING_OR_WRITTEN_LINE_END.sub(lambda found: found[1] or " ", text), strict=False)
    return loaded
