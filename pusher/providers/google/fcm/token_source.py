"""Whose access tokens an app uses: what ``gcm.firebaseCredentials.<app>`` means.

A value is JSON, as text, as base64 or in a file, or the word ``application-default``. A service account's key is used
by pusher itself; every other type of credentials that Google's libraries know is left to google-auth, which is loaded
only then.

Sources: Google Cloud, "How Application Default Credentials works" (the order of places) and "Workload identity
federation".
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from pusher.config.kinds import is_path
from pusher.errors import CredentialError
from pusher.providers.google.fcm.access_token import TokenEndpoint, TokenSource
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.http1 import Client
from pusher.providers.key_text import content
from pusher.push.fields import Json

APPLICATION_DEFAULT = "application-default"
#: How errors call it.
_ACCOUNT = "the Google account"
_STRING_OR_WRITTEN_LINE_END = re.compile(r'("(?:[^"\\]|\\.)*")|\\r|\\n', re.DOTALL)


def token_source(value: str, project_id: str, client: Client) -> TokenSource:
    """The credentials of an app's setting; ``project_id`` overrides the one in the credentials, "" = theirs.

    Waits for Google's metadata server where that is asked for the project; raises ``CredentialError``, which shows no
    secret.
    """
    if value.strip() == APPLICATION_DEFAULT:
        return _application_default(project_id, client)
    return _of_text(value, project_id, client)


def _application_default(project_id: str, client: Client) -> TokenSource:
    project_id = project_id or os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    for path in (os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", ""), _gcloud_file()):
        if path:
            return _of_text(str(Path(path).absolute()), project_id, client)
    from pusher.providers.google.fcm import google_auth

    return google_auth.metadata_server(project_id, client)


def _gcloud_file() -> str:
    """The file that `gcloud auth application-default login` wrote; "" if there is none."""
    directory = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud"
    path = Path(directory) / "application_default_credentials.json"
    return str(path) if path.is_file() else ""


def _of_text(value: str, project_id: str, client: Client) -> TokenSource:
    path = value.strip()
    where = f"{_ACCOUNT} {path}" if is_path(path) else _ACCOUNT
    fields = _fields(content(value, _ACCOUNT), where)
    kind = fields.get("type", "service_account")
    if kind == "service_account":
        if project_id:
            fields = fields | {"project_id": project_id}
        account = ServiceAccount.read(fields, where)
        return TokenSource(
            account.project_id, account.client_email, account.identity, TokenEndpoint(account, client).fetch
        )
    from pusher.providers.google.fcm import google_auth

    return google_auth.from_json(fields, where, project_id, client)


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
