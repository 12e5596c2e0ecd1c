"""The service of one app at Apple: builds requests from pushes and judges Apple's answers."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import gevent
from gevent.queue import SimpleQueue

from pusher.errors import CredentialError
from pusher.providers.apns.credentials import Credentials
from pusher.providers.apns.message import ApnsPush, SharedHeaders, has_usual_type
from pusher.providers.apns.reasons import read_answer
from pusher.providers.dispatch import Answers, Dispatcher
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.header_block import Fields
from pusher.providers.http2.pool import Policy, Pool
from pusher.providers.http2.transport import Origin
from pusher.providers.judgement import ACCEPTED, AGAIN, Finish, Judgement, Proof, Resend, Retry
from pusher.providers.proxy import Proxy
from pusher.providers.rotation import Rotation
from pusher.push.lane import Lane
from pusher.push.outcome import DELIVERED, Outcome
from pusher.push.retry import RetryPolicy, parse_date
from pusher.telemetry.health import Condition, Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

PRODUCTION_HOST = "api.push.apple.com"
SANDBOX_HOST = "api.sandbox.push.apple.com"
#: More kinds of requests than an app has; a producer that invents topics must not fill the memory.
_MAX_KINDS = 64
_SHORTEST_HOLD_S, _LONGEST_HOLD_S = 10.0, 60.0
#: Response header of the development environment (Apple, "Handling notification responses from APNs").
_UNIQUE_ID = b"apns-unique-id"
_MAX_UNIQUE_ID_CHARACTERS = 200
#: Accepted for what the message chose: it says nothing of the app's own topic.
ACCEPTED_ELSEWHERE = Judgement(Finish(DELIVERED))
#: A token that is dated so wrongly is refused by Apple sooner or later.
_CLOCK_FAULT_S = 300.0


@dataclass(frozen=True)
class ApnsSettings:
    """How an app talks to Apple."""

    host: str
    port: int = 443
    connections: int = 1
    max_in_flight: int = 300
    request_timeout_s: float = 60.0
    policy: Policy = field(default_factory=Policy)
    #: For what Apple's outages put off; None: the lane's.
    outage: RetryPolicy | None = None
    proxy: Proxy | None = None


class TeamHold:
    """While Apple accepts no new provider token of the team: from 10 s on, doubling up to a minute."""

    def __init__(self) -> None:
        #: Seconds of the present hold, or of the last one that no accepted push has followed; 0.0: none.
        self.wait_s = 0.0
        #: Its end (monotonic).
        self.until = 0.0
        self._began = 0.0

    def begin(self, sent_at: float, now: float) -> bool:
        """An answer asks for it; false for one to what was sent before the present hold began."""
        if sent_at < self._began:
            return False
        self.wait_s = min(max(2 * self.wait_s, _SHORTEST_HOLD_S), _LONGEST_HOLD_S)
        self._began, self.until = now, now + self.wait_s
        return True

    def ended(self) -> None:
        """A push was accepted."""
        self.wait_s = self.until = 0.0


class ApnsService:
    """Sends a lane's pushes to Apple."""

    def __init__(self, lane: Lane[ApnsPush], settings: ApnsSettings, credentials: Credentials) -> None:
        self.lane = lane
        self._settings = settings
        self._rotation = Rotation(credentials)
        #: When the present credentials came into use.
        self._changed_at = 0.0
        self._token = ""
        self._fields: dict[SharedHeaders, Fields] = {}
        self._team_hold = TeamHold()
        self._dispatcher = Dispatcher(
            lane,
            lambda answers: self._new_pool(answers, self._tls, lane.settings.app, settings.connections),
            self._exchange,
            self._judge,
            ready=self._may_send,
            outage=settings.outage,
        )
        self._pool = self._dispatcher.pool

    def loops(self) -> dict[str, Callable[[], None]]:
        """Functions that must each run in their own greenlet, by name."""
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
        if self._team_hold.until > time.monotonic():
            return Health(False, "Apple accepts no new provider token of the team (TooManyProviderTokenUpdates)")
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
            policy=replace(settings.policy, wanted=_UNIQUE_ID),
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

    def _fields_of(self, kind: SharedHeaders) -> Fields:
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
            if self._rotation.on_trial or self._team_hold.wait_s:
                self._prove(exchange)
                self._team_hold.ended()
            push: ApnsPush = exchange.subject
            if exchange.headers:
                return Judgement(Finish(_with_unique_id(DELIVERED, exchange)), _good(push))
            return ACCEPTED if push.kind.of_app else ACCEPTED_ELSEWHERE
        push = exchange.subject
        outcome, meaning = read_answer(exchange.status, exchange.body_in, own_topic=push.kind.own_topic)
        outcome = _with_unique_id(outcome, exchange)
        if meaning.team:
            return self._put_off_for_team(exchange)
        if meaning.credentials:
            return self._refused(exchange, push, outcome)
        self._prove(exchange)
        if not meaning.retry:
            return Judgement(Finish(outcome), _good(push))
        limited = outcome.reason == "TooManyRequests"
        return Judgement(Retry(outcome, policy=None if limited else self._settings.outage), _good(push))

    def _put_off_for_team(self, exchange: Exchange) -> Judgement:
        """Apple accepts no new provider token of the team: that says nothing of the push, which waits and goes again.

        The connection is unusable meanwhile (Apple staff, developer forum, threads 675879 and 702056).
        """
        now = time.monotonic()
        if self._team_hold.begin(exchange.sent_at, now):
            _seldom.warning(
                (self.lane.settings.app, "team"),
                "Apple accepts no new provider token of the team for now: the app waits. Does "
                "another program sign with a key of the team, or was the key changed just now?",
                game=self.lane.settings.app,
                next_attempt_s=round(self._team_hold.wait_s),
            )
            if self.credentials.token is not None:
                self.credentials.token.change(self._token)
            self._pool.replace("Apple accepts no new provider token of the team", opened_before=now)
        return Judgement(Resend(max(0.1, self._team_hold.until - now)))

    def _may_send(self, timeout_s: float) -> bool:
        left_s = self._team_hold.until - time.monotonic()
        if left_s > 0:
            gevent.sleep(min(left_s, timeout_s))
        return left_s <= 0

    def _refused(self, exchange: Exchange, push: ApnsPush, outcome: Outcome) -> Judgement:
        """Credentials, topic and push type do not go together, in Apple's eyes.

        It counts for what it was sent for: a topic or type that the message chose holds nobody else's pushes, and that
        they are accepted says nothing of the app's own topic. A type that the message names although it would have it
        anyhow is not chosen.
        """
        kind = push.kind
        if self._superseded(exchange) or self._went_back(outcome):
            # it was not processed, and others may be taken
            return AGAIN
        if self._is_outdated(outcome) and self._newer_token(exchange):
            return Judgement(Retry(outcome, wait_s=0.0))
        topic, push_type = kind.topic.decode(), kind.push_type.decode()
        _seldom.error(
            (self.lane.settings.app, topic, push_type, outcome.reason),
            "Apple refuses the app's credentials for a topic and push type: check key, key id, team id, topic and "
            f"environment (-p){_clock_fault(exchange)}",
            game=self.lane.settings.app,
            reason=outcome.reason,
            topic=topic,
            push_type=push_type,
        )
        counts = kind.of_app and (kind.own_type or has_usual_type(push))
        return Judgement(Finish(outcome), Proof.REFUSED if counts else Proof.NONE)

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
        self._pool.replace("Apple no longer accepts the provider token", opened_before=exchange.sent_at)
        return True


