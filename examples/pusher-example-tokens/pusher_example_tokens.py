"""The token store ``redis``: a sorted set for each game and platform, with tokens ordered by their registration time.

To register a token, an app's server writes ``ZADD tokens:<game>:<platform> <ms since the epoch> <token>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis

from pusher.config import Config, Setting
from pusher.config.addresses import HostPort, SocketAddress
from pusher.config.kinds import Secret
from pusher.errors import StartError
from pusher.listener.store import DeadToken, NotDeleted, TokenStore
from pusher.providers.provider import Check
from pusher.push.topics import TopicName

ADDRESS = Setting("tokens.redis.address", HostPort(6379), SocketAddress("localhost", 6379), "The Redis server.")
PASSWORD = Setting("tokens.redis.password", Secret(), "", 'Password of the server; "" = none.')

_TIMEOUT_S = 10.0
#: KEYS: the set. ARGV: pairs of a token and the time when it was known to be dead. A token registered later is alive.
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
    """A ``TokenStore``. The entry point names this class: calling it opens the store."""

    def __init__(self, config: Config) -> None:
        host, port = config[ADDRESS]
        self._name = f"{host}:{port}"
        # redis-py uses Python's sockets, so other greenlets run while it waits
        self._client = redis.Redis(
            host=host,
            port=port,
            password=config[PASSWORD] or None,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )
        self._delete = self._client.register_script(_DELETE)

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        """Deletes all tokens with one script, which Redis runs atomically."""
        arguments: list[str | int] = []
        for one in dead:
            arguments += (one.token, one.told_ms)
        try:
            return int(self._delete(keys=[f"tokens:{owner.game}:{owner.platform}"], args=arguments))
        except redis.RedisError as error:
            raise NotDeleted(f"Redis at {self._name}: {type(error).__name__}") from None

    def prepare(self) -> None:
        """Waits for one answer, so that a start without the server fails at once."""
        self._ask()

    def checks(self) -> Iterator[Check]:
        """The check for ``--check``."""
        yield ADDRESS.key, self._ask

    def close(self) -> None:
        """Called at the stop."""
        self._client.connection_pool.disconnect()

    def _ask(self) -> str:
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise StartError(f"Redis at {self._name} does not answer: {error}") from None
        return f"Redis at {self._name} answers"
