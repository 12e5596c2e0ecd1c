"""Which access a role has to Kafka, and what is refused before any broker is asked."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError, SaslAuthenticationFailedError

from lab.kafka.secured import unsecured_token
from pusher.broker.access import Access, CommandToken, FileToken, TokenError, expiry
from pusher.broker.kafka.access import KafkaLogin, client_settings, consumer_settings, member_settings
from pusher.broker.kafka.connections import explain
from pusher.config import settings
from pusher.config.kafka import BrokerSettings
from pusher.config.loader import parse
from pusher.errors import StartError
from pusher.listener import settings as listener_settings
from pusher.sim.certificate import make_ca, make_client_certificate

SCRAM = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u", "sasl_password": "p"}
FILE = """
kafka: {securityProtocol: sasl_ssl, saslMechanism: plain, saslUsername: all, saslPassword: hush, rack: a}
feedback: {kafka: {saslUsername: out, brokers: "other:9092", topics: x, linger.ms: 20}}
feedbackListeners: {queue: {kafka: {securityProtocol: PLAINTEXT, saslMechanism: none}}}
"""


def access(text: str, at: BrokerSettings, command: str = "apns") -> Access:
    config = parse(text)
    config.command = command
    return Access.from_config(config, settings.KAFKA, at.kafka)


def test_what_a_role_is_given_wins_over_what_all_are_given() -> None:
    queue, feedback = access(FILE, settings.QUEUE.at), access(FILE, settings.FEEDBACK_AT)
    listener = access(FILE, listener_settings.QUEUE.at)
    assert (queue.sasl_username, feedback.sasl_username) == ("all", "out")
    assert (queue.sasl_password, feedback.sasl_password) == ("hush", "hush")
    assert (queue.security_protocol, listener.security_protocol) == ("SASL_SSL", "PLAINTEXT")
    assert queue.rack == feedback.rack == "a"


def test_clients_are_named_by_their_command() -> None:
    assert access("", settings.QUEUE.at).client_id == "pusher-apns"
    assert access("kafka: {clientId: fleet}", settings.QUEUE.at).client_id == "fleet"


def test_the_default_is_read_committed_without_a_login() -> None:
    found = access("", settings.QUEUE.at)
    assert client_settings(found) == {"client_id": "pusher-apns", "security_protocol": "PLAINTEXT"}
    assert consumer_settings(found) == {"isolation_level": "read_committed", "client_rack": ""}
    assert member_settings(found)["group_instance_id"] is None


REFUSED = {
    "a mechanism without its protocol": ({"sasl_mechanism": "PLAIN"}, "set SASL_SSL"),
    "a protocol without its mechanism": ({"security_protocol": "SASL_SSL"}, "kafka.saslMechanism"),
    "no password": (SCRAM | {"sasl_password": ""}, "kafka.saslPassword"),
    "no user": (SCRAM | {"sasl_username": ""}, "kafka.saslUsername"),
    "no token": (SCRAM | {"sasl_mechanism": "OAUTHBEARER"}, "kafka.saslTokenFile"),
    "two tokens": (
        SCRAM | {"sasl_mechanism": "OAUTHBEARER", "sasl_token_file": "a", "sasl_token_command": "b"},
        "needs one of",
    ),
    "a command that cannot be parted": (
        SCRAM | {"sasl_mechanism": "OAUTHBEARER", "sasl_token_command": "echo 'a"},
        "kafka.saslTokenCommand",
    ),
    "no CA file": ({"security_protocol": "SSL", "ca_file": "/nowhere/ca.pem"}, "cannot read /nowhere/ca.pem"),
    "no CA in the file": ({"security_protocol": "SSL", "ca_file": __file__}, "holds no PEM certificate"),
    "no certificate": ({"security_protocol": "SSL", "cert_file": "/nowhere/a.pem"}, "kafka.certFile"),
    "a key alone": ({"security_protocol": "SSL", "key_file": "/nowhere/a.key"}, "kafka.certFile is missing"),
}


@pytest.mark.parametrize(("values", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_work_is_refused_in_one_line(values: dict[str, str], line: str) -> None:
    with pytest.raises(StartError, match="kafka") as refused:
        KafkaLogin(Access(**values))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_with_a_wrong_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate = make_client_certificate(make_ca(), "app")
    path, _ = certificate.write(tmp_path, "client")
    key = tmp_path / "client.key"
    key.write_bytes(
        certificate.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"right"),
        )
    )
    values = {"security_protocol": "SSL", "cert_file": path, "key_file": str(key)}
    assert "ssl_context" in client_settings(Access(**values, key_password="right"))
    for password in ("wrong", ""):
        with pytest.raises(StartError, match="wrong password"):
            client_settings(Access(**values, key_password=password))


def test_certificates_and_names_are_always_verified() -> None:
    context = client_settings(Access(security_protocol="SSL"))["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_secrets_are_not_shown() -> None:
    shown = repr(Access(sasl_password="hush", key_password="hush", sasl_token_command="get --secret hush"))
    assert "hush" not in shown


def test_a_new_secret_reaches_clients_that_are_there() -> None:
    class Client:
        def __init__(self) -> None:
            self.settings: dict[str, object] = {}

        def use(self, settings: dict[str, object]) -> None:
            self.settings = settings

    login, client = KafkaLogin(Access(**SCRAM)), Client()
    login.attach(client)
    assert login.reload(Access(**(SCRAM | {"sasl_password": "new"})))
    assert client.settings["sasl_plain_password"] == "new"
    with pytest.raises(StartError):
        login.reload(Access(**(SCRAM | {"sasl_password": ""})))
    assert login.settings["sasl_plain_password"] == "new"


# --- tokens


def test_a_token_file_is_read_for_each_login(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = FileToken(str(file))
    with pytest.raises(TokenError, match="cannot read"):
        token.token()
    for text in ("first", "second"):
        file.write_text(f"{text}\n")
        assert token.token() == text


@pytest.mark.parametrize("content", ["", "\n", "a b", "a\x01b", "é"])
def test_what_is_no_token_is_not_sent(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(TokenError, match="contains no token"):
        FileToken(str(file)).token()


def test_a_printed_token_is_kept_until_shortly_before_it_expires(tmp_path: Path) -> None:
    file = tmp_path / "token"
    now = 1_700_000_000.0
    printing = shlex.join([sys.executable, "-c", f"print(open({str(file)!r}).read())"])
    token = CommandToken(printing, clock=lambda: now)
    file.write_text(first := unsecured_token("first", lasts_s=600))
    assert token.token() == first
    file.write_text(second := unsecured_token("second", lasts_s=6000))
    assert token.token() == first
    now = (expiry(first) or 0) - 20
    assert token.token() == second


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nowhere/at-all", "No such file"),
        (f"{sys.executable} -c 'exit(3)'", "exited with status 3"),
        ("true", "no token"),
    ],
)
def test_a_command_without_a_token_is_told(command: str, reason: str) -> None:
    with pytest.raises(TokenError, match=reason):
        CommandToken(command).token()


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "..", "e30.e30.", "e30.W10.", "a.b"])
def test_tokens_need_not_say_when_they_expire(token: str) -> None:
    assert expiry(token) is None


# --- words

FAILURES = {
    "closed": (KafkaConnectionError("socket disconnected"), "a TLS or SASL listener?"),
    "closed while TLS begins": (KafkaConnectionError("Handshake failed: EOF occurred in violation"), "without TLS?"),
    "the same, told by Debian's Python": (
        KafkaConnectionError("Handshake failed: TLS/SSL connection has been closed (EOF) (_ssl.c:992)"),
        "without TLS?",
    ),
    "nothing said": (KafkaConnectionError(), "a TLS or SASL listener?"),
    "no name": (KafkaConnectionError("DNS Resolution failure"), "does not resolve"),
    "nobody": (KafkaConnectionError("111 ECONNREFUSED"), "connection refused"),
    "a login": (SaslAuthenticationFailedError("SaslAuthenticationFailedError: bad"), "authentication failed"),
    "anything else": (KafkaConnectionError("something"), "something"),
}


@pytest.mark.parametrize(("error", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_explained(error: Exception, words: str) -> None:
    assert words in explain(error)