def _fields(kind: SharedHeaders, token: str) -> Fields:
    """The header fields that all pushes of a kind share."""
    fields = (
        (b"authorization", _bearer(token)),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"apns-topic", b"" if kind.broadcast else kind.topic),
        (b"apns-push-type", kind.push_type),
        (b"apns-priority", kind.priority),
    )
    return Fields(*[(name, value) for name, value in fields if value])


def _bearer(token: str) -> bytes:
    return b"bearer " + token.encode() if token else b""


def _good(push: ApnsPush) -> Proof:
    """What an answer other than a refusal of the credentials shows about them."""
    return Proof.GOOD if push.kind.of_app else Proof.NONE


def _with_unique_id(outcome: Outcome, exchange: Exchange) -> Outcome:
    """Apple's sandbox gives each push an id, by which its delivery log is searched."""
    value = (exchange.header(_UNIQUE_ID) or b"").decode("ascii", "replace")
    return outcome._replace(provider_id=value[:_MAX_UNIQUE_ID_CHARACTERS]) if value else outcome


def _clock_fault(exchange: Exchange) -> str:
    """The difference of the clocks, from the answer's date, if it may be the cause."""
    dated = exchange.header(b"date")
    apples_s = parse_date(dated.decode("ascii", "replace")) if dated else None
    if apples_s is None or abs(time.time() - apples_s) < _CLOCK_FAULT_S:
        return ""
    behind = "behind" if time.time() < apples_s else "ahead of"
    return f"; this machine's clock is {abs(time.time() - apples_s) / 60:.0f} minutes {behind} Apple's"
