"""Kafka messages for Apple: what becomes of each field, and what is refused."""

from __future__ import annotations

import json

import pytest

from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.push.fields import MAX_DEPTH, InvalidMessage
from tests.records import request

TOKEN = "ab" * 32


def parse(value: object, topic: str = "push-game_apns-single", offset: int = 0, **changes: object) -> ApnsPush:
    return ApnsParser("com.game")(*request(value, offset, topic, **changes))


def message(**fields: object) -> dict[str, object]:
    return {"DeviceToken": TOKEN, "Payload": {"aps": {"alert": "hi"}}, **fields}


def test_a_plain_message() -> None:
    push = parse(message())
    assert (push.token, push.path) == (TOKEN, b"/3/device/" + TOKEN.encode())
    assert json.loads(push.body) == {"aps": {"alert": "hi"}}
    assert push.kind == (b"com.game", b"alert", b"")
    assert push.metadata is None
    assert push.expires_ms == 0


@pytest.mark.parametrize("name", ["DeviceToken", "deviceToken", "DEVICETOKEN", "devicetoken"])
def test_names_have_no_case_and_the_last_spelling_wins(name: str) -> None:
    raw = b'{"DeviceToken":"first","%s":"last"}' % name.encode()
    assert parse(raw).token == "last"


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"DeviceToken":"%b","Payload":%b1%b}' % (TOKEN.encode(), opening * levels, closing * levels)


@pytest.mark.parametrize("levels", [MAX_DEPTH, 990, 1_020, 100_000])
def test_what_is_nested_deeper_than_encoders_go_is_invalid(levels: int) -> None:
    for brackets in ((b"[", b"]"), (b'{"a":', b"}")):
        with pytest.raises(InvalidMessage) as invalid:
            parse(nested(levels, *brackets))
        assert invalid.value.reason in ("too-deep", "not-json")


def test_the_deepest_message_and_brackets_in_its_texts() -> None:
    assert parse(nested(MAX_DEPTH - 1)).body == b"[" * (MAX_DEPTH - 1) + b"1" + b"]" * (MAX_DEPTH - 1)
    assert json.loads(parse(message(Payload={"aps": {"alert": "[{" * 200}})).body) == {"aps": {"alert": "[{" * 200}}


def test_an_origin_header_without_a_value_says_nothing() -> None:
    assert parse(message(), headers=[("pusher-origin", b"")]).id == parse(message()).id


def test_unknown_fields_and_other_spellings_are_ignored() -> None:
    assert parse(message(pushExpiry=1, ApnsID="x", whatever=[1])).expires_ms == 0


@pytest.mark.parametrize(
    ("payload", "metadata", "sent"),
    [
        ({"aps": 1}, {"a": 1}, {"aps": 1, "M": {"a": 1}}),
        ({"M": {"a": 0}}, {"a": 1, "b": {"c": 2}}, {"M": {"a": 0, "b": {"c": 2}}}),
        ({"M": {"a": None}}, {"a": 1}, {"M": {"a": 1}}),
        ({"M": None}, {}, {"M": {}}),
        ({"M": [1]}, {"a": 1}, {"M": [1]}),
        (None, {"a": 1}, {"M": {"a": 1}}),
        ("text", {"a": 1}, "text"),
        ({"x": 1}, None, {"x": 1}),
        (None, None, None),
    ],
)
def test_metadata_is_merged_into_m(payload: object, metadata: object, sent: object) -> None:
    assert json.loads(parse(message(Payload=payload, metadata=metadata)).body) == sent


