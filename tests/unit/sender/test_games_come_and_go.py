"""Games that are added to the configuration, and games that leave it, while the process runs: nothing restarts."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import yaml

from lab.processes import PUSHER, Process, wait_until
from pusher import config
from pusher.broker import connect
from pusher.config import settings
from pusher.push.topics import feedback_topic
from pusher.sim.apns import ApnsSimulator
from pusher.sim.apns_rules import AppleRules
from pusher.sim.certificate import make_p8


class Stage:
    """`pusher apns` as a process, its configuration file and a simulated Apple."""

    def __init__(self, directory: Path, address: str, *fault: str) -> None:
        self.directory, self.address = directory, address
        #: Of the names of games: Kafka keeps the topics of other tests.
        self._suffix = uuid.uuid4().hex[:8]
        rules = AppleRules(any_token=True)
        self.apple = ApnsSimulator(rules, tls_dir=str(directory), faults=fault)
        self.apple.start()
        (directory / "key.p8").write_bytes(make_p8())
        self.broker = connect.broker(config.parse(""), settings.QUEUE.at, address)
        self.publisher = self.broker.publisher()
        self.file = directory / "pusher.yaml"
        self.sender = Process(directory, "apns", (*PUSHER, "apns", "--config", str(self.file)))
        self._sent = 0

    def name(self, game: str) -> str:
        """Of a game, as everybody else knows it."""
        return f"{game}-{self._suffix}"

    def configure(self, *which: str) -> None:
        games = [self.name(game) for game in which]
        cert = {"authKeyPath": str(self.directory / "key.p8"), "keyID": "KEY1234567", "teamID": "TEAM123456"}
        given = {
            "apns": {
                "apps": ",".join(games),
                "host": "localhost",
                "port": self.apple.port,
                "caFile": str(self.apple.ca_file),
                "certs": {game: cert | {"topic": "com.game"} for game in games},
            },
            "queue": {
                "brokers": self.address,
                "group": f"games-{self._suffix}",
                "topics": [f"^push-.+-{self._suffix}_apns-single$"],
                "offsetResetStrategy": "earliest",
                "metadataRefresh": "1s",
            },
            "feedback": {"reporters": ["kafka"], "kafka": {"brokers": self.address}},
            "gracefulShutdownTimeout": "5s",
            "admin": {"port": 0},
        }
        # put into its place as an editor or Kubernetes does it
        draft = self.file.with_suffix(".new")
        draft.write_text(yaml.safe_dump(given))
        draft.rename(self.file)

    def send(self, game: str, count: int = 1) -> None:
        for _ in range(count):
            self._sent += 1
            push = {"DeviceToken": f"{self._sent:064x}", "Payload": {"aps": {"alert": game}}}
            self.publisher.publish(f"push-{self.name(game)}_apns-single", json.dumps(push).encode(), lambda _: None)
        self.publisher.flush(10.0)

    def reload(self) -> None:
        before = self.sender.log().count("configuration reloaded")
        self.sender.signal(signal.SIGHUP)
        wait_until(lambda: self.sender.log().count("configuration reloaded") > before, self.sender.log)

    def summary(self) -> str:
        return [line for line in self.sender.log().splitlines() if "configuration reloaded" in line][-1]

    def delivered(self) -> int:
        return int(self.apple.counts()["delivered"])

    def connections(self) -> int:
        return len(self.apple.server.links)

    def wait_delivered(self, count: int) -> None:
        wait_until(lambda: self.delivered() == count, lambda: f"{self.apple.counts()} {self.sender.log()}", 60)

    def records(self, topic: str) -> int:
        with closing(self.broker.reader(topic)) as reader:
            return len(list(reader.read(2.0)))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.integration)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path}/queue.db" if request.param == "sqlite" else str(request.getfixturevalue("kafka_brokers"))
    )


def start(stack: ExitStack, directory: Path, address: str, *games: str, fault: tuple[str, ...] = ()) -> Stage:
    stage = Stage(directory, address, *fault)
    stack.callback(stage.apple.close)
    stack.callback(stage.publisher.close)
    stage.configure(*games)
    stage.sender.start()
    stack.callback(stage.sender.end)
    stage.sender.wait_for("sender started")
    return stage


def test_a_new_game_is_served_and_the_others_keep_their_links(tmp_path: Path, address: str, stack: ExitStack) -> None:
    stage = start(stack, tmp_path, address, "one")
    stage.send("one", 5)
    stage.wait_delivered(5)
    assert stage.connections() == 1
    stage.configure("one", "two")
    stage.reload()
    assert f'new={stage.name("two")} left="" ' in stage.summary()
    stage.send("two", 5)
    stage.send("one", 5)
    stage.wait_delivered(15)
    assert stage.connections() == 2


def test_a_game_that_leaves_finishes_what_it_has_and_is_not_read_any_more(
    tmp_path: Path, address: str, stack: ExitStack
) -> None:
    stage = start(stack, tmp_path, address, "one", "two", fault=("ok,delay=1500",))
    stage.send("two", 20)
    wait_until(lambda: stage.apple.received, stage.sender.log)
    stage.configure("one")
    stage.reload()
    assert f'new="" left={stage.name("two")} ' in stage.summary()
    assert "uncommitted=0" in stage.sender.log()
    assert stage.delivered() == stage.records(feedback_topic(stage.name("two"), "apns"))
    delivered = stage.delivered()
    assert delivered >= 1
    stage.send("two", 3)
    stage.send("one", 3)
    stage.wait_delivered(delivered + 3)
    # it comes back: what was left of it, and what came in the meantime, is sent now
    stage.configure("one", "two")
    stage.reload()
    stage.wait_delivered(26)


def test_a_message_of_a_game_that_was_configured_meanwhile_is_sent(
    tmp_path: Path, address: str, stack: ExitStack
) -> None:
    stage = start(stack, tmp_path, address, "one")
    stage.configure("one", "two")
    stage.send("two", 5)
    stage.wait_delivered(5)
    assert f"new={stage.name('two')}" in stage.summary()
    assert "can never be sent" not in stage.sender.log()


def test_messages_of_a_game_that_nobody_knows_are_invalid_in_the_end(
    tmp_path: Path, address: str, stack: ExitStack
) -> None:
    stage = start(stack, tmp_path, address, "one")
    stage.send("stranger", 2)
    wait_until(lambda: stage.sender.log().count("unknown-game") == 2, stage.sender.log)
    assert "configuration reloaded" not in stage.sender.log()
    stage.file.touch()
    stage.send("stranger", 2)
    wait_until(lambda: stage.sender.log().count("unknown-game") == 4, stage.sender.log)
    assert stage.sender.log().count("configuration reloaded") == 1


@pytest.mark.parametrize("odd", ["emptied", "without apps", "a pipe"])
def test_a_configuration_that_names_nobody_ends_no_game(tmp_path: Path, stack: ExitStack, odd: str) -> None:
    """An editor or a mount that is half done; `--config <(command)`, of which nothing is left."""
    stage = start(stack, tmp_path, f"sqlite:///{tmp_path}/queue.db", "one")
    if odd == "emptied":
        stage.file.write_text("")
    elif odd == "without apps":
        stage.configure()
    else:
        stage.file.unlink()
        os.mkfifo(stage.file)
    stage.sender.signal(signal.SIGHUP)
    stage.sender.wait_for("nothing has changed")
    stage.send("one", 2)
    stage.wait_delivered(2)
    assert "app was removed" not in stage.sender.log()


def test_a_setting_that_the_next_start_would_refuse_is_named_at_once(tmp_path: Path, stack: ExitStack) -> None:
    stage = start(stack, tmp_path, f"sqlite:///{tmp_path}/queue.db", "one", "two")
    stage.file.write_text(stage.file.read_text().replace("topic: com.game", "topic: {a: com.game}", 1))
    stage.reload()
    named = [line for line in stage.sender.log().splitlines() if "refused at the next start" in line]
    assert len(named) == 1
    assert f"game={stage.name('one')} " in named[0]
    stage.send("one", 2)
    stage.wait_delivered(2)


def test_while_the_configuration_cannot_be_read_messages_of_unknown_games_wait(
    tmp_path: Path, address: str, stack: ExitStack
) -> None:
    stage = start(stack, tmp_path, address, "one")
    stage.file.write_text("apns: [")
    stage.send("two", 2)
    stage.sender.wait_for("cannot be read")
    stage.send("one", 2)
    stage.wait_delivered(2)
    assert "unknown-game" not in stage.sender.log()
    stage.configure("one", "two")
    stage.wait_delivered(4)
