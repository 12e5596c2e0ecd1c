"""Google's other ways to an access token, for google-auth: refresh tokens, STS, impersonation, the metadata server.

Each issues tokens that the simulated FCM takes. Sources: Google Cloud, "Workload identity federation", "Service account
credentials API", "VM metadata"; RFC 8693 (token exchange).
"""

from __future__ import annotations

import datetime
import json
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from gevent.pywsgi import WSGIServer

from pusher.sim.fcm_oauth import OAuth, QuietServer

PROJECT = "my-project"
AUDIENCE = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool/providers/provider"
EMAIL = "fcm@my-project.iam.gserviceaccount.com"
SUBJECT_TOKEN = "a-token-of-another-cloud"
REFRESH_TOKEN = "1//a-refresh-token"
FEDERATED = "a-federated-token"

Answer = tuple[int, dict[str, Any]]


class Identity:
    """The service. ``asked`` are the paths, in order."""

    def __init__(self, oauth: OAuth) -> None:
        self.asked: list[str] = []
        self._oauth = oauth
        self.port = 0

    @contextmanager
    def listening(self, context: ssl.SSLContext | None = None) -> Iterator[Identity]:
        address = ("127.0.0.1", 0)
        if context is None:
            server = WSGIServer(address, self._application, log=None)
        else:
            server = QuietServer(self._oauth.counts, address, self._application, log=None, ssl_context=context)
        server.start()
        self.port = int(server.socket.getsockname()[1])
        try:
            yield self
        finally:
            server.stop(timeout=0)

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def external(self, source: dict[str, Any], *, impersonated: bool = False) -> dict[str, Any]:
        """The configuration of a workload identity pool."""
        account = {
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.address}/v1/token",
            "credential_source": source,
        }
        if impersonated:
            account["service_account_impersonation_url"] = (
                f"{self.address}/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken"
            )
        return account

    def user(self) -> dict[str, Any]:
        """What `gcloud auth application-default login` writes."""
        return {
            "type": "authorized_user",
            "client_id": "client",
            "client_secret": "hush",
            "refresh_token": REFRESH_TOKEN,
            "token_uri": f"{self.address}/token",
        }

    def _application(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.asked.append(path)
        text = environ["wsgi.input"].read().decode()
        answers = {
            "/token": self._refresh,
            "/v1/token": self._exchange,
            "/subject": lambda *_: (200, {"token": SUBJECT_TOKEN}),
            f"/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken": self._impersonate,
        }
        metadata = path.startswith("/computeMetadata/") or path == "/"
        status, facts = self._metadata(environ, path) if metadata else answers[path](environ, text)
        body = facts["text"].encode() if "text" in facts else json.dumps(facts).encode()
        kind = "text/plain" if "text" in facts else "application/json"
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Metadata-Flavor", "Google")]
        start_response(f"{status} Whatever", headers)
        return [body]

    def _refresh(self, _: dict[str, Any], text: str) -> Answer:
        form = {name: values[0] for name, values in parse_qs(text).items()}
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != REFRESH_TOKEN:
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        return 200, {"access_token": self._oauth.issue(PROJECT), "expires_in": 3599, "token_type": "Bearer"}

    def _exchange(self, _: dict[str, Any], text: str) -> Answer:
        form = {name: values[0] for name, values in parse_qs(text).items()}
        if form.get("audience") != AUDIENCE or form.get("subject_token") != SUBJECT_TOKEN:
            return 400, {"error": "invalid_grant", "error_description": "The subject token is not accepted."}
        # with impersonation it is asked for iam's scope, and its token is good for nothing else
        firebase = "firebase.messaging" in form.get("scope", "")
        token = self._oauth.issue(PROJECT) if firebase else FEDERATED
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return 200, {"access_token": token, "issued_token_type": kind, "token_type": "Bearer", "expires_in": 3600}

    def _impersonate(self, environ: dict[str, Any], text: str) -> Answer:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        if token != FEDERATED and self._oauth.project_of(token) is None:
            return 403, {"error": {"code": 403, "message": "Permission 'iam.serviceAccounts.getAccessToken' denied"}}
        assert "firebase.messaging" in json.loads(text)["scope"][0]
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        return 200, {"accessToken": self._oauth.issue(PROJECT), "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _metadata(self, environ: dict[str, Any], path: str) -> Answer:
        if environ.get("HTTP_METADATA_FLAVOR") != "Google":
            return 403, {"text": "Missing Metadata-Flavor:Google header."}
        if path.endswith("/project/project-id"):
            return 200, {"text": PROJECT}
        if path.endswith("/token"):
            return 200, {"access_token": self._oauth.issue(PROJECT), "expires_in": 3599, "token_type": "Bearer"}
        return 200, {"email": EMAIL, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