@pytest.mark.parametrize("number", ["1234567890123456789", str(2**70), str(-(2**70)), "1.0", "1e21", "0.1"])
def test_numbers_keep_their_value(number: str) -> None:
    raw = b'{"DeviceToken":"t","Payload":{"n":%s},"metadata":{"m":%s}}' % (number.encode(), number.encode())
    push = parse(raw)
    assert json.loads(push.body)["n"] == json.loads(number)
    assert type(json.loads(push.body)["n"]) is type(json.loads(number))
    assert push.metadata == {"m": json.loads(number)}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not-json"),
        (b'{"DeviceToken":"t"} trailing', "not-json"),
        (b"\xff\xfe\x00", "not-json"),
        (b"", "not-json"),
        (None, "not-json"),
        (b'{"DeviceToken":"t","Payload":1e999}', "not-json"),
        (b'{"DeviceToken":"t","Payload":NaN}', "not-json"),
        (b'{"DeviceToken":"t","Payload":"\\ud800"}', "not-json"),
        (b"[" * 100_000, "not-json"),
        (b"[1]", "not-an-object"),
        (b"null", "not-an-object"),
        ({"Payload": {}}, "missing-token"),
        ({"DeviceToken": ""}, "missing-token"),
        ({"DeviceToken": 7}, "bad-token"),
        ({"DeviceToken": "a/b"}, "bad-token"),
        ({"DeviceToken": "a b"}, "bad-token"),
        ({"DeviceToken": "a\r\nx: y"}, "bad-token"),
        ({"DeviceToken": "%zz"}, "bad-token"),
        ({"DeviceToken": "é"}, "bad-token"),
        ({"DeviceToken": "a" * 5000}, "bad-token"),
        (message(metadata=[1]), "bad-metadata"),
        (message(metadata="x"), "bad-metadata"),
        (message(push_expiry="1"), "bad-expiry"),
        (message(push_expiry=True), "bad-expiry"),
        (b'{"DeviceToken":"t","push_expiry":1.0}', "bad-expiry"),
        (b'{"DeviceToken":"t","push_expiry":1e3}', "bad-expiry"),
        (message(priority=7), "bad-priority"),
        (message(priority=True), "bad-priority"),
        (message(priority=10.0), "bad-priority"),
        (message(priority=[]), "bad-priority"),
        (message(push_type="x" * 65), "bad-push-type"),
        (message(push_type="alert\n"), "bad-push-type"),
        (message(push_type=3), "bad-push-type"),
        (message(topic="a b"), "bad-topic"),
        (message(collapse_id=1), "bad-collapse-id"),
        (message(collapse_id="a\r\nauthorization: x"), "bad-collapse-id"),
        (message(Payload={"x": "y" * 70_000}), "payload-too-large"),
    ],
)
def test_what_can_never_be_sent(value: object, reason: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(value)
    assert caught.value.reason == reason
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("aps", "push_type", "priority"),
    [
        ({"alert": "x"}, b"alert", b""),
        ({"content-available": 1}, b"background", b"5"),
        ({"content-available": 1, "badge": 1}, b"alert", b""),
        ({"content-available": 1, "sound": "x"}, b"alert", b""),
        ({}, b"alert", b""),
    ],
)
def test_push_type_follows_the_payload(aps: object, push_type: bytes, priority: bytes) -> None:
    assert parse(message(Payload={"aps": aps})).kind == (b"com.game", push_type, priority)


@pytest.mark.parametrize(
    ("push_type", "topic"),
    [
        ("voip", b"com.game.voip"),
        ("complication", b"com.game.complication"),
        ("liveactivity", b"com.game.push-type.liveactivity"),
        ("location", b"com.game.location-query"),
        ("pushtotalk", b"com.game.voip-ptt"),
        ("fileprovider", b"com.game.pushkit.fileprovider"),
        ("controls", b"com.game.push-type.controls"),
        ("widgets", b"com.game.push-type.widgets"),
        ("mdm", b"com.game"),
    ],
)
def test_the_topic_gets_apples_suffix(push_type: str, topic: bytes) -> None:
    assert parse(message(push_type=push_type)).kind.topic == topic


def test_fields_for_headers() -> None:
    push = parse(message(topic="com.other", priority="10", push_expiry=1_700_000_001_999, collapse_id="match-7"))
    assert push.kind == (b"com.other", b"alert", b"10")
    assert b"apns-expiration\x0a1700000001" in push.literals
    assert b"apns-collapse-id\x07match-7" in push.literals
    assert push.id.encode() in push.literals


def test_the_id_is_derived_from_where_the_record_stands() -> None:
    first, again, next_one = parse(message()), parse(message(priority=5)), parse(message(), offset=1)
    assert first.id == again.id != next_one.id
    assert len(first.id) == 36
    assert first.id[14] == "5"
    assert first.id[19] in "89ab"


def test_a_replayed_record_keeps_the_id_of_the_first() -> None:
    origin = ("pusher-origin", b"push-game_apns-single/0/0/1700000000000")
    assert parse(message(), topic="push-game_apns-massive", offset=77, headers=[origin]).id == parse(message()).id
