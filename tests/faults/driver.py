"""Runs pusher's daemons against a Kafka and a provider, breaks things on the way, and settles the account.

The driver is one loop in the caller's greenlet: it reads feedbacks into the ledger, and plays each fault of the
schedule when so many messages are settled. Faults are drawn from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from lab.kafka.admin import administration, committed, topics
from lab.processes import PUSHER, Daemon, Simulator
from pusher.sim.certificate import make_p8
from tests.faults.ledger import DELIVERED, Ledger, Position, Verdict, token_of
from tests.faults.pace import Pace
from tests.faults.statsd import StatsD

PREFIX = "test."
_PARTITIONS = 3
#: The libraries that daemons may speak to Kafka with, the default first.
CLIENTS = ("kafka-python", "confluent-kafka")


class Fault(NamedTuple):
    """Something that breaks, or is repaired, when so many messages are settled."""

    after: int
    name: str
    play: Callable[[], object]


def schedule(seed: int, messages: int, faults: Sequence[tuple[str, Callable[[], object]]]) -> list[Fault]:
    """Each fault at a point between 5 % and 85 % of the run, in the given order, drawn from the seed."""
    draw = random.Random(seed)
    points = sorted(draw.randint(messages * 5 // 100, messages * 85 // 100) for _ in faults)
    return [Fault(point, name, play) for point, (name, play) in zip(points, faults, strict=True)]


def push(number: int, prefix: str = "0000", **fields: object) -> dict[str, object]:
    """A push request; the first characters of its token choose the provider's faults."""
    return {
        "DeviceToken": prefix + token_of(number),
        "Payload": {"aps": {"alert": f"message {number}"}},
        "metadata": {"number": number},
        **fields,
    }


