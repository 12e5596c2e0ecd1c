"""Feedback records, byte by byte where consumers may depend on it."""

from __future__ import annotations

import json

import pytest

from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser
from pusher.providers.apns.reasons import read_answer
from pusher.providers.google.feedback import google_feedback, upstream_feedback
from pusher.push.feedback import SentFrom
from pusher.push.fields import decode_object
from pusher.push.outcome import CONNECTION_ERROR, DELIVERED, Kind, Outcome
from pusher.push.push import Push
from tests.records import request

ORIGIN = SentFrom("game", "apns", "pod-1")


def push(**fields: object) -> Push:
    made = ApnsParser("t")(*request({"DeviceToken": "AB12", **fields}))
    made.id = "0f8f"
    return made


def test_delivered() -> None:
    assert apns_feedback(ORIGIN, push(metadata={"jobId": "86ed"}), DELIVERED, 1698868000) == (
        b'{"Sent":true,"StatusCode":200,"Reason":"","ApnsID":"0f8f","Err":null,"DeviceToken":"AB12",'
        b'"timestamp":1698868000,"metadata":{"deviceToken":"AB12","game":"game","hostname":"pod-1","jobId":"86ed",'
        b'"platform":"apns"}}'
    )


def test_a_dead_token() -> None:
    outcome, _ = read_answer(410, b'{"reason":"Unregistered","timestamp":5}')
    assert apns_feedback(ORIGIN, push(), outcome, 7) == (
        b'{"Sent":false,"StatusCode":410,"Reason":"Unregistered","ApnsID":"0f8f",'
        b'"Err":{"Key":"unregistered","Description":"Unregistered"},"DeviceToken":"AB12","timestamp":7,'
        b'"metadata":{"deleteToken":true,"deviceToken":"AB12","game":"game","hostname":"pod-1","platform":"apns",'
        b'"unregisteredAt":5}}'
    )


def test_a_transport_failure() -> None:
    feedback = json.loads(apns_feedback(ORIGIN, push(), CONNECTION_ERROR, 7))
    assert (feedback["StatusCode"], feedback["Reason"], feedback["Err"]["Key"]) == (
        0,
        "ConnectionError",
        "connection-error",
    )


def test_what_pusher_writes_wins_over_the_producers_metadata() -> None:
    feedback = json.loads(apns_feedback(ORIGIN, push(metadata={"game": "x", "deviceToken": "y", "a": 1}), DELIVERED, 7))
    assert feedback["metadata"] == {
        "a": 1,
        "game": "game",
        "deviceToken": "AB12",
        "platform": "apns",
        "hostname": "pod-1",
    }


def test_without_the_producers_metadata() -> None:
    feedback = json.loads(apns_feedback(ORIGIN, push(metadata={"big": "x" * 99}), DELIVERED, 7, user_metadata=False))
    assert "big" not in feedback["metadata"]


def test_integers_above_64_bits_and_foreign_scripts() -> None:
    made = push()
    made.metadata = decode_object(b'{"n":%d,"f":1.50,"text":"\xc3\x9cmlaut <&>  \xe2\x80\xa8"}' % 2**70)
    assert b'"f":1.50,"game":"game","hostname":"pod-1","n":%d,' % 2**70 in apns_feedback(ORIGIN, made, DELIVERED, 7)


@pytest.mark.parametrize("name", ["deleteToken", "unregisteredAt", "timestamp", "Reason"])
def test_what_only_the_sender_says_is_not_taken_from_a_producer(name: str) -> None:
    for make, origin in ((apns_feedback, ORIGIN), (google_feedback, SentFrom("game", "gcm", "pod-1"))):
        fields = json.loads(make(origin, push(metadata={name: True, "jobId": "1"}), DELIVERED, 7))
        assert name not in fields["metadata"]
        assert fields["metadata"]["jobId"] == "1"
        assert fields["timestamp"] == 7


def test_google() -> None:
    origin = SentFrom("game", "gcm", "pod-1")
    assert google_feedback(origin, push(), DELIVERED._replace(registration_id="NEW"), 7) == (
        b'{"from":"AB12","message_id":"0f8f","message_type":"ack","registration_id":"NEW","category":"","timestamp":7,'
        b'"metadata":{"game":"game","hostname":"pod-1","platform":"gcm"}}'
    )
    dead = Outcome(Kind.REJECTED, 0, "DEVICE_UNREGISTERED", "device_unregistered", "gone", delete_token=True)
    assert google_feedback(origin, push(), dead, 7) == (
        b'{"from":"AB12","message_id":"0f8f","message_type":"nack","error":"DEVICE_UNREGISTERED",'
        b'"error_description":"gone","category":"","timestamp":7,'
        b'"metadata":{"deleteToken":true,"game":"game","hostname":"pod-1","platform":"gcm"}}'
    )


def test_what_comes_from_google_never_says_that_a_token_is_dead() -> None:
    written = b'{"message_id":"up1","from":"TOKEN","data":{"n":%d},"error":"DEVICE_UNREGISTERED","x":1}' % 2**70
    message = decode_object(written)
    assert upstream_feedback(SentFrom("game", "gcm", "pod-1"), message, 7) == (
        b'{"from":"TOKEN","message_id":"up1","message_type":"","category":"","data":{"n":1180591620717411303424},'
        b'"timestamp":7,"metadata":{"game":"game","hostname":"pod-1","platform":"gcm"}}'
    )
