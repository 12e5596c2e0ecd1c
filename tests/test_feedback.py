"""Feedback records, byte by byte where consumers may depend on it."""

from __future__ import annotations

import json

from pusher.providers.apns.message import ApnsParser
from pusher.providers.apns.reasons import read_answer
from pusher.push.feedback import Origin, apns_feedback, google_feedback, upstream_feedback
from pusher.push.outcome import CONNECTION_ERROR, DELIVERED, Kind, Outcome
from pusher.push.push import Push
from tests.records import request

ORIGIN = Origin("game", "apns", "pod-1")


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
    metadata = {"n": 2**70, "text": "Ümlaut <&>  \u2028"}
    made = push()
    made.metadata = metadata
    assert json.loads(apns_feedback(ORIGIN, made, DELIVERED, 7))["metadata"]["n"] == 2**70


def test_google() -> None:
    origin = Origin("game", "gcm", "pod-1")
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
    message = {"message_id": "up1", "from": "TOKEN", "data": {"n": 2**70}, "error": "DEVICE_UNREGISTERED", "x": 1}
    assert upstream_feedback(Origin("game", "gcm", "pod-1"), message, 7) == (
        b'{"from":"TOKEN","message_id":"up1","message_type":"","category":"","data":{"n":1180591620717411303424},'
        b'"timestamp":7,"metadata":{"game":"game","hostname":"pod-1","platform":"gcm"}}'
    )
