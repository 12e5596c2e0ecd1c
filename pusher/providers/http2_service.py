"""A ``Service`` for providers that take one HTTP/2 POST per push: everything except the requests and the judgements.

Apple and Google have their own services, because they need more: tokens that are renewed, quotas, trials.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from pusher.errors import StartError
from pusher.providers.dispatch import Dispatcher
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.pool import Pool
from pusher.providers.http2.transport import ConnectFailed, Origin, connect
from pusher.providers.judgement import Judgement
from pusher.providers.tls import TlsTrust
from pusher.push.lane import Lane
from pusher.push.push import Push
from pusher.telemetry.health import Condition, Health

P = TypeVar("P", bound=Push)
P_contra = TypeVar("P_contra", bound=Push, contravariant=True)


class Dialogue(Protocol[P_contra]):
    """What an app and its provider say to each other. Nothing here waits.

    What is raised is a fault of the code: it is logged, the push is tried again later, and the app's greenlet begins
    again after a back-off.
    """

    def exchange(self, push: P_contra) -> Exchange:
        """The request of a push."""
        ...

    def judge(self, exchange: Exchange) -> Judgement:
        """Judges an answer. Called once for each request that was answered."""
        ...


class Http2Service(Generic[P]):
    """One app's way to a provider. ``dialogue`` may be changed at any time; the next request is made with it."""

    def __init__(
        self,
        lane: Lane[P],
        dialogue: Dialogue[P],
        origin: Origin,
        trust: TlsTrust,
        *,
        connections: int = 1,
        max_in_flight: int = 300,
        timeout_s: float = 60.0,
    ) -> None:
        self.lane = lane
        self.dialogue = dialogue
        open_pool = partial(
            Pool,
            origin,
            partial(trust.context, alpn="h2"),
            size=connections,
            max_in_flight=max_in_flight,
            timeout_s=timeout_s,
            name=lane.settings.app,
        )
        self._dispatcher = Dispatcher(lane, open_pool, self._exchange, self._judge)
        self._pool = self._dispatcher.pool

    def change(self, dialogue: Dialogue[P]) -> None:
        """Other credentials. Returns at once."""
        self.dialogue = dialogue
        self._dispatcher.credentials_changed()

    def loops(self) -> dict[str, Callable[[], None]]:
        """See ``Service``."""
        return self._dispatcher.loops()

    def start(self) -> None:
        """See ``Service``."""
        self._pool.start()

    def close(self, grace_s: float) -> None:
        """See ``Service``."""
        self._pool.close(grace_s)

    @property
    def in_flight(self) -> int:
        """See ``Service``."""
        return self._pool.in_flight

    def health(self) -> Health:
        """See ``Service``."""
        return self._dispatcher.health()

    def condition(self) -> Condition:
        """See ``Service``."""
        return Condition(self._pool.state().links, self._dispatcher.held)

    def _exchange(self, push: P) -> Exchange:
        return self.dialogue.exchange(push)

    def _judge(self, exchange: Exchange) -> Judgement:
        return self.dialogue.judge(exchange)


def check_connection(origin: Origin, trust: TlsTrust, timeout_s: float) -> str:
    """Connects once. Raises ``StartError``."""
    try:
        connect(origin, trust.context(alpn="h2"), timeout_s).close()
    except ConnectFailed as error:
        raise StartError(f"{origin}: {error}") from None
    return f"{origin} answers with a trusted certificate"
