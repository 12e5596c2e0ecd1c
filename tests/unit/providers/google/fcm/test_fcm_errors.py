"""Every error code of FCM's, what it is called and what follows from it."""

from __future__ import annotations

import json

import pytest

from pusher.providers.google.fcm.errors import CODES, read_answer
from pusher.push.outcome import DELIVERED, Kind

NAMES = {
    "INVALID_ARGUMENT": "INVALID_JSON",
    "UNREGISTERED": "DEVICE_UNREGISTERED",
    "SENDER_ID_MISMATCH": "SENDER_ID_MISMATCH",
    "QUOTA_EXCEEDED": "DEVICE_MESSAGE_RATE_EXCEEDED",
    "UNAVAILABLE": "SERVICE_UNAVAILABLE",
    "INTERNAL": "INTERNAL_SERVER_ERROR",
    "THIRD_PARTY_AUTH_ERROR": "THIRD_PARTY_AUTH_ERROR",
    "APNS_AUTH_ERROR": "THIRD_PARTY_AUTH_ERROR",
}
RETRY = {"QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL"}
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


@pytest.mark.parametrize("place", ["@type", "errorCode", "status", "message", "details"])
def test_values_of_other_types_say_nothing(place: str) -> None:
    """However deep they are nested."""
    detail = {"@type": FCM_ERROR, "errorCode": "UNREGISTERED"}
    error = {"status": "INTERNAL", "details": [detail]}
    (error if place in ("status", "message", "details") else detail)[place] = "@"
    body = json.dumps({"error": error}).replace('"@"', "[" * 1_000 + "]" * 1_000).encode()
    outcome, _ = read_answer(400, body)
    assert outcome.reason in ("DEVICE_UNREGISTERED", "INTERNAL_SERVER_ERROR", "UNKNOWN")
    assert outcome.delete_token == (place in ("status", "message"))


def body_of(status: int, rpc_status: str, *details: object, message: str = "words of Google") -> bytes:
    error = {"code": status, "message": message, "status": rpc_status, "details": list(details)}
    return json.dumps({"error": error}).encode()


def test_every_code_is_tested() -> None:
    assert NAMES.keys() == CODES.keys()


@pytest.mark.parametrize("code", NAMES)
def test_each_code(code: str) -> None:
    body = body_of(400, "FAILED_PRECONDITION", {"@type": "x/google.rpc.Help"}, {"@type": FCM_ERROR, "errorCode": code})
    outcome, meaning = read_answer(400, body)
    assert outcome.reason == NAMES[code]
    assert outcome.key == NAMES[code].lower()
    assert outcome.description == "words of Google"
    assert outcome.delete_token is (code == "UNREGISTERED")
    assert meaning.retry is (code in RETRY)
    assert outcome.kind is (Kind.FAILED if code in RETRY else Kind.REJECTED)
    assert not meaning.access_token
    assert not meaning.credentials


# Google, "REST error codes for the HTTP v1 API", example 2: the token is named in words alone
IN_WORDS = "The registration token is not a valid FCM registration token"


def violations(*fields: object) -> dict[str, object]:
    return {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": list(fields)}


INVALID = {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"}


@pytest.mark.parametrize(
    "body",
    [
        body_of(400, "INVALID_ARGUMENT", INVALID, message=IN_WORDS),
        # firebase-admin-java#1064, async-firebase#15: seen by users
        body_of(400, "INVALID_ARGUMENT", message=IN_WORDS),
        # pushiko, "FCM responses": named as a field, in either order of details
        body_of(400, "INVALID_ARGUMENT", INVALID, violations({"field": "message.token", "description": "Invalid"})),
        body_of(400, "INVALID_ARGUMENT", violations({"field": "message.token"}), INVALID),
        body_of(400, "INVALID_ARGUMENT", INVALID, violations(None, 5, {"field": []}, {"field": "message.token"})),
    ],
)
def test_a_400_that_names_the_token_is_of_the_token(body: bytes) -> None:
    outcome, meaning = read_answer(400, body)
    assert (outcome.reason, outcome.key) == ("INVALID_REGISTRATION", "invalid_registration")
    assert (outcome.kind, outcome.delete_token) == (Kind.REJECTED, True)
    assert not meaning.retry
    assert not meaning.credentials


@pytest.mark.parametrize(
    "body",
    [
        # pushiko, "FCM responses": a message without a target, one that is too large
        body_of(400, "INVALID_ARGUMENT", INVALID, violations({"field": "message", "description": "Recipient"})),
        body_of(400, "INVALID_ARGUMENT", message="Request contains an invalid argument."),
        # Google, "REST error codes for the HTTP v1 API", example 1
        body_of(400, "INVALID_ARGUMENT", violations({"field": "message.data[0].value"})),
        body_of(400, "INVALID_ARGUMENT", INVALID, violations({"field": "message.token.x"}, {"field": "token"})),
        body_of(400, "INVALID_ARGUMENT", INVALID, violations({"field": "message.token"}) | {"@type": "x/Other"}),
        body_of(400, "INVALID_ARGUMENT", INVALID, violations() | {"fieldViolations": {"field": "message.token"}}),
    ],
)
def test_any_other_400_says_nothing_of_the_token(body: bytes) -> None:
    outcome, _ = read_answer(400, body)
    assert (outcome.reason, outcome.delete_token) == ("INVALID_JSON" if b"FcmError" in body else "UNKNOWN", False)


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_the_words_for_a_bad_token_count_in_a_400_alone(status: int) -> None:
    """A proxy may copy a body under a status of its own."""
    body = body_of(status, "INVALID_ARGUMENT", INVALID, message=IN_WORDS)
    assert not read_answer(status, body).outcome.delete_token


def test_success_is_200_alone() -> None:
    assert read_answer(200, b"").outcome is DELIVERED
    assert read_answer(200, b"<html>").outcome is DELIVERED
    assert read_answer(204, b"").outcome.kind is Kind.REJECTED


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (
            b'{"name":"projects/p/messages/0:1500415314455276%31bd1c9631bd1c96"}',
            "projects/p/messages/0:1500415314455276%31bd1c9631bd1c96",
        ),
        # pushiko, "FCM responses": of a dry run
        (b'{"name":"projects/foo/messages/fake_message_id"}', "projects/foo/messages/fake_message_id"),
        (b'{"name":5}', ""),
        (b'{"name":""}', ""),
        (b'["name"]', ""),
        (b"{}", ""),
        (b'{"name":"%b"}' % (b"x" * 9_000), "x" * 500),
    ],
)
def test_the_name_of_an_accepted_message(body: bytes, name: str) -> None:
    outcome, _ = read_answer(200, body)
    assert (outcome.kind, outcome.provider_id) == (Kind.DELIVERED, name)


