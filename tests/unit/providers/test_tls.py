"""Contexts are shared as long as what they were made of stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.http2_server import make_files
from pusher.errors import CredentialError
from pusher.providers.apns.credentials import ClientCertificate, Credentials
from pusher.providers.tls import TlsTrust


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return authority(tmp_path, "one")


def authority(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return make_files(directory / name).authority


def test_who_trusts_the_same_shares_a_context(ca_file: Path) -> None:
    assert TlsTrust(str(ca_file)).context("h2") is TlsTrust(str(ca_file)).context("h2")


def test_a_context_for_another_protocol_or_for_changing_is_another(ca_file: Path) -> None:
    trust = TlsTrust(str(ca_file))
    assert trust.context("h2") is not trust.context()
    assert trust.new_context("h2") is not trust.context("h2")


def test_a_changed_file_is_read_again(ca_file: Path, tmp_path: Path) -> None:
    trust = TlsTrust(str(ca_file))
    before = trust.context()
    authority(tmp_path, "two").replace(ca_file)
    after = trust.context()
    assert after is not before
    assert before.get_ca_certs(binary_form=True)[-1] != after.get_ca_certs(binary_form=True)[-1]


def test_a_file_that_goes_away_is_an_error_each_time(ca_file: Path) -> None:
    trust = TlsTrust(str(ca_file))
    trust.context()
    ca_file.unlink()
    for _ in range(2):
        with pytest.raises(CredentialError, match="cannot read"):
            trust.context()


def test_a_certificate_has_a_context_of_its_own_and_keeps_it(ca_file: Path) -> None:
    files = make_files(ca_file.parent)
    pem = ca_file.parent / "client.pem"
    pem.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    trust = TlsTrust(str(ca_file))
    credentials = Credentials(trust, certificate=ClientCertificate.load(str(pem), ""))
    assert credentials.tls_context() is credentials.tls_context()
    assert credentials.tls_context() is not trust.context("h2")
