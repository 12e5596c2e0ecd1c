"""The access token of an app: asked for in the background, early, one request at a time.

``fetch`` is one exchange with the token endpoint. ``AccessToken`` holds its result: ``run`` asks again five minutes
before the end, and goes on asking with back-off while the endpoint fails; the token in hand is used for as long as it
lasts, then ``current`` is empty and pushes wait. Only ``run`` asks, so there are never two requests.

Rule: nothing here knows what a push is. Tokens and assertions are never logged.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import gevent
import orjson
from gevent.event import Event

from pusher.errors import CredentialError
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.http2.pool import BackOff
from pusher.providers.http2.transport import describe
from pusher.push.fields import Json
from pusher.push.retry import parse_retry_after
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
RENEW_EARLY_S = 300.0
#: A token that is refused while it is so young is not the reason for the refusal.
RENEW_AT_MOST_EVERY_S = 60.0
#: Google refuses assertions from a clock that is some minutes off.
SKEW_WORTH_A_WARNING_S = 60.0
REQUEST_TIMEOUT_S = 15.0
_DEFAULT_LIFETIME_S = 3_600.0
_MAX_LIFETIME_S = 86_400.0
_MAX_RETRY_AFTER_S = 600.0
_MAX_ANSWER_BYTES = 65_536
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


@dataclass(frozen=True)
class TokenEndpoint:
    """An account's token endpoint. ``tls`` makes a client context that verifies the server."""

    account: ServiceAccount
    tls: Callable[[], ssl.SSLContext]
    timeout_s: float = REQUEST_TIMEOUT_S
    wall_clock: Callable[[], float] = time.time

    def fetch(self) -> Grant:
        """One exchange. Waits up to ``timeout_s``; raises ``TokenFailed``."""
        host = urlsplit(self.account.token_uri).hostname
        try:
            context = self.tls()
        except CredentialError as error:
            raise TokenFailed(f"no access token: {error}") from error
        # One limit for all of it; a socket's own would begin again with each octet.
        with gevent.Timeout(self.timeout_s, TokenFailed(f"{host} gave no access token within {self.timeout_s:g} s")):
            try:
                status, headers, body = self._exchange(context)
            except OSError as error:
                raise TokenFailed(f"no access token, {host}: {describe(error)}") from error
            except http.client.HTTPException as error:
                raise TokenFailed(f"no access token, {host} does not speak HTTP: {_cut(repr(error))}") from error
        now_s = self.wall_clock()
        skew_s = _skew_s(headers["date"], now_s)
        facts = _facts(body)
        if status == 200:
            return _grant(facts, skew_s, str(host))
        raise TokenFailed(
            f"{host} refuses an access token: {_refusal(facts, status)}{_of_clocks(skew_s)}",
            refused=status in {400, 401, 403},
            retry_after_s=min(parse_retry_after(headers["retry-after"] or "", now_s) or 0.0, _MAX_RETRY_AFTER_S),
            skew_s=skew_s,
        )

    def _exchange(self, context: ssl.SSLContext) -> tuple[int, http.client.HTTPMessage, bytes]:
        uri = urlsplit(self.account.token_uri)
        form = {"grant_type": GRANT_TYPE, "assertion": self.account.assertion(self.wall_clock())}
        host, port = str(uri.hostname), uri.port or 443
        # Each address gets a share of the time, so that a mute one does not hide the next.
        share_s = self.timeout_s / (len(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)) + 1)
        connection = http.client.HTTPSConnection(host, port, timeout=share_s, context=context)
        try:
            connection.connect()
            connection.sock.settimeout(None)
            connection.request(
                "POST",
                f"{uri.path or '/'}?{uri.query}" if uri.query else uri.path or "/",
                urlencode(form),
                {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            )
            response = connection.getresponse()
            return response.status, response.headers, response.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()


class AccessToken:
    """An app's access token. ``run`` belongs into a greenlet of its own."""

    def __init__(
        self,
        app: str,
        fetch: Callable[[], Grant],
        *,
        back_off: BackOff = BackOff(min_s=1.0, max_s=60.0),  # noqa: B008  # frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Why there is no token, or none after this one; "" when all is well.
        self.reason = "no access token yet"
        #: Whether the endpoint's last answer refused the account itself.
        self.account_refused = False
        self._app, self._fetch, self._back_off, self._clock = app, fetch, back_off, clock
        self._token = ""
        self._obtained_at = 0.0
        self._expires_at = 0.0
        self._next_at = clock()
        self._failures = 0
        self._stopped = False
        self._ready = Event()
        self._wake = Event()

    def current(self) -> str:
        """The token to send now, the same object until it changes; "" while there is none. Never waits."""
        if self._token and self._clock() >= self._expires_at:
            self._token = ""
        return self._token

    def wait(self, timeout_s: float) -> str:
        """``current``, after waiting until there is one."""
        if not self.current():
            self._ready.clear()
            self._ready.wait(timeout_s)
        return self.current()

    def refused(self, token: str) -> bool:
        """A request with this token was answered 401. True when a newer token makes another try worthwhile."""
        if token != self.current():
            return True
        if self._clock() - self._obtained_at < RENEW_AT_MOST_EVERY_S:
            return False
        log.warning("FCM refuses the access token before its time, asking for a new one", game=self._app)
        self._token = ""
        if not self._failures:
            self._next_at = self._clock()
            self._wake.set()
        return True

    def prime(self) -> None:
        """Asks for the first token, before ``run`` is started. Waits.

        Raises ``TokenFailed`` when the account is refused; an endpoint that cannot be had is left to ``run``.
        """
        failure = self._renew()
        if failure is not None and failure.refused:
            raise failure

    def run(self) -> None:
        """Keeps the token fresh until ``stop``."""
        self._stopped = False
        while not self._stopped:
            self._wake.clear()
            wait_s = self._next_at - self._clock()
            if wait_s > 0:
                self._wake.wait(wait_s)
            else:
                self._renew()

    def stop(self) -> None:
        """Lets ``run`` return; it may be started again. Returns at once."""
        self._stopped = True
        self._wake.set()

    def _renew(self) -> TokenFailed | None:
        try:
            grant = self._fetch()
        except TokenFailed as error:
            self._note_skew(error.skew_s)
            self._failed(error)
            return error
        self._note_skew(grant.skew_s)
        if self._failures:
            log.info("access token obtained again", game=self._app, failures=self._failures)
        self.reason, self.account_refused, self._failures = "", False, 0
        self._token = grant.token
        self._obtained_at = self._clock()
        self._expires_at = self._obtained_at + grant.lifetime_s
        self._next_at = self._expires_at - min(RENEW_EARLY_S, grant.lifetime_s / 2)
        self._ready.set()
        return None

    def _failed(self, error: TokenFailed) -> None:
        self._failures += 1
        self.reason, self.account_refused = str(error), error.refused
        # At least half of the back-off: a crowd that was cut off together must not come back together.
        wait_s = self._back_off.delay_s(self._failures, (1 + random.random()) / 2)
        self._next_at = self._clock() + max(wait_s, error.retry_after_s)
        _seldom.error(
            (self._app, error.refused),
            "no access token for FCM, pushes wait" if not self.current() else "no new access token for FCM yet",
            game=self._app,
            error=str(error),
        )

    def _note_skew(self, skew_s: float | None) -> None:
        if skew_s is not None and abs(skew_s) > SKEW_WORTH_A_WARNING_S:
            _seldom.warning(
                (self._app, "skew"),
                "this machine's clock and that of Google's token endpoint differ: synchronize it",
                game=self._app,
                behind_s=round(skew_s),
            )


def _grant(facts: dict[str, Json], skew_s: float | None, host: str) -> Grant:
    token, lifetime_s = facts.get("access_token"), facts.get("expires_in", _DEFAULT_LIFETIME_S)
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise TokenFailed(f"{host} answers without an access token", skew_s=skew_s)
    if type(lifetime_s) not in (int, float) or lifetime_s <= 0:
        raise TokenFailed(f"{host} gives an access token without lifetime", skew_s=skew_s)
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
