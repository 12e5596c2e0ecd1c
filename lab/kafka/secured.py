"""A Kafka that is secured as companies secure theirs: TLS, logins of every mechanism, client certificates, rights.

Its plain listener, ``server.brokers``, is the operator's: who comes in there may do everything.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from lab.kafka.admin import administration
from lab.kafka.server import KafkaServer, free_port
from pusher.broker.access import Access
from pusher.broker.kafka import KafkaReader
from pusher.broker.kafka.access import KafkaLogin
from pusher.sim.certificate import make_ca, make_client_certificate, make_server_certificate, read_certificate

PASSWORD = "open sesame, please"
USER = "app"
_MODULES = "org.apache.kafka.common.security"


class SecuredKafka:
    """``login`` is the address of SASL_SSL, ``mutual`` that of TLS with client certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        ca, stranger = make_ca(), make_ca("Somebody else's CA")
        self.ca, _ = ca.write(directory, "ca")
        self.other_ca, _ = stranger.write(directory, "other-ca")
        self.certificate, self.key = make_client_certificate(ca, USER).write(directory, "client")
        server = make_server_certificate(ca)
        (directory / "broker.pem").write_bytes(server.key_pem() + server.pem())
        inner, login, mutual, misnamed, controller = (free_port() for _ in range(5))
        self.login, self.mutual = f"localhost:{login}", f"localhost:{mutual}"
        #: TLS under an address that the broker's certificate does not name.
        self.misnamed = f"127.0.0.2:{misnamed}"
        listeners = {"INNER": inner, "LOGIN": login, "MUTUAL": mutual}
        shown = ",".join(f"{name}://localhost:{port}" for name, port in listeners.items())
        scram = f"{_MODULES}.scram.ScramLoginModule required;"
        plain = f'{_MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        oauth = f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        self.server = KafkaServer(
            directory / "kafka",
            port=inner,
            properties={
                "listeners": f"{shown.replace('localhost', '127.0.0.1')},MISNAMED://{self.misnamed},"
                f"CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"{shown},MISNAMED://{self.misnamed}",
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listener.security.protocol.map": "INNER:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL,MISNAMED:SSL,"
                "CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "INNER",
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": directory / "broker.pem",
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": self.ca,
                "listener.name.mutual.ssl.client.auth": "required",
                "ssl.principal.mapping.rules": f"RULE:^.*UID=({USER}).*$/$1/,DEFAULT",
                "listener.name.login.scram-sha-256.sasl.jaas.config": scram,
                "listener.name.login.scram-sha-512.sasl.jaas.config": scram,
                "listener.name.login.plain.sasl.jaas.config": plain,
                "listener.name.login.oauthbearer.sasl.jaas.config": oauth,
                "listener.name.login.connections.max.reauth.ms": 3_000,
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
        )

    @property
    def brokers(self) -> str:
        """The operator's address."""
        return self.server.brokers

    def start(self) -> None:
        self.server.start()
        self.set_password(PASSWORD)
        deadline = time.monotonic() + 30
        while not self._lets_in("SCRAM-SHA-512"):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def _lets_in(self, mechanism: str) -> bool:
        """Whether the broker knows the user already: it learns of passwords from the controller."""
        access = Access("kafka-python", "SASL_SSL", mechanism, USER, PASSWORD, ca_file=self.ca)
        with closing(KafkaReader(self.login, "", login=KafkaLogin(access))) as reader:
            try:
                return reader.reach_brokers() == 1
            except OSError:
                return False

    def set_password(self, password: str) -> None:
        """Of SCRAM."""
        with administration(self.brokers) as admin:
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                # One request each: two changes of one user are refused.
                admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, mechanism, password)])

    def allow(self, kind: ResourceType, name: str, *operations: ACLOperation) -> None:
        """Gives the user rights in what begins with a name."""
        pattern = ResourcePattern(kind, name, ACLResourcePatternType.PREFIXED)
        with administration(self.brokers) as admin:
            admin.create_acls(
                [ACL(f"User:{USER}", "*", operation, ACLPermissionType.ALLOW, pattern) for operation in operations]
            )

    def expired_certificate(self) -> Sequence[str]:
        """Paths of a client's certificate that ended yesterday, and of its key."""
        ca = read_certificate(self.directory, "ca")
        return make_client_certificate(ca, USER, expired=True).write(self.directory, "expired")


def unsecured_token(user: str = USER, lasts_s: float = 3600) -> str:
    """A JWT without a signature, as Kafka's own validator for development takes it."""

    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': now, 'exp': now + lasts_s})}."
