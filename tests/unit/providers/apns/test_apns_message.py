"""Kafka messages for Apple: what becomes of each field, and what is refused."""

from __future__ import annotations

import json

import orjson
import pytest

from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.providers.http2 import literal_field
from pusher.push.fields import MAX_DEPTH, InvalidMessage, encode
from pusher.push.origin import origin_headers
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
    assert push.kind[:3] == (b"com.game", b"alert", b"")
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


@pytest.mark.parametrize(
    "number",
    [
        "1234567890123456789",
        str(2**70),
        str(-(2**70)),
        "1.0",
        "1e21",
        "0.1",
        "1E+400",
        "0.123456789012345678901",
        "-0.0",
    ],
)
def test_numbers_keep_their_value(number: str) -> None:
    raw = b'{"DeviceToken":"t","Payload":{"n":%s},"metadata":{"m":%s}}' % (number.encode(), number.encode())
    push = parse(raw)
    assert push.body == b'{"n":%s,"M":{"m":%s}}' % (number.encode(), number.encode())
    assert encode(push.metadata) == b'{"m":%s}' % number.encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not-json"),
        (b'{"DeviceToken":"t"} trailing', "not-json"),
        (b"\xff\xfe\x00", "not-json"),
        (b"", "not-json"),
        (None, "not-json"),
        (b'{"DeviceToken":"t","Payload":NaN}', "not-json"),
        (b"[" * 100_000, "too-deep"),
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
        # Apple, "Pushing background updates to your App": content-available is 1, and nothing is shown
        ({"content-available": True}, b"background", b"5"),
        ({"content-available": 0}, b"alert", b""),
        ({"content-available": "1"}, b"alert", b""),
        ({"content-available": None}, b"alert", b""),
        ({"content-available": 1, "alert": None, "badge": None, "sound": None}, b"background", b"5"),
        ({"content-available": 1, "badge": 0}, b"alert", b""),
    ],
)
def test_push_type_follows_the_payload(aps: object, push_type: bytes, priority: bytes) -> None:
    assert parse(message(Payload={"aps": aps})).kind[:3] == (b"com.game", push_type, priority)


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


@pytest.mark.parametrize(
    ("own", "payload", "push_type", "topic"),
    [
        # Apple, "Sending notification requests to APNs": the table of push types
        ("com.game.voip", {"aps": {}}, "voip", "com.game.voip"),
        ("com.game.complication", {"aps": {}}, "complication", "com.game.complication"),
        ("com.game.pushkit.fileprovider", {}, "fileprovider", "com.game.pushkit.fileprovider"),
        ("com.game.voip-ptt", {"aps": {}}, "pushtotalk", "com.game.voip-ptt"),
        ("com.game.location-query", {"aps": {}}, "location", "com.game.location-query"),
        ("com.game.push-type.liveactivity", {"aps": {}}, "liveactivity", "com.game.push-type.liveactivity"),
        ("com.game.push-type.controls", {"aps": {}}, "controls", "com.game.push-type.controls"),
        ("com.game.push-type.widgets", {"aps": {}}, "widgets", "com.game.push-type.widgets"),
        ("com.apple.mgmt.External.1", {"mdm": "push magic"}, "mdm", "com.apple.mgmt.External.1"),
        ("com.apple.mgmt.External.1", {}, "mdm", "com.apple.mgmt.External.1"),
        ("com.game", {"mdm": "push magic"}, "mdm", "com.game"),
        (
            "com.game",
            {"aps": {"content-state": {}, "event": "update"}},
            "liveactivity",
            "com.game.push-type.liveactivity",
        ),
        ("com.game", {"aps": {"content-state": None}}, "alert", "com.game"),
        ("com.game", "text", "alert", "com.game"),
        ("", {"aps": {"alert": "x"}}, "alert", ""),
    ],
)
def test_the_push_type_is_that_of_topic_and_payload(own: str, payload: object, push_type: str, topic: str) -> None:
    kind = ApnsParser(own)(*request(message(Payload=payload))).kind
    assert (kind.push_type.decode(), kind.topic.decode()) == (push_type, topic)


@pytest.mark.parametrize("given", ["voip", "VoIP", "VOIP"])
@pytest.mark.parametrize("own", ["com.game", "com.game.voip"])
def test_a_type_may_be_given_in_any_case_and_its_suffix_is_added_once(own: str, given: str) -> None:
    kind = ApnsParser(own)(*request(message(push_type=given))).kind
    assert (kind.push_type, kind.topic) == (b"voip", b"com.game.voip")


def test_nothing_of_ours_is_added_to_a_command_for_managed_devices() -> None:
    push = ApnsParser("com.apple.mgmt.x")(*request(message(Payload={"mdm": "magic"}, metadata={"jobId": 1})))
    assert push.body == b'{"mdm":"magic"}'
    assert push.metadata == {"jobId": 1}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"priority": "high"}, b"10"),
        ({"priority": "Normal"}, b"5"),
        ({"priority": 7}, b""),
        ({"priority": True}, b""),
        ({"priority": 10.0}, b""),
        ({"priority": []}, b""),
        ({"priority": "urgent"}, b""),
        ({"priority": None}, b""),
    ],
)
def test_a_priority_is_mapped_where_its_meaning_is_plain(fields: dict[str, object], expected: bytes) -> None:
    assert parse(message(**fields)).kind.priority == expected


ODD = [7, 1.5, True, [], {}, ["a"], {"a": 1}, "a b\r\nx: y", "\u2028", "x" * 5_000, "ä", None, ""]


