"""Keys and certificates as settings hold them; nothing shows what is not plainly a path."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pusher import config
from pusher.config.effective import effective
from pusher.errors import CredentialError
from pusher.providers.apns.credentials import ClientCertificate, ProviderToken
from pusher.providers.key_text import content
from pusher.sim.certificate import make_p8

KEY = make_p8().decode()
LINES = [line for line in KEY.splitlines() if "-----" not in line]
SPELLINGS = {
    "text": KEY,
    "with blanks around": f"\n  {KEY}\n\n",
    "line ends written out": KEY.replace("\n", "\\n"),
    "Windows' line ends": KEY.replace("\n", "\r\n"),
    "Windows' line ends written out": KEY.replace("\n", "\\r\\n"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 in lines": base64.encodebytes(KEY.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "without its first and last line": "".join(LINES),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_taken_as_it_is_spelled(spelling: str) -> None:
    expected = ProviderToken.load(KEY, "K", "T")
    assert ProviderToken.load(SPELLINGS[spelling], "K", "T").same_as(expected)


def test_a_path_is_read_and_named_when_it_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "key.p8"
    path.write_text(KEY)
    assert content(f" {path}\n", "the key") == KEY.encode()
    with pytest.raises(CredentialError, match=r"cannot read the key /no/such\.p8: No such file"):
        content("/no/such.p8", "the key")


NEITHER = {
    "half a key": KEY[: len(KEY) // 2].replace("-----BEGIN PRIVATE KEY-----", ""),
    "a word": "hunter2-hush",
    "base64 of something else": base64.b64encode(b"hush" * 40).decode(),
    "a key of which a line is broken": KEY.replace(LINES[0], LINES[0][:-4]),
    "JSON": '{"private_key": "hush"}',
    "octets": "\udc80hush",
    "very long": "hush" * 100_000,
}


LOADS = [lambda one: ProviderToken.load(one, "K", "T"), lambda one: ClientCertificate.load(one, "")]


@pytest.mark.parametrize("spelling", NEITHER)
@pytest.mark.parametrize(
    "load", [lambda text: ProviderToken.load(text, "K", "T"), lambda t: ClientCertificate.load(t, "")]
)
def test_what_is_neither_is_refused_in_one_line_that_shows_none_of_it(load: object, spelling: str) -> None:
    value = NEITHER[spelling]
    with pytest.raises(CredentialError) as refused:
        load(value)  # type: ignore[operator]
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert "hush" not in message
    assert not any(line in message for line in value.splitlines() if len(line) > 8)


@pytest.mark.parametrize("spelling", SPELLINGS | NEITHER)
def test_settings_show_a_path_and_nothing_else(spelling: str) -> None:
    value = (SPELLINGS | NEITHER)[spelling]
    if "\udc80" in value:
        return
    environ = {
        "PUSHER_APNS_APPS": "a",
        "PUSHER_APNS_CERTS_A_AUTHKEYPATH": value,
        "PUSHER_APNS_CERTS_A_CERTPATH": "a.pem",
    }
    shown = "\n".join(effective(config.parse("", environ)))
    assert "a.pem" in shown
    assert "hush" not in shown
    assert not any(line in shown for line in value.splitlines() if len(line) > 8)
