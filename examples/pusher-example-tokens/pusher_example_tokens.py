"""The store of tokens ``redis``: for each game and platform a sorted set, of tokens by the time of their registration.

Whoever registers a token writes ``ZADD tokens:<game>:<platform> <ms since the epoch> <token>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis

from pusher.config import Config, Setting
from pusher.config.schema import HostPort, Secret, SocketAddress
from pusher.errors import StartError
from pusher.listener.store import DeadToken, NotDeleted, TokenStore
from pusher.providers.provider import Check
from pusher.push.topics import TopicName

ADDRESS = Setting("tokens.redis.address", HostPort(6379), SocketAddress("localhost", 6379), "The Redis server.")
PASSWORD = Setting("tokens.redis.password", Secret(), "", 'Password of the server; "" = none.')

_TIMEOUT_S = 10.0
#: KEYS: the set; ARGV: token, when it was known to be dead, and so on. A token that was registered later is alive.
_DELETE = """
local gone = 0
for i = 1, #ARGV, 2 do
    local registered = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if registered and tonumber(registered) <= tonumber(ARGV[i + 1]) then
        gone = gone + redis.call('ZREM', KEYS[1], ARGV[i])
    end
end
return gone
"""


class RedisStore(TokenStore):
    """A ``TokenStore``; the class itself is the door's object."""

    def __init__(self, config: Config) -> None:
        host, port = config[ADDRESS]
        self._name = f"{host}:{port}"
        # redis-py's sockets are Python's, so that gevent lets others run while they wait
        self._client = redis.Redis(
            host=host,
            port=port,
            password=config[PASSWORD] or None,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )
        self._delete = self._client.register_script(_DELETE)

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        """All in one script, which Redis runs as a whole."""
        arguments: list[str | int] = []
        for one in dead:
            arguments += (one.token, one.told_ms)
        try:
            return int(self._delete(keys=[f"tokens:{owner.game}:{owner.platform}"], args=arguments))
        except redis.RedisError as error:
            raise NotDeleted(f"Redis at {self._name}: {type(error).__name__}") from None

    def prepare(self) -> None:
        """Waits for one answer: who starts without its server should be told."""
        self._ask()

    def checks(self) -> Iterator[Check]:
        """What ``--check`` tries."""
        yield ADDRESS.key, self._ask

    def close(self) -> None:
        """At the stop."""
        self._client.connection_pool.disconnect()

    def _ask(self) -> str:
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise StartError(f"Redis at {self._name} does not answer: {error}") from None
        return f"Redis at {self._name} answers"