@pytest.mark.parametrize(
    ("fields", "push_type", "topic", "priority"),
    [
        ({"push_type": " VoIP\n"}, b"voip", b"com.game.voip", b""),
        ({"priority": "HIGH "}, b"alert", b"com.game", b"10"),
        ({"topic": "com.other\n"}, b"alert", b"com.other", b""),
        ({"push_type": "\t", "topic": " ", "priority": " "}, b"alert", b"com.game", b""),
    ],
)
def test_white_space_around_a_word_is_cut_off(
    fields: dict[str, str], push_type: bytes, topic: bytes, priority: bytes
) -> None:
    """A line end behind a value comes from templates and files; what is meant is plain."""
    kind = parse(message(**fields)).kind
    assert (kind.push_type, kind.topic, kind.priority) == (push_type, topic, priority)


@pytest.mark.parametrize("field", ["push_type", "priority", "topic", "collapse_id", "expiration"])
@pytest.mark.parametrize("value", ODD)
def test_an_optional_field_of_a_wrong_kind_never_refuses_a_push(field: str, value: object) -> None:
    push = parse(message(**{field: value}))
    assert push.kind.push_type == b"alert"
    assert push.kind.topic == b"com.game"
    assert b"\r\n" not in push.literals


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"expiration": 0}, b"0"),
        ({"expiration": 1_700_000_000}, b"1700000000"),
        ({"expiration": 0, "push_expiry": 1_700_000_001_999}, b"0"),
        ({"push_expiry": 1_700_000_001_999}, b"1700000001"),
        ({"expiration": -1}, None),
        ({"expiration": "0"}, b"0"),
        ({"expiration": " 1700000000 "}, b"1700000000"),
        ({"expiration": 1_700_000_000.0}, b"1700000000"),
        ({"expiration": 0.5}, None),
        ({"expiration": "soon"}, None),
        ({"expiration": "\u0661"}, None),
        ({"expiration": 2**63}, None),
        ({}, None),
    ],
)
def test_expiration(fields: dict[str, object], expected: bytes | None) -> None:
    """Apple: 0 is one try and nothing stored, which differs from leaving the header out."""
    literals = parse(message(**fields)).literals
    if expected is None:
        assert b"apns-expiration" not in literals
    else:
        assert literal_field(b"apns-expiration", expected) in literals


@pytest.mark.parametrize(
    ("raw", "token", "payload", "metadata"),
    [
        (b'{"DeviceToken":"a","devicetoken":"b","DEVICETOKEN":"c"}', "c", None, None),
        (b'{"DeviceToken":"a","DeviceToken":"b"}', "b", None, None),
        (b'{"DeviceToken":"a","DeviceToken":null}', "a", None, None),
        (b'{"DeviceToken":"a","devicetoken":null}', "a", None, None),
        (b'{"DeviceToken":"a", "Payload" : {"x":1}, "Payload" : {"y":2}}', "a", {"y": 2}, None),
        (
            b'{"DeviceToken":"a","metadata":{"x":1},"metadata":{"y":2,"x":3}}',
            "a",
            {"M": {"x": 3, "y": 2}},
            {"x": 3, "y": 2},
        ),
        (b'{"DeviceToken":"a","metadata":{"x":1},"Metadata":{"y":2}}', "a", {"M": {"x": 1, "y": 2}}, {"x": 1, "y": 2}),
        (b'{"DeviceToken":"a","metadata":{"x":1},"metadata":null}', "a", {"M": {"x": 1}}, {"x": 1}),
        (b'{"DeviceToken":"a","Payload":{"k":1,"k":null}}', "a", {"k": None}, None),
    ],
)
def test_fields_that_are_given_twice(raw: bytes, token: str, payload: object, metadata: object) -> None:
    push = parse(raw)
    assert (push.token, json.loads(push.body), push.metadata) == (token, payload, metadata)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b'{"DeviceToken":"a","Payload":"x\\ud83d"}', "x\ufffd"),
        (b'{"DeviceToken":"a","Payload":"\\udc8ex"}', "\ufffdx"),
        (b'{"DeviceToken":"a","Payload":"\\udc8e\\ud83d"}', "\ufffd\ufffd"),
        (b'{"DeviceToken":"a","Payload":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"DeviceToken":"a","Payload":"\\\\ud83d"}', "\\ud83d"),
        (b'{"DeviceToken":"a","Payload":{"\\ud83d":1}}', {"\ufffd": 1}),
        (b'{"DeviceToken":"a","Payload":"caf\xe9"}', "caf\ufffd"),
        (b'{"DeviceToken":"a","Payload":"\xf0\x9f\x98"}', "\ufffd"),
    ],
)
def test_what_is_cut_becomes_a_replacement_character(raw: bytes, body: object) -> None:
    assert json.loads(parse(raw).body) == body


def test_a_message_beyond_all_measure_is_not_decoded() -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(b'{"DeviceToken":"t","Payload":"' + b"x" * 50_000_000 + b'"}')
    assert caught.value.reason == "too-large"


def test_fields_for_headers() -> None:
    push = parse(message(topic="com.other", priority="10", push_expiry=1_700_000_001_999, collapse_id="match-7"))
    assert push.kind[:3] == (b"com.other", b"alert", b"10")
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
    value = orjson.dumps(message())
    headers = origin_headers("push-game_apns-single/0/0/1700000000000", value)
    assert parse(value, topic="push-game_apns-massive", offset=77, headers=headers).id == parse(message()).id


def test_an_origin_that_replay_did_not_write_says_nothing() -> None:
    value, other = orjson.dumps(message()), orjson.dumps(message(priority=5))
    forged = [("pusher-origin", b"push-game_apns-single/0/0/1700000000000")]
    for headers in (forged, [*forged, ("pusher-origin-binding", b"1")], origin_headers("a/0/0/1", other)):
        assert parse(value, offset=7, headers=headers).id == parse(value, offset=7).id
