"""The services that are measured: who plays the provider, and what settings, requests and feedbacks look like."""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lab.kafka.server import free_port
from lab.nginx import Nginx, private_key_pem
from lab.processes import Simulator

Provider = Nginx | Simulator


class ProviderMaker(Protocol):
    """Makes a provider in a directory that does not exist yet, which may note when each push arrived."""

    def __call__(self, directory: Path, *, log_arrivals: bool = False) -> Provider:
        """Does not start it."""


class Service(NamedTuple):
    """A command of pusher, how it is set up for some apps at a provider, and where the names of things are."""

    #: The command, which is the platform in names of topics too.
    platform: str
    provider: ProviderMaker
    settings: Callable[[Provider, Path, Sequence[str]], dict[str, Any]]
    #: Members of a feedback and of a request.
    id_member: str
    feedback_token: str
    request_token: str

    def source(self, app: str = "game", kind: str = "single") -> str:
        """Topic of an app's requests."""
        return f"push-{app}_{self.platform}-{kind}"

    def feedbacks(self, app: str = "game") -> str:
        """Topic of an app's feedbacks."""
        return f"push-{app}-{self.platform}-feedbacks"


def apns_settings(nginx: Provider, directory: Path, apps: Sequence[str]) -> dict[str, Any]:
    """Settings of apps at Apple, played by nginx."""
    key = directory / "authkey.p8"
    key.write_bytes(private_key_pem(ec.generate_private_key(ec.SECP256R1())))
    credentials = {"authKeyPath": str(key), "keyID": "BENCH12345", "teamID": "BENCHTEAM1", "topic": "com.example.game"}
    return {
        "apns": {
            "apps": ",".join(apps),
            "host": "localhost",
            "port": nginx.port,
            "caFile": nginx.ca_file,
            "certs": dict.fromkeys(apps, credentials),
        }
    }


def fcm_settings(nginx: Provider, directory: Path, apps: Sequence[str]) -> dict[str, Any]:
    """Settings of apps at Google's FCM, played by nginx."""
    account = {
        "type": "service_account",
        "project_id": "bench",
        "client_email": "pusher@bench.iam.gserviceaccount.com",
        "private_key": private_key_pem(rsa.generate_private_key(65_537, 2048)).decode(),
        "token_uri": f"https://localhost:{nginx.port}/token",
    }
    file = directory / "account.json"
    file.write_text(json.dumps(account))
    fcm = {"endpoint": f"https://localhost:{nginx.port}", "caFile": nginx.ca_file, "maxRate": 0}
    return {"gcm": {"apps": ",".join(apps), "fcm": fcm, "firebaseCredentials": dict.fromkeys(apps, str(file))}}


def gcm_settings(simulator: Provider, _: Path, apps: Sequence[str]) -> dict[str, Any]:
    """Settings of apps at Google over XMPP, played by the simulator."""
    return {
        "gcm": {
            "apps": ",".join(apps),
            "xmpp": {"host": "localhost", "port": simulator.port, "caFile": simulator.ca_file},
            "certs": {app: {"apiKey": "key", "senderID": "1234567890"} for app in apps},
        }
    }


def gcm_simulator(directory: Path, *, log_arrivals: bool = False, latency_ms: int = 0) -> Simulator:  # noqa: ARG001
    """Google over XMPP, which nobody else speaks; it answers after latency_ms, and cannot note arrivals."""
    directory.mkdir(parents=True)
    return Simulator(directory, "--ledger-limit", "0", "--ack-delay-ms", str(latency_ms), platform="gcm")


#: what config/default.yaml sets for a sender's throughput, by the name of the service
RECOMMENDED: dict[str, dict[str, int | str]] = {"apns": {"apns.concurrentWorkers": 300}, "fcm": {}, "gcm": {}}

#: The other client of Kafka.
CONFLUENT = {"kafka.client": "confluent-kafka"}

SERVICES = {
    "apns": Service("apns", Nginx, apns_settings, "ApnsID", "DeviceToken", "DeviceToken"),
    "fcm": Service("gcm", Nginx, fcm_settings, "message_id", "from", "to"),
    "gcm": Service("gcm", gcm_simulator, gcm_settings, "message_id", "from", "to"),
}


def common_settings(brokers: str, group: str, topics: Sequence[str], statsd: socket.socket) -> dict[str, Any]:
    """Settings of both ends, of the statistics and of the admin port."""
    return {
        "queue": {"brokers": brokers, "topics": list(topics), "group": group, "offsetResetStrategy": "earliest"},
        "feedback": {"reporters": ["kafka"], "kafka": {"brokers": brokers}},
        "stats": {
            "reporters": ["statsd"],
            "statsd": {"host": f"127.0.0.1:{statsd.getsockname()[1]}", "prefix": "bench"},
        },
        "admin": {"port": free_port()},
    }
