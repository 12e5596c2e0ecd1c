"""Credentials of an app as they are given, and service accounts: every defect is one line that shows no secret."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from pusher.errors import CredentialError
from pusher.providers.google.fcm.access_token import TokenSource
from pusher.providers.google.fcm.credentials import GOOGLE_TOKEN_URI, SCOPE, ServiceAccount
from pusher.providers.google.fcm.token_source import token_source
from pusher.providers.http1 import Client
from pusher.providers.tls import TlsTrust

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


ACCOUNT = {
    "type": "service_account",
    "project_id": "my-project",
    "private_key_id": "abc123",
    "private_key": pem(KEY),
    "client_email": "a@my-project.iam.gserviceaccount.com",
    "token_uri": "https://token.example/path",
}


def source(value: str, project_id: str = "") -> TokenSource:
    return token_source(value, project_id, Client(TlsTrust().context))


def refusal(value: str) -> str:
    with pytest.raises(CredentialError) as caught:
        source(value)
    text = str(caught.value)
    assert text.isprintable()
    assert "secret" not in text
    assert "PRIVATE KEY" not in text
    return text


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in ACCOUNT.items() if name not in names}


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


TEXT = json.dumps(ACCOUNT)
WRITTEN_OUT = json.dumps(ACCOUNT, indent=2).replace("\n", "\\n")
IN_LINES = json.dumps(ACCOUNT).replace("\\n", "\n")


@pytest.mark.parametrize(
    "value",
    [
        TEXT,
        f" \n{TEXT}\n",
        WRITTEN_OUT,
        IN_LINES,
        in_base64(TEXT),
        in_base64(json.dumps(ACCOUNT, indent=2)) + "\n",
        "\n".join(in_base64(TEXT)[n : n + 76] for n in range(0, len(in_base64(TEXT)), 76)),
    ],
    ids=["text", "white space", "line ends written out", "line ends in the key", "base64", "base64 and \\n", "MIME"],
)
def test_a_service_account_in_any_dress(value: str) -> None:
    found = source(value)
    assert found[:2] == ("my-project", "a@my-project.iam.gserviceaccount.com")
    assert found.identity == source(TEXT).identity


@pytest.mark.parametrize("name", ["account.json", "account", "an account"])
def test_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    for path in (name, f"./{name}", f"{tmp_path}/{name}", f" {name}\n"):
        assert source(path).identity == source(TEXT).identity


def test_the_members_of_an_account() -> None:
    account = ServiceAccount.read(ACCOUNT, "x")
    assert account.key.private_numbers() == KEY.private_numbers()
    assert (account.project_id, account.client_email) == ("my-project", "a@my-project.iam.gserviceaccount.com")
    assert (account.key_id, account.token_uri) == ("abc123", "https://token.example/path")


def test_the_projects_setting_goes_first() -> None:
    assert source(TEXT, "another").project_id == "another"
    assert source(json.dumps(without("project_id")), "another").project_id == "another"
    assert source(TEXT, "another").identity != source(TEXT).identity


def test_what_may_be_left_out() -> None:
    account = ServiceAccount.read(without("type", "private_key_id", "token_uri"), "x")
    assert (account.key_id, account.token_uri) == ("", GOOGLE_TOKEN_URI)
    assert "kid" not in jwt.get_unverified_header(account.assertion(0))


def test_line_ends_written_as_two_characters() -> None:
    account = ServiceAccount.read(ACCOUNT | {"private_key": pem(KEY).replace("\n", "\\n")}, "x")
    assert account.key.private_numbers() == KEY.private_numbers()


def test_assertion() -> None:
    account = ServiceAccount.read(ACCOUNT, "x")
    assertion = account.assertion(1_700_000_000.9)
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": "abc123"}
    assert jwt.decode(
        assertion, KEY.public_key(), ["RS256"], {"verify_exp": False}, audience="https://token.example/path"
    ) == {
        "iss": "a@my-project.iam.gserviceaccount.com",
        "scope": SCOPE,
        "aud": "https://token.example/path",
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
    }


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ({}, "has no project_id"),
        (without("project_id"), "has no project_id"),
        (ACCOUNT | {"project_id": ""}, "has no project_id"),
        (ACCOUNT | {"project_id": 7}, "project_id is not a string"),
        (ACCOUNT | {"project_id": "a/../b"}, "project_id contains characters"),
        (without("client_email"), "has no client_email"),
        (without("private_key"), "has no private_key"),
        (ACCOUNT | {"private_key": "secret"}, "private_key is not a PEM key"),
        (ACCOUNT | {"private_key": pem(KEY)[:-100]}, "private_key is not a PEM key"),
        (ACCOUNT | {"private_key": pem(KEY, b"x")}, "private_key is not a PEM key without password"),
        (ACCOUNT | {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "not an RSA key"),
        (ACCOUNT | {"private_key_id": 5}, "private_key_id is not a string"),
        (ACCOUNT | {"type": "gdch_service_account"}, "its type is not one of service_account, authorized_user"),
        (ACCOUNT | {"type": ["secret"]}, "its type is not one of service_account"),
        (ACCOUNT | {"token_uri": "http://token.example/"}, "token_uri is not an https address"),
        (ACCOUNT | {"token_uri": "https://"}, "token_uri is not an https address"),
        (ACCOUNT | {"token_uri": "https://token.example:port/"}, "token_uri is not an https address"),
        (ACCOUNT | {"token_uri": "https://token.example/a b"}, "token_uri is not an https address"),
        (ACCOUNT | {"token_uri": "https://token.example/\r\nX: y"}, "token_uri is not an https address"),
        (ACCOUNT | {"token_uri": ""}, "token_uri is not an https address"),
    ],
)
def test_defects_of_the_account(account: dict[str, object], words: str, tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account))
    for given, where in ((json.dumps(account), "the Google account"), (str(file), str(file))):
        text = refusal(given)
        assert words in text
        assert where in text


def test_defects_around_it(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "none.json")).startswith(f"cannot read the Google account {tmp_path}/none.json: No")
    (tmp_path / "directory.json").mkdir()
    assert "Is a directory" in refusal(str(tmp_path / "directory.json"))
    assert "not JSON" in refusal("{")
    (tmp_path / "list").write_text("[]")
    assert "not a JSON object" in refusal(str(tmp_path / "list"))
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    assert "not JSON" in refusal(str(tmp_path / "binary"))
    (tmp_path / "deep").write_text('{"a":' + "[" * 60_000)
    assert "not JSON" in refusal(str(tmp_path / "deep"))


@pytest.mark.parametrize(
    "value",
    [
        "x" * 5_000,
        "line\nsecret",
        TEXT[1:],
        TEXT[1:60],
        in_base64(TEXT)[4:],
        "/secret/in/a+long/base64==",
        "-----BEGIN PRIVATE KEY-----\nsecret",
        '"secret"',
        "secret",
    ],
)
def test_what_is_neither_text_nor_path_is_not_shown(value: str) -> None:
    text = refusal(value)
    assert "neither a key or certificate" in text or text == "the Google account: not JSON"
    assert len(value) < 10 or value[5:30] not in text
