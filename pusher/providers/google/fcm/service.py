"""The service of one app at FCM HTTP v1: builds requests from pushes and judges Google's answers."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from pusher.providers.dispatch import Dispatcher, retry_after
from pusher.providers.google.fcm.access_token import AccessToken
from pusher.providers.google.fcm.errors import QUOTA_WAIT_S, read_answer
from pusher.providers.google.fcm.message import FcmPush
from pusher.providers.google.fcm.pace import Pace
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.header_block import Fields
from pusher.providers.http2.pool import Policy, Pool
from pusher.providers.http2.transport import Origin
from pusher.providers.judgement import AGAIN, Finish, Judgement, Proof, Retry, accepted_as
from pusher.providers.rotation import Rotation
from pusher.providers.tls import TlsTrust
from pusher.push.lane import Lane
from pusher.push.outcome import Outcome
from pusher.telemetry import metrics
from pusher.telemetry.health import Condition, Health
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.stats import Stats

log = logger(__name__)
_seldom = Seldom(log, period_s=60)


@dataclass(frozen=True)
class FcmSettings:
    """How an app talks to FCM."""

    origin: Origin
    trust: TlsTrust
    connections: int = 1
    max_in_flight: int = 100
    request_timeout_s: float = 60.0
    policy: Policy = field(default_factory=Policy)


class Project(NamedTuple):
    """A Firebase project, with the state that the apps of this process share."""

    project_id: str
    access_token: AccessToken
    pace: Pace

    @property
    def path(self) -> bytes:
        """Of the account's requests."""
        return f"/v1/projects/{self.project_id}/messages:send".encode()


