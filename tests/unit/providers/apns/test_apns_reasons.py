"""Every reason of Apple's, what it is called and what follows from it."""

from __future__ import annotations

import json

import pytest

from pusher.providers.apns.reasons import REASONS, key_of, read_answer
from pusher.push.outcome import Kind

DELETE = {"BadDeviceToken", "Unregistered", "ExpiredToken", "DeviceTokenNotForTopic"}
RETRY = {"TooManyRequests", "InternalServerError", "ServiceUnavailable", "Shutdown"}
#: It says nothing of the push.
TEAM = {"TooManyProviderTokenUpdates"}


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason(reason: str) -> None:
    outcome, meaning = read_answer(400, json.dumps({"reason": reason}).encode())
    assert outcome.reason == reason
    assert outcome.delete_token is (reason in DELETE)
    assert meaning.retry is (reason in RETRY)
    assert meaning.team is (reason in TEAM)
    assert outcome.kind is (Kind.FAILED if reason in RETRY | TEAM else Kind.REJECTED)


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("BadDeviceToken", "bad-device-token"),
        ("DeviceTokenNotForTopic", "device-token-not-for-topic"),
        ("Unregistered", "unregistered"),
        ("TooManyProviderTokenUpdates", "too-many-provider-token-updates"),
        ("BadEnvironmentKeyIdInToken", "bad-environment-key-id-in-token"),
        ("BadEnvironmentKeyInToken", "bad-environment-key-id-in-token"),
        ("ExpiredToken", "expired-token"),
        ("SomethingNew", "unexpected"),
        ("", "unexpected"),
    ],
)
def test_keys(reason: str, key: str) -> None:
    assert key_of(reason) == key


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason", "retry"),
    [
        (200, b"", Kind.DELIVERED, "", False),
        (200, b"<html>", Kind.DELIVERED, "", False),
        (503, b"", Kind.FAILED, "ServiceUnavailable", True),
        (500, b"<html>oops", Kind.FAILED, "InternalServerError", True),
        (502, b"<html>bad gateway", Kind.FAILED, "HTTP 502", True),
        (429, b"", Kind.FAILED, "TooManyRequests", True),
        (400, b"[]", Kind.REJECTED, "HTTP 400", False),
        (400, b'{"reason": 7}', Kind.REJECTED, "HTTP 400", False),
        (418, b"", Kind.REJECTED, "HTTP 418", False),
        # Apple's refusals have a reason; these come from a proxy
        (410, b"", Kind.FAILED, "HTTP 410", False),
        (410, b"<html>gone", Kind.FAILED, "HTTP 410", False),
        (404, b"<html>not here", Kind.FAILED, "BadPath", False),
        (403, b"<html>forbidden", Kind.FAILED, "Forbidden", False),
        (500, b'{"reason":"SomethingNew"}', Kind.FAILED, "SomethingNew", True),
    ],
)
def test_bodies_that_cannot_be_read_leave_the_status_to_decide(
    status: int, body: bytes, kind: Kind, reason: str, retry: bool
) -> None:
    outcome, meaning = read_answer(status, body)
    assert (outcome.kind, outcome.reason, meaning.retry) == (kind, reason, retry)


@pytest.mark.parametrize("status", [403, 404, 410])
@pytest.mark.parametrize("body", [b"", b"<html>gone", b"{}", b'{"reason":""}', b'{"reason":null}', b'{"error":"Gone"}'])
def test_without_apples_word_no_token_is_dead_and_no_credentials_are_refused(status: int, body: bytes) -> None:
    outcome, meaning = read_answer(status, body)
    assert not outcome.delete_token
    assert not meaning.credentials


@pytest.mark.parametrize("reason", sorted(DELETE))
def test_a_topic_that_the_message_chose_says_nothing_of_the_token(reason: str) -> None:
    outcome, _ = read_answer(400, json.dumps({"reason": reason}).encode(), own_topic=False)
    assert outcome.delete_token is (reason != "DeviceTokenNotForTopic")


def test_the_time_of_a_410_is_kept() -> None:
    body = b'{"reason":"Unregistered","timestamp":1700000000123}'
    assert read_answer(410, body).outcome.unregistered_at_ms == 1_700_000_000_123
    assert read_answer(400, body).outcome.unregistered_at_ms == 0
    assert read_answer(410, b'{"reason":"Unregistered","timestamp":"x"}').outcome.unregistered_at_ms == 0
