"""One app's way to Apple: requests from pushes, and what Apple's answers mean for them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gevent.queue import SimpleQueue

from pusher.errors import CredentialError
from pusher.providers.apns.credentials import Credentials
from pusher.providers.apns.message import ApnsPush, Kind
from pusher.providers.apns.reasons import read_answer
from pusher.providers.dispatch import Answers, Dispatcher
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.header_block import Fields
from pusher.providers.http2.pool import Policy, Pool
from pusher.providers.http2.transport import Origin
from pusher.providers.judgement import ACCEPTED, AGAIN, Finish, Judgement, Proof, Retry
from pusher.providers.proxy import Proxy
from pusher.providers.rotation import Rotation
from pusher.push.lane import Lane
from pusher.push.outcome import Outcome
from pusher.telemetry.health import Condition, Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

PRODUCTION_HOST = "api.push.apple.com"
SANDBOX_HOST = "api.sandbox.push.apple.com"
#: More kinds of requests than an app has; a producer that invents topics must not fill the memory.
_MAX_KINDS = 64


@dataclass(frozen=True)
class ApnsSettings:
    """How an app talks to Apple."""

    host: str
    port: int = 443
    connections: int = 1
    max_in_flight: int = 300
    request_timeout_s: float = 60.0
    policy: Policy = field(default_factory=Policy)
    proxy: Proxy | None = None


class ApnsService:
    """Sends a lane's pushes to Apple."""

    def __init__(self, lane: Lane[ApnsPush], settings: ApnsSettings, credentials: Credentials) -> None:
        self.lane = lane
        self._settings = settings
        self._rotation = Rotation(credentials)
        #: When the present credentials came into use.
        self._changed_at = 0.0
        self._token = ""
        self._fields: dict[Kind, Fields] = {}
        self._dispatcher = Dispatcher(
            lane,
            lambda answers: self._new_pool(answers, self._tls, lane.settings.app, settings.connections),
            self._exchange,
            self._judge,
        )
        self._pool = self._dispatcher.pool

    def loops(self) -> dict[str, Callable[[], None]]:
        """What has to run in a greenlet of its own."""
        return self._dispatcher.loops()

    def start(self) -> None:
        """Opens the links in the background. Returns at once."""
        self._pool.start()

    def close(self, grace_s: float) -> None:
        """Closes the links; waits up to ``grace_s`` for open streams."""
        self._pool.close(grace_s)

    @property
    def credentials(self) -> Credentials:
        """Those in use."""
        return self._rotation.current

    def reload(self, credentials: Credentials) -> None:
        """New credentials for new links; the old links finish their streams.

        Waits for a connection on trial where they are a certificate; raises ``CredentialError`` where there is none.
        Should Apple refuse them in an answer, the old ones are used again.
        """
        if credentials.certificate is not None:
            self._connect_once(credentials)
        self._rotation.change(credentials)
        self._use("new credentials")

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return self._pool.in_flight

    def health(self) -> Health:
        """Whether pushes can be sent now."""
        return self._dispatcher.health()

    def condition(self) -> Condition:
        """Links and credentials of this moment."""
        token, certificate = self.credentials.token, self.credentials.certificate
        return Condition(
            links=self._pool.state().links,
            refused=self._dispatcher.held,
            token_age_s=token.age_s if token is not None and token.issued else None,
            certificate_ends_s=certificate.expires_at_s if certificate is not None else None,
        )

    # --- credentials --------------------------------------------------------------------------------------------------
    def _new_pool(self, answers: Answers, tls: Callable[[], ssl.SSLContext], name: str, size: int) -> Pool:
        settings = self._settings
        return Pool(
            Origin(settings.host, settings.port, proxy=settings.proxy),
            tls,
            answers,
            size=size,
            max_in_flight=settings.max_in_flight,
            timeout_s=settings.request_timeout_s,
            name=name,
            policy=settings.policy,
        )

    def _connect_once(self, credentials: Credentials) -> None:
        """Raises ``CredentialError`` where Apple takes no connection."""
        answers: Answers = SimpleQueue()
        pool = self._new_pool(answers, credentials.tls_context, f"{self.lane.settings.app} (trial)", 1)
        pool.start()
        try:
            if not pool.wait_for_room(self._settings.policy.connect_timeout_s):
                raise CredentialError(f"no connection with the new certificate: {pool.state().reason}")
        finally:
            pool.close(0.0)

    def _use(self, reason: str) -> None:
        """New links, on which the present credentials are used."""
        self._changed_at = time.monotonic()
        self._dispatcher.credentials_changed()
        self._pool.replace(reason)

    def _prove(self, exchange: Exchange) -> None:
        """The answer shows that the credentials are good which it was sent with."""
        if self._rotation.on_trial and not self._superseded(exchange):
            self._rotation.accepted()

    def _superseded(self, exchange: Exchange) -> bool:
        """Whether it was sent with credentials that are not in use any more."""
        token = self.credentials.token
        present = _bearer(token.current()) if token is not None else None
        return exchange.fields.value(b"authorization") != present or exchange.sent_at < self._changed_at

    def _went_back(self, outcome: Outcome) -> bool:
        """Whether the refused credentials were on trial, so that the old ones are used again."""
        if not self._rotation.go_back():
            return False
        log.error(
            "Apple refuses the new credentials, the old ones are used again",
            game=self.lane.settings.app,
            reason=outcome.reason,
        )
        self._use("the new credentials are refused")
        return True

    # --- requests -----------------------------------------------------------------------------------------------------
    def _tls(self) -> ssl.SSLContext:
        return self.credentials.tls_context()

    def _exchange(self, push: ApnsPush) -> Exchange:
        return Exchange(push, self._fields_of(push.kind), push.path, push.literals, push.body)

    def _fields_of(self, kind: Kind) -> Fields:
        token = self.credentials.token
        current = token.current() if token is not None else ""
        if current != self._token:
            self._token = current
            self._fields.clear()
        fields = self._fields.get(kind)
        if fields is None:
            if len(self._fields) >= _MAX_KINDS:
                self._fields.clear()
            fields = self._fields[kind] = _fields(kind, self._token)
        return fields

    # --- answers ------------------------------------------------------------------------------------------------------
    def _judge(self, exchange: Exchange) -> Judgement:
        """What an answer means: 200 is success and nothing else."""
        if exchange.status == 200:
            if self._rotation.on_trial:
                self._prove(exchange)
            return ACCEPTED
        outcome, meaning = read_answer(exchange.status, exchange.body_in)
        if not meaning.credentials:
            self._prove(exchange)
            return Judgement(Retry(outcome) if meaning.retry else Finish(outcome), Proof.GOOD)
        if self._superseded(exchange) or self._went_back(outcome):
            # it was not processed, and others may be taken
            return AGAIN
        if self._is_outdated(outcome) and self._newer_token(exchange):
            return Judgement(Retry(outcome, wait_s=0.0))
        _seldom.error(
            self.lane.settings.app,
            "Apple refuses the app's credentials: check key, key id, team id, topic and environment (-p)",
            game=self.lane.settings.app,
            reason=outcome.reason,
        )
        return Judgement(Finish(outcome), Proof.REFUSED)

    def _is_outdated(self, outcome: Outcome) -> bool:
        """A token that a wrong clock has dated may be too old for Apple, or of the future."""
        token = self.credentials.token
        return outcome.reason == "ExpiredProviderToken" or (token is not None and token.misdated)

    def _newer_token(self, exchange: Exchange) -> bool:
        token = self.credentials.token
        if token is None:
            return False
        if not token.renew():
            return False
        # A connection on which a token expired stays unusable with the new one.
        self._pool.replace("Apple no longer takes the provider token", opened_before=exchange.sent_at)
        return True


def _fields(kind: Kind, token: str) -> Fields:
    """The header fields that all pushes of a kind share."""
    fields = (
        (b"authorization", _bearer(token)),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"apns-topic", kind.topic),
        (b"apns-push-type", kind.push_type),
        (b"apns-priority", kind.priority),
    )
    return Fields(*[(name, value) for name, value in fields if value])


def _bearer(token: str) -> bytes:
    return b"bearer " + token.encode() if token else b""
