"""The access token of an account: asked for in the background, early, one request at a time.

``fetch`` is one exchange with the token endpoint. ``AccessToken`` holds its result: ``run`` asks again five minutes
before the end, and retries with back-off while the endpoint fails. The current token is used until it expires; then
``current`` is empty and pushes wait. There are never two requests at a time.

Rule: nothing here knows what a push is. Tokens and assertions are never logged.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import gevent
import orjson
from gevent.event import Event

from pusher.backoff import BackOff
from pusher.errors import CredentialError
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.http1 import Client, ExchangeFailed, Request, Response, exchange
from pusher.push.fields import Json
from pusher.push.retry import parse_retry_after
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
RENEW_EARLY_S = 300.0
#: Refused tokens are replaced no more often than this: when the new one is refused too, tokens are not the reason.
RENEW_AT_MOST_EVERY_S = 60.0
#: Google refuses assertions from a clock that is some minutes off.
SKEW_WORTH_A_WARNING_S = 60.0
REQUEST_TIMEOUT_S = 15.0
DEFAULT_LIFETIME_S = 3_600.0
#: A shorter one would have the endpoint asked without pause.
_MIN_LIFETIME_S, _MAX_LIFETIME_S = 1.0, 86_400.0
MAX_RETRY_AFTER_S = 600.0
_MAX_DESCRIPTION_CHARACTERS = 200
#: RFC 6750, 2.1: what may stand in the authorization header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class TokenFailed(CredentialError):
    """No access token; the text is one line for an operator."""

    def __init__(
        self, text: str, *, refused: bool = False, retry_after_s: float = 0.0, skew_s: float | None = None
    ) -> None:
        super().__init__(text)
        #: The account itself is refused; otherwise the endpoint cannot be had.
        self.refused = refused
        self.retry_after_s = retry_after_s
        self.skew_s = skew_s


class Grant(NamedTuple):
    """An access token as the endpoint gave it."""

    token: str
    lifetime_s: float
    #: Seconds that the endpoint's clock is ahead of ours; None where it does not say.
    skew_s: float | None


class TokenSource(NamedTuple):
    """Where the access tokens of a project come from."""

    project_id: str
    #: For logs: an e-mail address, or the kind of credentials.
    account: str
    #: Equal where tokens are interchangeable.
    identity: Hashable
    #: One exchange. Waits; raises ``TokenFailed``.
    fetch: Callable[[], Grant]


@dataclass(frozen=True)
class TokenEndpoint:
    """An account's token endpoint."""

    account: ServiceAccount
    client: Client
    timeout_s: float = REQUEST_TIMEOUT_S
    wall_clock: Callable[[], float] = time.time

    def fetch(self) -> Grant:
        """One exchange. Waits up to ``timeout_s``; raises ``TokenFailed``."""
        try:
            return self.grant(exchange(self._request(), self.client, self.timeout_s))
        except ExchangeFailed as error:
            raise TokenFailed(f"no access token, {error}") from error

    def grant(self, answer: Response) -> Grant:
        """The token in the endpoint's answer. Never waits; raises ``TokenFailed``."""
        host, now_s = str(urlsplit(self.account.token_uri).hostname), self.wall_clock()
        skew_s = _skew_s(answer.headers.get("date"), now_s)
        facts = _facts(answer.body)
        if answer.status == 200:
            return grant_of(facts.get("access_token"), _lifetime_s(facts.get("expires_in")), host, skew_s)
        retry_after_s = parse_retry_after(answer.headers.get("retry-after", ""), now_s) or 0.0
        raise TokenFailed(
            f"{host} refuses to issue an access token: {_refusal(facts, answer.status)}{_of_clocks(skew_s)}",
            refused=answer.status in {400, 401, 403},
            retry_after_s=min(retry_after_s, MAX_RETRY_AFTER_S),
            skew_s=skew_s,
        )

    def _request(self) -> Request:
        form = {"grant_type": GRANT_TYPE, "assertion": self.account.assertion(self.wall_clock())}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return Request("POST", self.account.token_uri, headers, urlencode(form).encode())