@pytest.mark.parametrize(
    ("rpc_status", "name"),
    [
        ("INVALID_ARGUMENT", "UNKNOWN"),
        ("RESOURCE_EXHAUSTED", "DEVICE_MESSAGE_RATE_EXCEEDED"),
        ("UNAVAILABLE", "SERVICE_UNAVAILABLE"),
        ("INTERNAL", "INTERNAL_SERVER_ERROR"),
        ("NOT_FOUND", "UNKNOWN"),
        ("PERMISSION_DENIED", "UNKNOWN"),
        ("UNREGISTERED", "UNKNOWN"),
    ],
)
def test_without_the_detail_the_canonical_code_names_the_error(rpc_status: str, name: str) -> None:
    outcome, _ = read_answer(400, body_of(400, rpc_status))
    assert outcome.reason == name
    assert not outcome.delete_token


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><title>Error</title></html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"error": "text"}',
        b'{"error": null}',
        b'{"error": []}',
        b'{"error": {"status": 7, "message": [], "details": 3}}',
        b'{"error": {"details": [null, "x", {"errorCode": "UNREGISTERED"}, {"@type": 5}]}}',
        b'{"error": {"details": [{"@type": "x/google.firebase.fcm.v1.OtherError", "errorCode": "UNREGISTERED"}]}}',
        b'{"error": {"details": [{"@type": "' + FCM_ERROR.encode() + b'", "errorCode": ["UNREGISTERED"]}]}}',
        b'{"error": {"details": [{"@type": "' + FCM_ERROR.encode() + b'", "errorCode": "UNSPECIFIED_ERROR"}]}}',
    ],
)
@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504])
def test_a_body_without_a_code_leaves_the_status_to_decide(status: int, body: bytes) -> None:
    outcome, meaning = read_answer(status, body)
    assert (outcome.status, outcome.reason, outcome.key) == (status, "UNKNOWN", "unknown")
    assert outcome.description == f"HTTP {status}"
    assert not outcome.delete_token
    assert meaning.retry is (status in {429, 500, 502, 503, 504})
    assert outcome.kind is (Kind.FAILED if meaning.retry else Kind.REJECTED)
    assert meaning.access_token is (status == 401)
    assert meaning.credentials is (status in {401, 403})


def test_a_quota_waits_for_a_minute() -> None:
    detail = {"@type": FCM_ERROR, "errorCode": "QUOTA_EXCEEDED"}
    assert read_answer(429, body_of(429, "RESOURCE_EXHAUSTED", detail)).meaning.quota
    assert read_answer(429, b"").meaning.quota
    assert not read_answer(503, b"").meaning.quota


def test_an_apple_certificate_that_is_refused_is_no_reason_for_a_new_access_token() -> None:
    detail = {"@type": FCM_ERROR, "errorCode": "THIRD_PARTY_AUTH_ERROR"}
    meaning = read_answer(401, body_of(401, "UNAUTHENTICATED", detail)).meaning
    assert not meaning.access_token


def test_a_long_description_is_cut() -> None:
    outcome, _ = read_answer(400, body_of(400, "INVALID_ARGUMENT", message="x" * 10_000))
    assert len(outcome.description) == 500
