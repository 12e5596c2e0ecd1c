"""The settings of connections to Kafka: security, login and identity of clients."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from pusher.config.kinds import Choice, Path, Secret, Text, Word
from pusher.config.schema import Setting

#: For every connection.
COMMON = "kafka"


@dataclass(frozen=True)
class KafkaSettings:
    """The settings of all connections, or those of one role, which override them."""

    client: Setting[str]
    security_protocol: Setting[str]
    sasl_mechanism: Setting[str]
    sasl_username: Setting[str]
    sasl_password: Setting[str]
    sasl_token_file: Setting[str]
    sasl_token_command: Setting[str]
    ca_file: Setting[str]
    cert_file: Setting[str]
    key_file: Setting[str]
    key_password: Setting[str]
    client_id: Setting[str]
    rack: Setting[str]
    group_instance_id: Setting[str]
    group_protocol: Setting[str]
    isolation_level: Setting[str]

    def all(self) -> list[Setting[Any]]:
        """In the order of their declaration."""
        return [getattr(self, field.name) for field in fields(self)]


class BrokerSettings(NamedTuple):
    """Where the broker of a role is, and how it is connected to."""

    brokers: Setting[str]
    kafka: KafkaSettings


def kafka_settings(prefix: str) -> KafkaSettings:
    """The settings below ``prefix``: ``COMMON`` for all connections, another one for those of one role."""

    def text(key: str, meaning: str) -> str:
        return (
            meaning
            if prefix == COMMON
            else f"Overrides `{COMMON}.{key}` for this role; if it is not set, `{COMMON}.{key}` applies."
        )

    return KafkaSettings(
        client=Setting(
            f"{prefix}.client",
            Choice("kafka-python", "confluent-kafka"),
            "kafka-python",
            text("client", "Kafka client library; confluent-kafka needs the extra `confluent`."),
        ),
        security_protocol=Setting(
            f"{prefix}.securityProtocol",
            Choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
            "PLAINTEXT",
            text(
                "securityProtocol",
                "Security protocol of the brokers' listener; with TLS the broker's certificate is always verified.",
            ),
        ),
        sasl_mechanism=Setting(
            f"{prefix}.saslMechanism",
            Choice("none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", also={"": "none"}),
            "none",
            text("saslMechanism", "Login mechanism for SASL_SSL and SASL_PLAINTEXT."),
        ),
        sasl_username=Setting(
            f"{prefix}.saslUsername", Text(), "", text("saslUsername", "User name (or API key) for PLAIN and SCRAM.")
        ),
        sasl_password=Setting(
            f"{prefix}.saslPassword",
            Secret(),
            "",
            text("saslPassword", "Password (or API secret) for PLAIN and SCRAM."),
        ),
        sasl_token_file=Setting(
            f"{prefix}.saslTokenFile",
            Path(),
            "",
            text("saslTokenFile", "OAUTHBEARER: file that contains the token; it is read for each login."),
        ),
        sasl_token_command=Setting(
            f"{prefix}.saslTokenCommand",
            Text(),
            "",
            text(
                "saslTokenCommand", "OAUTHBEARER: command that prints the token; it is run for logins, without a shell."
            ),
        ),
        ca_file=Setting(
            f"{prefix}.caFile",
            Path(),
            "",
            text("caFile", "File of PEM certificates that are trusted instead of the system's."),
        ),
        cert_file=Setting(
            f"{prefix}.certFile", Path(), "", text("certFile", "Client certificate (PEM) for mutual TLS.")
        ),
        key_file=Setting(
            f"{prefix}.keyFile",
            Path(),
            "",
            text("keyFile", 'Key of the client certificate (PEM); "" = the key is in the certificate\'s file.'),
        ),
        key_password=Setting(
            f"{prefix}.keyPassword", Secret(), "", text("keyPassword", "Password of the client certificate's key.")
        ),
        client_id=Setting(
            f"{prefix}.clientId",
            Word(),
            "",
            text("clientId", 'Kafka\'s client.id, for quotas and logs; "" = `pusher-<command>`.'),
        ),
        rack=Setting(
            f"{prefix}.rack",
            Word(),
            "",
            text("rack", "Kafka's client.rack: fetch from a replica in this rack or zone."),
        ),
        group_instance_id=Setting(
            f"{prefix}.groupInstanceId",
            Word(),
            "",
            text("groupInstanceId", "Kafka's group.instance.id: static membership; each process needs its own."),
        ),
        group_protocol=Setting(
            f"{prefix}.groupProtocol",
            Choice("classic", "cooperative", "consumer"),
            "classic",
            text(
                "groupProtocol",
                "Rebalance protocol of the group. `cooperative` (cooperative-sticky) and `consumer` (KIP-848, Kafka 4) "
                "need confluent-kafka. All members of a group must use the same protocol.",
            ),
        ),
        isolation_level=Setting(
            f"{prefix}.isolationLevel",
            Choice("read_committed", "read_uncommitted"),
            "read_committed",
            text("isolationLevel", "`read_uncommitted` also sends messages of open and aborted transactions."),
        ),
    )
