"""JSON as Go writes it: the expected texts are the output of Go 1.23's json.Marshal of the decoded input."""

from __future__ import annotations

import json

import orjson
import pytest

from pusher.providers.apns.message import ApnsParser
from pusher.providers.google.fcm.message import FcmParser
from pusher.providers.google.xmpp.message import GcmParser
from pusher.push.fields import decode_object
from pusher.push.limits.content import canonical


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ('{"b":1,"a":{"d":[1,2],"c":null}}', '{"a":{"c":null,"d":[1,2]},"b":1}'),
        ('{"a":"<b> & c"}', '{"a":"\\u003cb\\u003e \\u0026 c"}'),
        ('{"a":"\u2028\u2029é💎"}', '{"a":"\\u2028\\u2029é💎"}'),
        ('{"a":"1e3:2.50"}', '{"a":"1e3:2.50"}'),
        ('{"a":1.0,"b":2.50,"c":1e3}', '{"a":1,"b":2.5,"c":1000}'),
        ('{"a":1234567890123456789}', '{"a":1234567890123456800}'),
        ('{"a":9007199254740993}', '{"a":9007199254740992}'),
        ('{"a":123456789012345678901234567890}', '{"a":1.2345678901234568e+29}'),
        ('{"a":1e21,"b":1e20}', '{"a":1e+21,"b":100000000000000000000}'),
        ('{"a":0.000001,"b":0.0000001,"c":-1.5e-10}', '{"a":0.000001,"b":1e-7,"c":-1.5e-10}'),
        ('"text"', '"text"'),
        ("1.0", "1"),
        ('{"a":"\\n\\t\\u0001\\"\\\\"}', '{"a":"\\n\\t\\u0001\\"\\\\"}'),
    ],
)
def test_as_go_writes_it(given: str, written: str) -> None:
    value = decode_object(b'{"v":%b}' % given.encode())["v"]
    assert canonical(value).decode() == written


def content_of_apns(message: dict[str, object]) -> bytes:
    return ApnsParser("com.game", "game", compares=True)(
        orjson.dumps({"DeviceToken": "ab", **message}), "t/0/0/0"
    ).content


def test_apple_compares_aps() -> None:
    aps = {"badge": 1, "alert": "hi"}
    expected = b'{"alert":"hi","badge":1}'
    assert content_of_apns({"Payload": {"aps": aps, "M": {"a": 1}}, "metadata": {"jobId": "1"}}) == expected
    assert content_of_apns({"payload": {"aps": aps, "b": 2}}) == expected


@pytest.mark.parametrize("payload", [None, {}, {"aps": None}, [], 3])
def test_nothing_to_compare(payload: object) -> None:
    assert content_of_apns({"Payload": payload}) == b""


def test_a_payload_that_is_a_text_is_compared_itself() -> None:
    assert content_of_apns({"Payload": "hello"}) == b"hello"


@pytest.mark.parametrize("parser", [FcmParser("game", compares=True), GcmParser("game", compares=True)])
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"data": {"b": "2", "a": "1"}}, '{"data":{"a":"1","b":"2"}}'),
        (
            {"notification": {"icon": "i", "body": "B", "title": "T", "sound": ""}},
            '{"notification":{"title":"T","body":"B","icon":"i"}}',
        ),
        (
            {"notification": {"title": "T"}, "data": {"a": "1"}, "metadata": {"jobId": "1"}, "priority": "high"},
            '{"data":{"a":"1"},"notification":{"title":"T"}}',
        ),
        ({}, "{}"),
        ({"data": None, "notification": {}}, '{"notification":{}}'),
    ],
)
def test_google_compares_data_and_notification(
    parser: FcmParser | GcmParser, members: dict[str, object], expected: str
) -> None:
    push = parser(json.dumps({"to": "t1", **members}).encode(), "t/0/0/0")
    assert push.content.decode() == expected
