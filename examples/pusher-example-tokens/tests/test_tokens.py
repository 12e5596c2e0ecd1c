"""The store ``redis`` and a real Redis: alone, and in the process of the listener."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from pusher_example_tokens import RedisStore

from pusher import config
from pusher.listener.store import DeadToken, NotDeleted
from pusher.push.topics import TopicName

GAME = TopicName("game", "apns")
KEY = "tokens:game:apns"
PUSHER = [sys.executable, "-m", "pusher"]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Server:
    """Debian's redis-server on a port of its own, with the password "secret"."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.client = redis.Redis("127.0.0.1", self.port, password="secret", decode_responses=True)
        self.start()

    def start(self) -> None:
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "secret"]
        self._process = subprocess.Popen(["redis-server", *flags], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    @property
    def settings(self) -> dict[str, object]:
        return {"tokens.redis.address": f"127.0.0.1:{self.port}", "tokens.redis.password": "secret"}


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


def test_dead_tokens_go_and_those_registered_since_stay(server: Server) -> None:
    server.client.zadd(KEY, {"dead": 1_000, "again": 3_000, "alive": 1_000})
    server.client.zadd("tokens:other:apns", {"dead": 1_000})
    store = RedisStore(config.parse(json.dumps(server.settings)))
    store.prepare()
    dead = [DeadToken(token, "Unregistered", 2_000) for token in ("dead", "again", "unknown")]
    assert [store.delete(GAME, dead), store.delete(GAME, dead)] == [1, 0]
    assert server.client.zrange(KEY, 0, -1) == ["alive", "again"]
    assert server.client.zrange("tokens:other:apns", 0, -1) == ["dead"]


def test_without_the_server_nothing_is_lost_and_no_token_is_shown(server: Server) -> None:
    server.client.zadd(KEY, {"dead": 1})
    store = RedisStore(config.parse(json.dumps(server.settings)))
    server.stop()
    with pytest.raises(NotDeleted) as told:
        store.delete(GAME, [DeadToken("dead", "Unregistered", 2)])
    assert "dead" not in str(told.value)
    server.start()
    server.client.zadd(KEY, {"dead": 1})
    assert store.delete(GAME, [DeadToken("dead", "Unregistered", 2)]) == 1


@pytest.fixture
def place(tmp_path: Path, server: Server) -> Path:
    """A directory with the configuration of a listener, and a broker in a file."""
    queue = {
        "brokers": f"sqlite:///{tmp_path}/q.db",
        "topics": ["push-game-apns-feedbacks"],
        "offsetResetStrategy": "earliest",
    }
    settings = {
        "feedbackListeners": {"queue": queue, "invalidToken": {"handlers": ["redis"], "flush.time.ms": 100}},
        "feedback.kafka.brokers": queue["brokers"],
        "admin.port": 0,
        **server.settings,
    }
    (tmp_path / "config").mkdir()
    (tmp_path / "config/default.yaml").write_text(json.dumps(settings))
    return tmp_path


def pusher(place: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [*PUSHER, *arguments]
    return subprocess.run(command, cwd=place, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_the_listener_deletes_what_feedbacks_call_dead(place: Path, server: Server) -> None:
    server.client.zadd(KEY, {"ab12": 1_000, "cd34": 1_000})
    metadata = {"deleteToken": True}
    feedback = {"Sent": False, "StatusCode": 410, "Reason": "Unregistered", "ApnsID": "x", "DeviceToken": "ab12"}
    pusher(place, "enqueue", "push-game-apns-feedbacks", given=json.dumps({**feedback, "metadata": metadata}) + "\n")
    with subprocess.Popen([*PUSHER, "start-feedback-listener"], cwd=place) as listener:
        try:
            wait_until(lambda: server.client.zrange(KEY, 0, -1) == ["cd34"])
        finally:
            listener.terminate()
    assert listener.returncode == 0


def test_check_asks_the_server(place: Path, server: Server) -> None:
    done = pusher(place, "start-feedback-listener", "--check")
    assert f"Redis at 127.0.0.1:{server.port} answers" in done.stdout
    assert "door    pusher.tokens redis (pusher-example-tokens 1.0)" in done.stdout
    server.stop()
    assert "does not answer" in pusher(place, "start-feedback-listener", "--check").stdout
    server.start()