class Driver:
    """One app "game" or several, one Kafka, one provider, Apple. Ends all that it started."""

    #: The command, which stands in the names of topics too.
    platform = "apns"
    #: The library that the daemons speak to Kafka with, of all drivers: setting kafka.client.
    client = CLIENTS[0]

    def __init__(self, directory: Path, brokers: str, *, apps: Sequence[str] = ("game",)) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.brokers, self.apps = directory, brokers, apps
        #: The consumer group of the daemons.
        self.group = f"group-of-{apps[0]}"
        self.ledger = Ledger()
        self.pace = Pace()
        self.statsd = StatsD()
        self.daemons: list[Daemon] = []
        #: What was done, and when: for the report.
        self.events: list[str] = []
        self._began = time.monotonic()
        self._numbers = 0
        self._cleanup = ExitStack()
        self._key = directory / "authkey.p8"
        self._key.write_bytes(make_p8())
        self._consumer: Any = None
        self._producer: Any = None

    def __enter__(self) -> Self:
        self._cleanup.enter_context(self.statsd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def single(self) -> str:
        """The first app's topic for single pushes."""
        return f"push-{self.apps[0]}_{self.platform}-single"

    # --- processes

    def simulator(self, *flags: str) -> Simulator:
        """Starts a provider that takes any device token."""
        simulator = Simulator(self.directory, "--any-token", *flags)
        self._cleanup.callback(simulator.end)
        simulator.start()
        return simulator

    def settings(self, port: int, ca_file: str, **changes: object) -> dict[str, Any]:
        """Of a daemon that talks to a provider at localhost. `changes` are keys with their dots, and their values."""
        credentials = {
            "authKeyPath": str(self._key),
            "keyID": "ABC123DEFG",
            "teamID": "DEF123GHIJ",
            "topic": "com.game",
        }
        settings: dict[str, Any] = {
            "apns.apps": ",".join(self.apps),
            "apns.host": "localhost",
            "apns.port": port,
            "apns.caFile": ca_file,
            "apns.concurrentWorkers": 300,
            "apns.logStatsInterval": 1000,
            "apns.reconnect.interval": "100ms",
            "apns.reconnect.maxInterval": "1s",
            "kafka.client": self.client,
            "queue.brokers": self.brokers,
            "queue.group": self.group,
            "queue.topics": [f"^push-{app}_apns" for app in self.apps],
            "queue.offsetResetStrategy": "earliest",
            "queue.sessionTimeout": 2000,
            "feedback.reporters": ["kafka"],
            "feedback.kafka.brokers": self.brokers,
            "stats.reporters": ["statsd"],
            "stats.statsd.host": f"127.0.0.1:{self.statsd.port}",
            "stats.statsd.prefix": PREFIX,
            "stats.statsd.flushIntervalMs": 100,
            "admin.port": 0,
        }
        for app in self.apps:
            settings |= {f"apns.certs.{app}.{name}": value for name, value in credentials.items()}
        return nested(settings | changes)

    def daemon(self, settings: dict[str, Any], name: str = "", program: tuple[str, ...] = PUSHER) -> Daemon:
        """Starts one, and does not wait."""
        daemon = Daemon(self.directory, name or f"daemon-{len(self.daemons)}", settings, self.platform, program)
        self._cleanup.callback(daemon.end)
        self.daemons.append(daemon)
        daemon.start()
        return daemon

    # --- messages

    def create_topics(self, *topics: str, partitions: int = _PARTITIONS, **settings: str) -> None:
        """Makes topics, and at the first time those of each app's feedbacks and invalid messages."""
        outputs = [f"push-{app}-{self.platform}-{kind}" for app in self.apps for kind in ("feedbacks", "invalid")]
        with administration(self.brokers) as admin:
            if self._consumer is None:
                admin.create_topics(dict.fromkeys(outputs, _spread(_PARTITIONS)), wait_for_metadata=True)
                self._watch(outputs)
            configs = {name.replace("_", "."): value for name, value in settings.items()}
            admin.create_topics(
                dict.fromkeys(topics, _spread(partitions) | {"configs": configs}), wait_for_metadata=True
            )

    def watch(self, *topics: str) -> None:
        """Reads further topics of feedbacks or invalid messages, which must exist."""
        self._watch(topics)

    def produce(
        self, topic: str, count: int, prefix: str = "0000", expected: str = DELIVERED, **fields: object
    ) -> None:
        """Numbered push requests over all partitions of a topic. Returns when Kafka has them."""
        numbers = range(self._numbers, self._numbers + count)
        self.produce_raw(
            topic, [json.dumps(self.request(number, prefix, **fields)).encode() for number in numbers], expected
        )

    def request(self, number: int, prefix: str, **fields: object) -> dict[str, object]:
        """The push request with this number."""
        return push(number, prefix, **fields)

    def produce_raw(self, topic: str, values: Iterable[bytes], expected: str) -> None:
        """Any bytes, which get numbers too."""
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self.brokers,
                linger_ms=20,
                batch_size=1 << 18,
                max_request_size=1 << 25,
                metadata_max_age_ms=1000,
            )
            self._cleanup.callback(self._producer.close, 5)
        partitions = self.partitions(topic)
        sent = []
        for n, value in enumerate(values):
            sent.append(self._producer.send(topic, value, partition=n // 50 % partitions))
        self._producer.flush(60)
        for future in sent:
            stored = future.get(10)
            self.ledger.produced(self._numbers, expected, Position(stored.topic, stored.partition, stored.offset))
            self._numbers += 1

    def exists(self, topic: str) -> bool:
        """Whether the brokers know the topic."""
        return topic in topics(self.brokers)

    def now_ms(self) -> int:
        """The wall clock here."""
        return int(time.time() * 1000)

    def partitions(self, topic: str) -> int:
        """How many a topic has, as the producer of these messages knows."""
        return len(self._producer.partitions_for(topic))

    # --- the run

    def run(
        self, faults: Sequence[Fault] = (), timeout_s: float = 60, look: Callable[[], object] = lambda: None
    ) -> None:
        """Until every message is settled and every fault was played; `look` is called some times a second.

        Ends without an error at the time-out: the verdict tells.
        """
        waiting = list(faults)
        deadline = time.monotonic() + timeout_s
        while (self.ledger.waiting or waiting) and time.monotonic() < deadline:
            self.read()
            look()
            while waiting and self.ledger.settled >= waiting[0].after:
                fault = waiting.pop(0)
                self.note(fault.name)
                fault.play()

    def read(self, timeout_s: float = 0.1) -> None:
        """Feedbacks and invalid messages that have come since."""
        for partition, records in self._consumer.poll(timeout_ms=timeout_s * 1000).items():
            if partition.topic.endswith("-feedbacks"):
                for record in records:
                    self.ledger.fed_back(orjson.loads(record.value))
            else:
                for record in records:
                    self.ledger.found_invalid(dict(record.headers))
        self.pace.note(self.ledger.settled, time.monotonic(), waiting=self.ledger.waiting > 0)

    def run_until(self, condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
        """Reads until the condition holds; AssertionError with the daemons' last words when it never does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"after {timeout_s:g} s: {what}; {self.ledger.verdict()}\n{self.last_words()}")
            self.read(0.02)

    def settle(self, faults: Sequence[Fault] = (), timeout_s: float = 60) -> Verdict:
        """Runs to the end and asserts that the account is in order."""
        self.run(faults, timeout_s)
        verdict = self.verdict()
        assert verdict.good, f"{verdict}\n{self.last_words()}"
        return verdict

    def verdict(self, requests: list[tuple[str, str, int, str]] | None = None) -> Verdict:
        return self.ledger.verdict({daemon.name: daemon.logs() for daemon in self.daemons}, requests or [])

    def note(self, event: str) -> None:
        self.events.append(f"{time.monotonic() - self._began:6.1f} s {self.ledger.settled:>8,} settled: {event}")

    def last_words(self) -> str:
        return "\n".join(f"--- {daemon.name}\n{daemon.logs()[-3000:]}" for daemon in self.daemons)

    def all_committed(self) -> bool:
        """Whether the group has committed all that was produced."""
        found = committed(self.brokers, self.group)
        return all(key in found and found[key].offset >= end for key, end in self.ledger.ends().items())

    # --- inside

    def _watch(self, topics: Iterable[str]) -> None:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                bootstrap_servers=self.brokers,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_records=2000,
                reconnect_backoff_max_ms=500,
            )
            self._cleanup.callback(self._consumer.close)
        have = self._consumer.assignment()
        added = {
            TopicPartition(topic, n) for topic in topics for n in self._consumer.partitions_for_topic(topic)
        } - have
        self._consumer.assign([*have, *added])
        self._consumer.seek_to_beginning(*added)


def _spread(partitions: int) -> dict[str, Any]:
    return {"num_partitions": partitions, "replication_factor": -1}  # as the brokers are set up


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, name = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[name] = value
    return tree
