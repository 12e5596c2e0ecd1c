"""What providers answer: APNs, FCM, Google over XMPP, and the token endpoint.

Whatever they say becomes an outcome whose feedback the listener can read, and it deletes a token exactly when the
outcome says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import h11
from cryptography.hazmat.primitives.asymmetric import rsa

from pusher.errors import CredentialError
from pusher.listener.sorter import Sorter
from pusher.providers import http1
from pusher.providers.apns import reasons
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.google.fcm import errors as fcm_errors
from pusher.providers.google.fcm.access_token import TokenEndpoint, TokenFailed
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.google.fcm.token_source import token_source
from pusher.providers.google.feedback import google_feedback, upstream_feedback
from pusher.providers.google.xmpp import errors as gcm_errors
from pusher.providers.tls import TlsTrust
from pusher.push.feedback import SentFrom
from pusher.push.fields import InvalidMessage, decode_object
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push
from pusher.push.retry import RetryPolicy, parse_retry_after
from tests.fuzz.draw import Draw
from tests.records import record, tracker

STATUSES = (200, 400, 401, 403, 404, 405, 410, 413, 429, 500, 502, 503, 504, 201, 302, 499, 599, 999)
MAX_KEY_CHARACTERS = 64
NOW_S = 1_700_000_000.0
#: Made once: keys take long.
KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def apns(data: bytes) -> None:
    draw = Draw(data)
    status = draw.choice(STATUSES)
    outcome, meaning = reasons.read_answer(status, draw.rest())
    _check(outcome, status)
    assert outcome.reason in reasons.REASONS or outcome.key == reasons.UNEXPECTED or status == 200
    assert (outcome.kind is Kind.FAILED) >= meaning.retry
    _check_listener("apns", outcome, apns_feedback)


def fcm(data: bytes) -> None:
    draw = Draw(data)
    status = draw.choice(STATUSES)
    outcome, meaning = fcm_errors.read_answer(status, draw.rest())
    _check(outcome, status)
    assert (outcome.kind is Kind.FAILED) == meaning.retry
    assert not outcome.delete_token or outcome.reason == "DEVICE_UNREGISTERED"
    _check_listener("gcm", outcome, google_feedback)


def xmpp(data: bytes) -> None:
    """The JSON object in a stanza, as an answer and as a message from a device."""
    try:
        message = decode_object(data)
    except InvalidMessage:
        return
    outcome, meaning = gcm_errors.read_answer(message)
    assert (outcome.kind is Kind.FAILED) == meaning.retry
    _check_listener("gcm", outcome, google_feedback)
    feedback = json.loads(upstream_feedback(SentFrom("game", "gcm", "host"), message, 1))
    assert "error" not in feedback
    assert feedback["metadata"]["game"] == "game"


def _check(outcome: Outcome, status: int) -> None:
    assert outcome.status == status
    assert (outcome.kind is Kind.DELIVERED) == (status == 200)
    assert len(outcome.key) <= MAX_KEY_CHARACTERS
    assert status == 200 or outcome.reason
    assert status == 200 or outcome.key


def _check_listener(platform: str, outcome: Outcome, make: Callable[..., bytes]) -> None:
    push = Push()
    push.id, push.token = "id", "token"
    value = make(SentFrom("game", platform, "host"), push, outcome, 1)
    json.loads(value)
    found = Sorter(platform).sort(tracker(), [record(value)])
    assert not found.invalid
    assert [one.token for one in found.dead] == ["token"] * outcome.delete_token
    assert found.successes == (outcome.kind is Kind.DELIVERED)


def retry_after(data: bytes) -> None:
    """The value of a Retry-After header."""
    draw = Draw(data)
    policy = RetryPolicy(max_elapsed_s=draw.choice((None, 60.0)))
    attempts = 1 + draw.number(4)
    seconds = parse_retry_after(draw.rest().decode("latin-1"), NOW_S)
    assert seconds is None or seconds >= 0.0
    wait_s = policy.wait_s(attempts, seconds)
    assert wait_s is None or 0.0 <= wait_s <= 3_600.0


def token(data: bytes) -> None:
    """All that a token endpoint says, in pieces whose size the first octet tells."""
    draw = Draw(data)
    size = 1 + draw.number(256)
    octets = draw.rest()
    pieces = iter([octets[start : start + size] for start in range(0, len(octets), size)])
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/token", headers=[("Host", "a"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    try:
        answer = http1.ResponseReader(connection, lambda: next(pieces, b"")).read()
    except (http1.Unusable, h11.RemoteProtocolError):
        return
    assert 200 <= answer.status <= 999
    assert len(answer.body) <= http1.MAX_BODY_BYTES
    account = ServiceAccount("project", "me@example.com", KEY, "", "https://oauth2.example.com/token")
    endpoint = TokenEndpoint(account, http1.Client(TlsTrust().context), wall_clock=lambda: NOW_S)
    try:
        grant = endpoint.grant(answer)
    except TokenFailed as failed:
        assert len(str(failed).splitlines()) == 1
        assert len(str(failed)) <= 500
        assert 0.0 <= failed.retry_after_s <= 600.0
        return
    assert grant.token.isascii()
    assert grant.token.isprintable()
    assert " " not in grant.token
    assert 0.0 < grant.lifetime_s <= 86_400.0


def account(data: bytes) -> None:
    """Credentials as somebody may paste them."""
    text = data.decode("utf-8", "replace")
    try:
        found = token_source(
            "{" + text if not text.lstrip().startswith("{") else text, "", http1.Client(TlsTrust().context)
        )
    except CredentialError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert "/" not in found.project_id