class AccessToken:
    """An account's access token; apps with the same account share it. ``run`` belongs into a greenlet of its own."""

    def __init__(
        self,
        account: str,
        fetch: Callable[[], Grant],
        *,
        back_off: BackOff = BackOff(min_s=1.0, max_s=60.0),  # noqa: B008  # frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Why there is no token, or none after this one; "" when all is well.
        self.reason = "no access token yet"
        #: Whether the endpoint's last answer refused the account itself.
        self.account_refused = False
        self._account, self._fetch, self._back_off, self._clock = account, fetch, back_off, clock
        self._token = ""
        self._expires_at = 0.0
        self._next_at = clock()
        #: When a token was last thrown away because it was refused.
        self._refused_at = -RENEW_AT_MOST_EVERY_S
        self._failures = 0
        self._asking = False
        self._changed = Event()

    def current(self) -> str:
        """The token to send now, the same object until it changes; "" while there is none. Never waits."""
        if self._token and self._clock() >= self._expires_at:
            self._token = ""
        return self._token

    def wait(self, timeout_s: float) -> str:
        """``current``, after waiting until there is one."""
        gives_up_at = time.monotonic() + timeout_s
        while not self.current() and (left_s := gives_up_at - time.monotonic()) > 0:
            self._changed.wait(left_s)
        return self.current()

    def refused(self, token: str) -> bool:
        """A request with this token was answered 401. True when a newer token makes another try worthwhile.

        However young the token is, a new one is asked for: once, for when that one is refused as well, tokens are not
        the reason.
        """
        if token != self.current():
            return True
        now = self._clock()
        if now - self._refused_at < RENEW_AT_MOST_EVERY_S:
            return False
        log.warning("FCM refused the access token before it expired, requesting a new one", account=self._account)
        self._token, self._refused_at = "", now
        if not self._failures:
            self._next_at = now
        self.wake()
        return True

    def prime(self, timeout_s: float) -> None:
        """Asks for the first token unless there is one, before ``run`` is started. Waits up to ``timeout_s``.

        Raises ``TokenFailed`` when the account is refused; an endpoint that cannot be had, or is slow, is left to
        ``run``.
        """
        with gevent.Timeout(timeout_s, False):  # type: ignore[arg-type]  # False: ends quietly
            if self._asking:  # for another app
                self._changed.wait()
            elif not self.current():
                self._renew()
        if self.account_refused and not self.current():
            raise TokenFailed(self.reason, refused=True)

    def run(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Keeps the token fresh while it is ``wanted``, which is looked at after each ``wake``.

        Each app that shares the token runs this: one of them asks, the others see that it does.
        """
        while wanted():
            wait_s = None if self._asking else self._next_at - self._clock()
            if wait_s is None or wait_s > 0:
                self._changed.wait(wait_s)
            else:
                self._renew()

    def wake(self) -> None:
        """Wakes all waiting greenlets. Returns at once."""
        event, self._changed = self._changed, Event()
        event.set()

    def _renew(self) -> None:
        self._asking = True
        try:
            self._obtained(self._fetch())
        except TokenFailed as error:
            self._failed(error)
        finally:
            self._asking = False
            self.wake()

    def _obtained(self, grant: Grant) -> None:
        self._note_skew(grant.skew_s)
        if self._failures:
            log.info("access token obtained again", account=self._account, failures=self._failures)
        self.reason, self.account_refused, self._failures = "", False, 0
        self._token = grant.token
        self._expires_at = self._clock() + grant.lifetime_s
        self._next_at = self._expires_at - min(RENEW_EARLY_S, grant.lifetime_s / 2)

    def _failed(self, error: TokenFailed) -> None:
        self._note_skew(error.skew_s)
        self._failures += 1
        self.reason, self.account_refused = str(error), error.refused
        # At least half of the back-off: a crowd that was cut off together must not come back together.
        wait_s = self._back_off.delay_s(self._failures, (1 + random.random()) / 2)
        self._next_at = self._clock() + max(wait_s, error.retry_after_s)
        _seldom.error(
            (self._account, error.refused),
            "no access token for FCM, pushes wait" if not self.current() else "no new access token for FCM yet",
            account=self._account,
            error=str(error),
        )

    def _note_skew(self, skew_s: float | None) -> None:
        if skew_s is not None and abs(skew_s) > SKEW_WORTH_A_WARNING_S:
            _seldom.warning(
                (self._account, "skew"),
                "this machine's clock and that of Google's token endpoint differ: synchronize it",
                account=self._account,
                behind_s=round(skew_s),
            )


def _lifetime_s(given: Json) -> Json:
    """Of ``expires_in``, which is recommended (RFC 6749, 5.1), and which some endpoints give as text."""
    if given is None:
        return DEFAULT_LIFETIME_S
    return int(given) if isinstance(given, str) and re.fullmatch(r"[0-9]{1,18}", given) else given


def grant_of(token: object, lifetime_s: object, host: str, skew_s: float | None = None) -> Grant:
    """Checks what ``host`` gives. Raises ``TokenFailed``."""
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise TokenFailed(f"{host} answers without an access token", skew_s=skew_s)
    if not isinstance(lifetime_s, int | float) or isinstance(lifetime_s, bool) or lifetime_s < _MIN_LIFETIME_S:
        raise TokenFailed(f"{host} issues an access token without a lifetime", skew_s=skew_s)
    return Grant(token, min(float(lifetime_s), _MAX_LIFETIME_S), skew_s)


def _facts(body: bytes) -> dict[str, Json]:
    try:
        facts = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _refusal(facts: dict[str, Json], status: int) -> str:
    """RFC 6749, 5.2, in one line."""
    words = [facts.get("error"), facts.get("error_description")]
    said = ": ".join(word for word in words if isinstance(word, str) and word)
    return f"HTTP {status} {_cut(' '.join(said.split()))}".rstrip()


def _cut(text: str) -> str:
    return text[:_MAX_DESCRIPTION_CHARACTERS]


def _of_clocks(skew_s: float | None) -> str:
    if skew_s is None or abs(skew_s) <= SKEW_WORTH_A_WARNING_S:
        return ""
    return f" (this machine's clock is {abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead'})"


def _skew_s(date: str | None, now_s: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - now_s if date else None
    except (ValueError, OverflowError):
        return None
