"""The Redis of tests: each does what its arguments say."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.processes import wait_until
from lab.redis import RedisServer

pytestmark = pytest.mark.integration

ONCE = Retry(NoBackoff(), 0)


def test_keeps_what_it_is_told_to_keep(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "one", properties={"appendonly": "yes"}) as server, server.client() as client:
        client.set("a", "1")
        server.restart()
        assert client.get("a") == "1"
        assert server.all_keys() == ["a"]
        assert server.all_keys(db=1) == []


def test_password_and_user(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "one", password="p w", user="pusher", user_password="secret") as server:
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(server.host, server.port, retry=ONCE).ping()
        with redis.Redis(server.host, server.port, username="pusher", password="secret") as client:
            assert client.eval("return redis.call('INCR', KEYS[1])", 1, "a") == 1
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()


def test_tls_of_its_own_authority(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "one", tls=True) as server:
        with server.client() as client:
            assert client.ping()
        with pytest.raises(redis.ConnectionError):
            redis.Redis(server.host, server.port, ssl=True, retry=ONCE).ping()


def test_full_memory(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "one", maxmemory="100mb") as server, server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.OutOfMemoryError):
            client.set("a", "1")


def test_a_replica_takes_over(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "one") as master, RedisServer(tmp_path / "two", replica_of=master) as replica:
        with master.client() as client:
            client.set("a", "1")
        wait_until(lambda: replica.all_keys() == ["a"], "the replica has the key")
        with replica.client() as client, pytest.raises(redis.ReadOnlyError):
            client.set("b", "1")
        master.kill()
        replica.promote()
        with replica.client() as client:
            client.set("b", "1")
        assert replica.all_keys() == ["a", "b"]
