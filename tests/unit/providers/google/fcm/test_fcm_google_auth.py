"""Credentials that google-auth turns into access tokens, against a stand-in for Google's identity services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer
from google.auth.compute_engine import _metadata as metadata

from lab.google_identity import EMAIL, PROJECT, SUBJECT_TOKEN, Identity
from pusher.errors import CredentialError
from pusher.providers.google.fcm import google_auth
from pusher.providers.google.fcm.access_token import AccessToken, TokenFailed, TokenSource
from pusher.providers.google.fcm.token_source import APPLICATION_DEFAULT, token_source
from pusher.providers.http1 import Client
from pusher.providers.tls import TlsTrust
from pusher.sim.certificate import TlsFiles, server_context
from pusher.sim.fcm_oauth import OAuth
from tests.faults.altered import HostsFile


@pytest.fixture
def identity(oauth: OAuth, files: TlsFiles) -> Iterator[Identity]:
    context = server_context(files)
    context.set_alpn_protocols(["http/1.1"])
    with Identity(oauth).listening(context) as listening:
        yield listening


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))


Source = Callable[..., TokenSource]


@pytest.fixture
def source(files: TlsFiles) -> Source:
    def read(fields: dict[str, Any] | str, project_id: str = PROJECT) -> TokenSource:
        value = fields if isinstance(fields, str) else json.dumps(fields)
        return token_source(value, project_id, Client(TlsTrust(files.ca).context))

    return read


def failure(found: TokenSource) -> TokenFailed:
    with pytest.raises(TokenFailed) as caught:
        found.fetch()
    text = str(caught.value)
    assert text.isprintable()
    assert "hush" not in text
    assert SUBJECT_TOKEN not in text
    return caught.value


def good(found: TokenSource, oauth: OAuth) -> bool:
    grant = found.fetch()
    assert 3_000 < grant.lifetime_s <= 3_600
    return oauth.project_of(grant.token) == PROJECT


# ---- kinds of credentials


def test_an_authorized_user(identity: Identity, oauth: OAuth, source: Source) -> None:
    assert good(source(identity.user()), oauth)
    assert good(source(identity.user() | {"quota_project_id": PROJECT}, ""), oauth)


@pytest.mark.parametrize("impersonated", [False, True])
def test_a_credential_in_a_file(
    identity: Identity, oauth: OAuth, source: Source, tmp_path: Path, impersonated: bool
) -> None:
    token = tmp_path / "token"
    token.write_text(SUBJECT_TOKEN)
    found = source(identity.external({"file": str(token)}, impersonated=impersonated))
    assert good(found, oauth)
    assert any("generateAccessToken" in path for path in identity.asked) is impersonated


@pytest.mark.parametrize("impersonated", [False, True])
def test_a_credential_from_an_address(identity: Identity, oauth: OAuth, source: Source, impersonated: bool) -> None:
    where = {
        "url": f"{identity.address}/subject",
        "format": {"type": "json", "subject_token_field_name": "token"},
    }
    assert good(source(identity.external(where, impersonated=impersonated)), oauth)


def executable(tmp_path: Path, body: str) -> dict[str, Any]:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o700)
    return {"executable": {"command": str(program), "timeout_millis": 5_000}}


def test_a_credential_from_a_program(
    identity: Identity, oauth: OAuth, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": SUBJECT_TOKEN,
        "expiration_time": int(time.time()) + 3_600,
    }
    found = source(identity.external(executable(tmp_path, f"echo '{json.dumps(answer)}'")))
    assert "Executables need to be explicitly allowed" in str(failure(found))
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    assert good(found, oauth)


def test_an_impersonated_service_account(
    oauth: OAuth, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own account gets a token; then the library asks Google's own address, which leads to nowhere here."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 iamcredentials.googleapis.com\n")
    monkeypatch.setattr(gevent.get_hub(), "resolver", HostsFile(hosts))
    fields: dict[str, Any] = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": (
            f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken"
        ),
        "source_credentials": oauth.new_account("another-project"),
    }
    error = failure(source(fields))
    assert "iamcredentials.googleapis.com" in str(error)
    assert not error.refused
    assert oauth.counts["200 OK"] == 1
    oauth.remove_account(fields["source_credentials"]["client_email"])
    error = failure(source(fields))
    assert "account not found" in str(error)
    assert error.refused


def test_the_metadata_server(
    oauth: OAuth, source: Source, no_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Identity(oauth).listening() as identity:
        monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", f"127.0.0.1:{identity.port}")
        found = source(APPLICATION_DEFAULT, "")
        assert found.project_id == PROJECT
        assert good(found, oauth)


# ---- application default credentials


def test_the_places_of_default_credentials(
    identity: Identity, source: Source, no_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcloud = tmp_path / "gcloud" / "application_default_credentials.json"
    gcloud.parent.mkdir()
    gcloud.write_text(json.dumps(identity.user() | {"quota_project_id": "of-gcloud"}))
    assert source(APPLICATION_DEFAULT, "").project_id == "of-gcloud"
    file = tmp_path / "named.json"
    file.write_text(json.dumps(identity.user()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-the-environment")
    assert source(APPLICATION_DEFAULT, "").project_id == "of-the-environment"
    assert source(APPLICATION_DEFAULT, "of-the-setting").project_id == "of-the-setting"


def test_no_default_credentials(source: Source, no_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", "127.0.0.1:1")
    monkeypatch.setattr(google_auth, "_METADATA_TIMEOUT_S", 0.3)
    with pytest.raises(CredentialError, match="application-default: neither GOOGLE_APPLICATION_CREDENTIALS nor"):
        source(APPLICATION_DEFAULT, "")


def test_a_file_of_default_credentials_that_is_not_there(
    source: Source, no_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such.json")
    with pytest.raises(CredentialError, match=r"cannot read the Google account /no/such\.json"):
        source(APPLICATION_DEFAULT)


# ---- what is wrong


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refresh_token": None}, "no refresh_token"),
        ({"refresh_token": 7, "client_id": ""}, "no refresh_token, client_id"),
        ({"token_uri": "file:///etc/passwd"}, "not an http or https address"),
        ({"token_uri": 7}, ""),
        ({"type": "external_account"}, "the Google account: "),
        ({"type": "external_account", "credential_source": {"file": 7}}, "the Google account: "),
        ({"type": "external_account", "credential_source": "hush"}, "the Google account: "),
        ({"type": "external_account", "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request"}, ": "),
        ({"type": "impersonated_service_account"}, "the Google account: "),
        ({"type": "impersonated_service_account", "source_credentials": "hush"}, "the Google account: "),
        ({"type": "external_account_authorized_user"}, ""),
    ],
)
def test_defects(identity: Identity, source: Source, changes: dict[str, Any], words: str) -> None:
    fields = {name: value for name, value in (identity.user() | changes).items() if value is not None}
    try:
        found = source(fields)
    except CredentialError as error:
        text = str(error)
    else:
        text = str(failure(found))
    assert words in text
    assert text.isprintable()
    assert "hush" not in text


def test_no_project(identity: Identity, source: Source, no_credentials: None) -> None:
    with pytest.raises(CredentialError, match=r"names no project: set gcm\.fcm\.projectId\.<app>"):
        source(identity.user(), "")
    with pytest.raises(CredentialError, match="project_id contains characters"):
        source(identity.user(), "a/b")


def test_a_refused_refresh_token(identity: Identity, source: Source) -> None:
    error = failure(source(identity.user() | {"refresh_token": "another"}))
    assert "Token has been expired or revoked" in str(error)
    assert error.refused


def test_an_endpoint_that_is_not_there(source: Source, identity: Identity) -> None:
    error = failure(source(identity.user() | {"token_uri": "https://127.0.0.1:1/token"}))
    assert not error.refused
    assert "refused" in str(error)


def test_a_program_that_fails_or_says_its_token_is_not_shown(
    identity: Identity, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    for body in (f"echo hush {SUBJECT_TOKEN}; exit 1", "echo '[7]'", 'echo \'{"version": "x"}\'', "exit 0"):
        failure(source(identity.external(executable(tmp_path, body))))


# ---- bounded, and interrupted


def test_a_program_that_does_not_end(
    identity: Identity, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    monkeypatch.setattr(google_auth, "REQUEST_TIMEOUT_S", 0.3)
    others_go_on = gevent.spawn(gevent.sleep, 0.01)
    found = source(identity.external(executable(tmp_path, "exec sleep 60")))
    assert "gave no answer within 0.3 s" in str(failure(found))
    assert others_go_on.dead


@pytest.mark.parametrize(
    "octets", [b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 9_000]
)
def test_an_endpoint_that_never_ends(
    identity: Identity, source: Source, octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_auth, "REQUEST_TIMEOUT_S", 0.5)

    def serve(sock: Any, _: object) -> None:
        try:
            while True:
                sock.sendall(octets)
                gevent.sleep(0.001)
        except OSError:
            sock.close()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    where = {"url": f"http://127.0.0.1:{server.socket.getsockname()[1]}/subject"}
    assert not failure(source(identity.external(where))).refused
    server.stop(timeout=0)


def test_it_is_kept_fresh_like_any_other(identity: Identity, oauth: OAuth, source: Source) -> None:
    found = source(identity.user())
    token = AccessToken(found.account, found.fetch)
    token.prime(20)
    assert oauth.project_of(token.current()) == PROJECT
