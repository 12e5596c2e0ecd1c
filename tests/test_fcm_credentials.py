"""Service accounts: every defect is one clear line that shows no secret."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from pusher.errors import CredentialError
from pusher.providers.google.fcm.credentials import GOOGLE_TOKEN_URI, SCOPE, ServiceAccount

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


def refusal(text_or_path: str) -> str:
    with pytest.raises(CredentialError) as caught:
        ServiceAccount.load(text_or_path)
    return str(caught.value)


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in ACCOUNT.items() if name not in names}


def test_text_and_file_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    file.write_text(json.dumps(ACCOUNT))
    from_text, from_file = ServiceAccount.load(" \n" + json.dumps(ACCOUNT)), ServiceAccount.load(str(file))
    for account in (from_text, from_file):
        assert account.key.private_numbers() == KEY.private_numbers()
        assert (account.project_id, account.client_email) == ("my-project", "a@my-project.iam.gserviceaccount.com")
        assert (account.key_id, account.token_uri) == ("abc123", "https://token.example/path")


def test_what_may_be_left_out() -> None:
    account = ServiceAccount.load(json.dumps(without("type", "private_key_id", "token_uri")))
    assert (account.key_id, account.token_uri) == ("", GOOGLE_TOKEN_URI)
    assert "kid" not in jwt.get_unverified_header(account.assertion(0))


def test_line_ends_written_as_two_characters() -> None:
    account = ServiceAccount.load(json.dumps(ACCOUNT | {"private_key": pem(KEY).replace("\n", "\\n")}))
    assert account.key.private_numbers() == KEY.private_numbers()


def test_assertion() -> None:
    account = ServiceAccount.load(json.dumps(ACCOUNT))
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
        (ACCOUNT | {"project_id": "a/../b"}, "project_id has characters"),
        (without("client_email"), "has no client_email"),
        (without("private_key"), "has no private_key"),
        (ACCOUNT | {"private_key": "secret"}, "private_key is not a PEM key"),
        (ACCOUNT | {"private_key": pem(KEY)[:-100]}, "private_key is not a PEM key"),
        (ACCOUNT | {"private_key": pem(KEY, b"x")}, "private_key is not a PEM key without password"),
        (ACCOUNT | {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "not an RSA key"),
        (ACCOUNT | {"private_key_id": 5}, "private_key_id is not a string"),
        (ACCOUNT | {"type": "authorized_user"}, "another type than service_account"),
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
    for given, where in ((json.dumps(account), "the service account"), (str(file), str(file))):
        text = refusal(given)
        assert words in text
        assert where in text
        assert text.isprintable()
        assert "PRIVATE KEY" not in text
        assert "secret" not in text


def test_defects_around_it(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "none.json")).startswith(f"cannot read the service account {tmp_path}/none.json: No")
    assert "Is a directory" in refusal(str(tmp_path))
    assert "neither JSON text nor the path" in refusal("")
    assert "neither JSON text nor the path" in refusal("line\nline")
    assert "neither JSON text nor the path" in refusal("x" * 5000)
    assert "is not JSON" in refusal("{")
    (tmp_path / "list").write_text("[]")
    assert "is not a JSON object" in refusal(str(tmp_path / "list"))
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    assert "is not JSON" in refusal(str(tmp_path / "binary"))
