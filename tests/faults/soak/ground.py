"""What a soak runs on: a Kafka, the providers, a daemon of each command; and the mild faults that befall them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import gevent

from lab.kafka.admin import administration
from lab.kafka.server import KafkaServer, free_port
from lab.nginx import Nginx
from lab.processes import PUSHER, Daemon, Simulator
from pusher.sim.certificate import make_p8
from tests.faults.driver import nested
from tests.faults.soak.samples import Watched
from tests.faults.soak.streams import PARTITIONS, Stream
from tests.faults.soak.tokens import Tokens

#: Per cent of the requests to Apple that are answered so, and requests after which a connection is sent away.
APPLE_FAULTS = {429: 0.3, 500: 0.2, 503: 0.3}
REQUESTS_A_CONNECTION = 200_000
#: What the XMPP service does besides answering.
GOOGLE_FAULTS = (
    "prefix=dead:nack DEVICE_UNREGISTERED",
    "nack SERVICE_UNAVAILABLE:0.005,once",
    "drain:1/5000",
    "cut:1/8000",
)
#: The disk is not to fill: Kafka keeps so much of each partition.
RETENTION = {
    "log.segment.bytes": 32 << 20,
    "log.retention.bytes": 192 << 20,
    "log.retention.check.interval.ms": 10_000,
    "log.segment.delete.delay.ms": 1_000,
}
_RESTART_S = 0.5
#: A session of its own for each daemon, as a supervisor gives it: Linux shares processors out by session.
_IN_SESSION = ("setsid", *PUSHER)


class Ground:
    """Everything that runs, while it is entered. `client` is the daemons' setting kafka.client."""

    def __init__(self, directory: Path, streams: list[Stream], tokens: Tokens, client: str) -> None:
        self._directory, self._streams, self._tokens, self._client = directory, streams, tokens, client
        self.kafka = KafkaServer(directory / "kafka", properties=RETENTION)
        self.apple = Nginx(
            directory / "nginx", log_arrivals=False, keepalive_requests=REQUESTS_A_CONNECTION, faults=APPLE_FAULTS
        )
        faults = [flag for fault in GOOGLE_FAULTS for flag in ("--fault", fault)]
        (directory / "google").mkdir()
        self.google = Simulator(directory / "google", "--account", "123:key", *faults, platform="gcm")
        self.daemons: dict[str, Watched] = {}
        self._key = directory / "authkey.p8"
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with self._cleanup as cleanup:
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _start(self, cleanup: ExitStack) -> None:
        for service in (self.kafka, self.apple):
            service.start()
            cleanup.callback(service.stop)
        self.google.start()
        cleanup.callback(self.google.end)
        self._key.write_bytes(make_p8())
        self._create_topics()
        for command, settings in (
            ("apns", self._apple()),
            ("gcm", self._google()),
            ("start-feedback-listener", self._listener()),
        ):
            port = free_port()
            common = {"kafka.client": self._client, "admin.port": port, "stats.reporters": []}
            daemon = Daemon(self._directory, command, nested(settings | common), command, _IN_SESSION)
            cleanup.callback(daemon.end)
            daemon.start()
            self.daemons[command] = Watched(daemon, port)
        for watched in self.daemons.values():
            watched.daemon.wait_for("started")

    def _create_topics(self) -> None:
        names = [
            name for stream in self._streams for name in (stream.topic, stream.feedback_topic, stream.invalid_topic)
        ]
        settings: dict[str, Any] = {"num_partitions": PARTITIONS, "replication_factor": 1}
        with administration(self.kafka.brokers) as admin:
            admin.create_topics(dict.fromkeys(names, settings), wait_for_metadata=True)

    # --- settings

    def _apps(self, platform: str) -> list[str]:
        return [stream.app for stream in self._streams if stream.platform == platform]

    def _sender(self, platform: str) -> dict[str, Any]:
        return {
            f"{platform}.apps": ",".join(self._apps(platform)),
            "queue.brokers": self.kafka.brokers,
            "queue.group": f"soak-{platform}",
            "queue.offsetResetStrategy": "earliest",
            "feedback.reporters": ["kafka"],
            "feedback.kafka.brokers": self.kafka.brokers,
        }

    def _apple(self) -> dict[str, Any]:
        credentials = {"authKeyPath": str(self._key), "keyID": "ABC123DEFG", "teamID": "DEF123GHIJ"}
        apps = {f"apns.certs.{app}": credentials | {"topic": f"com.{app}"} for app in self._apps("apns")}
        provider = {
            "apns.host": "localhost",
            "apns.port": self.apple.port,
            "apns.caFile": str(self.apple.certificate),
            "apns.concurrentWorkers": 300,
        }
        return self._sender("apns") | apps | provider

    def _google(self) -> dict[str, Any]:
        accounts = {f"gcm.certs.{app}": {"apiKey": "key", "senderID": "123"} for app in self._apps("gcm")}
        provider = {
            "gcm.xmpp.host": "localhost",
            "gcm.xmpp.port": self.google.port,
            "gcm.xmpp.caFile": self.google.ca_file,
        }
        return self._sender("gcm") | accounts | provider

    def _listener(self) -> dict[str, Any]:
        tokens = {f"feedbackListeners.invalidToken.pg.{key}": value for key, value in self._tokens.settings().items()}
        return tokens | {
            "feedbackListeners.queue.brokers": self.kafka.brokers,
            "feedbackListeners.queue.group": "soak-listener",
            "feedbackListeners.queue.offsetResetStrategy": "earliest",
            "feedbackListeners.gracefulShutdownTimeout": 10,
        }

    # --- faults

    @property
    def faults(self) -> dict[str, Callable[[], object]]:
        """The mild ones, by what is printed about them."""
        return {
            "Apple cuts all connections, and is back after 0.5 s": self.cut,
            "Apple does not answer for a second": self.slow,
            "SIGHUP with a new key": self.renew,
        }

    def cut(self) -> None:
        """All connections to Apple end at once, and for a moment nobody listens."""
        self.apple.stop()
        gevent.sleep(_RESTART_S)
        self.apple.start()

    def slow(self) -> None:
        """Connections stay, answers come a second later."""
        self.apple.freeze()
        gevent.sleep(1)
        self.apple.thaw()

    def renew(self) -> None:
        """New credentials, new connections."""
        self._key.write_bytes(make_p8())
        self.daemons["apns"].daemon.signal(signal.SIGHUP)