class FcmService:
    """Sends a lane's pushes to FCM. While there is no access token they wait."""

    def __init__(
        self,
        lane: Lane[FcmPush],
        settings: FcmSettings,
        account: Project,
        stats: Stats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lane = lane
        self._settings, self._clock = settings, clock
        self._rotation = Rotation(account)
        self._path, self._pace = account.path, account.pace
        self._fills = 0
        self._fields = _fields("")
        self._token = ""
        #: For a 429 that does not say how long to wait.
        self._quota = replace(lane.settings.retry, interval_s=QUOTA_WAIT_S)
        self._latency = stats.timing(metrics.FIREBASE_LATENCY, lane.settings.app)
        self._dispatcher = Dispatcher(
            lane,
            lambda answers: Pool(
                settings.origin,
                self._tls,
                answers,
                size=settings.connections,
                max_in_flight=settings.max_in_flight,
                timeout_s=settings.request_timeout_s,
                name=lane.settings.app,
                policy=settings.policy,
            ),
            self._exchange,
            self._judge,
            ready=self._has_token,
            pacer=self._pacer,
        )
        self._pool = self._dispatcher.pool

    def loops(self) -> dict[str, Callable[[], None]]:
        """Functions that must each run in their own greenlet, by name."""
        return {**self._dispatcher.loops(), "access token": self._keep_token}

    def start(self) -> None:
        """Opens the links in the background. Returns at once."""
        self._pool.start()

    def close(self, grace_s: float) -> None:
        """Closes the links; waits up to ``grace_s`` for open streams."""
        self._pool.close(grace_s)

    def reload(self, account: Project) -> None:
        """A new account, whose token is there already. Should Google refuse it, the old one is used again.

        Returns at once.
        """
        old = self._access_token
        self._rotation.change(account)
        self._use(old)

    def uses(self, access_token: AccessToken) -> bool:
        """Whether this is the token that requests are made with."""
        return access_token is self._access_token

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return self._pool.in_flight

    def health(self) -> Health:
        """Whether pushes can be sent now."""
        if not self._access_token.current():
            return Health(False, self._access_token.reason or "waits for a new access token")
        return self._dispatcher.health()

    def condition(self) -> Condition:
        """Links and credentials of this moment."""
        refused = self._dispatcher.held or self._access_token.account_refused
        shown = self._pace.shown(self._clock())
        return Condition(self._pool.state().links, refused, pace_per_s=shown.pace, quota_per_s=shown.quota)

    # --- the account --------------------------------------------------------------------------------------------------
    @property
    def _access_token(self) -> AccessToken:
        return self._rotation.current.access_token

    def _keep_token(self) -> None:
        while True:
            token = self._access_token
            token.run(partial(self.uses, token))

    def _use(self, old: AccessToken) -> None:
        """The present account from the next request on."""
        account = self._rotation.current
        self._path, self._pace, self._token = account.path, account.pace, ""
        self._dispatcher.credentials_changed()
        old.wake()

    def _went_back(self, outcome: Outcome) -> bool:
        """Whether the refused account was on trial, so that the old one is used again."""
        refused = self._access_token
        if not self._rotation.go_back():
            return False
        log.error(
            "Google refuses the new service account, the old one is used again",
            game=self.lane.settings.app,
            reason=outcome.description,
        )
        self._use(refused)
        return True

    # --- requests -----------------------------------------------------------------------------------------------------
    def _tls(self) -> ssl.SSLContext:
        return self._settings.trust.context(alpn="h2")

    def _has_token(self, timeout_s: float) -> bool:
        return bool(self._access_token.wait(timeout_s))

    def _pacer(self) -> Pace:
        """When the quota has been filled, those that were refused go first where their partition waits for them."""
        if self._fills != self._pace.fills:
            self._fills = self._pace.fills
            self.lane.bring_forward()
        return self._pace

    def _exchange(self, push: FcmPush) -> Exchange:
        token = self._access_token.current()
        # It may end while a push is taken: the old one is answered 401 and the push waits for a new one.
        if token and token != self._token:
            self._token, self._fields = token, _fields(token)
        return Exchange(push, self._fields, self._path, b"", push.body)

    # --- answers ------------------------------------------------------------------------------------------------------
    def _judge(self, exchange: Exchange) -> Judgement:
        """What an answer means: 200 is success and nothing else."""
        now = self._clock()
        self._latency.observe((now - exchange.sent_at) * 1000)
        if exchange.status == 200:
            self._pace.accepted(exchange.sent_at, now)
            if self._rotation.on_trial and exchange.fields is self._fields:
                self._rotation.accepted()
            return accepted_as(read_answer(200, exchange.body_in).outcome)
        outcome, meaning = read_answer(exchange.status, exchange.body_in)
        if meaning.access_token and self._renewed_for(exchange):
            return AGAIN
        if meaning.credentials:
            return self._refused(exchange, outcome)
        if meaning.quota:
            return self._out_of_quota(exchange, outcome)
        if meaning.retry:
            self._pace.failed()
            return Judgement(Retry(outcome))
        return Judgement(Finish(outcome), Proof.GOOD)

    def _renewed_for(self, exchange: Exchange) -> bool:
        """Whether the push is sent once more with another access token."""
        push: FcmPush = exchange.subject
        token = _token_of(exchange)
        if push.refused_token not in ("", token) or not self._access_token.refused(token):
            return False
        push.refused_token = token
        return True

    def _refused(self, exchange: Exchange, outcome: Outcome) -> Judgement:
        if exchange.fields is not self._fields or self._went_back(outcome):
            # it was not processed, and another account may be taken
            return AGAIN
        _seldom.error(
            self.lane.settings.app,
            "Google refuses the app's credentials: check the service account, its project and its roles",
            game=self.lane.settings.app,
            reason=outcome.description,
        )
        return Judgement(Finish(outcome), Proof.REFUSED)

    def _out_of_quota(self, exchange: Exchange, outcome: Outcome) -> Judgement:
        _seldom.warning(
            (self._path, "quota"),
            "the quota of the Firebase project is used up: its pushes wait, and pusher sends probes from time to time",
            project=self._rotation.current.project_id,
            reason=outcome.description,
        )
        retry_after_s = retry_after(exchange)
        self._pace.refused(exchange.sent_at, self._clock(), retry_after_s)
        return Judgement(Retry(outcome, retry_after_s, self._quota, aside=True))


def _token_of(exchange: Exchange) -> str:
    value = exchange.fields.value(b"authorization") or b""
    return value.decode().removeprefix("Bearer ")


def _fields(token: str) -> Fields:
    return Fields((b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json"))
