"""What the Go program took from producers: fields of wrong kinds, cut texts, long numbers, fields given twice.

Each goes both ways to Google; the examples are kinds, in values and in keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from pusher.providers.google.fcm.message import FcmParser
from pusher.providers.google.feedback import google_feedback
from pusher.providers.google.request import MESSAGE, NOTIFICATION
from pusher.providers.google.xmpp.message import GcmParser
from pusher.push.feedback import SentFrom
from pusher.push.fields import InvalidMessage
from pusher.push.outcome import DELIVERED
from pusher.push.push import Push

PARSERS: list[Callable[[bytes, str], Push]] = [FcmParser("game"), GcmParser("game")]
OPTIONAL = sorted(MESSAGE.keys() - {"to", "data", "notification", "metadata", "push_expiry"})
WRONG: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    5,
    1.5,
    10**30,
    "",
    "x",
    " ",
    "é\0",
    [],
    [1],
    ["a", None],
    {},
    {"a": 1},
)
SENT_FROM = SentFrom("game", "gcm", "pod-1")


def body(push: Push) -> Any:
    found = orjson.loads(push.body)  # type: ignore[attr-defined]
    return found.get("message", found)


def feedback(push: Push) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(google_feedback(SENT_FROM, push, DELIVERED, 7))
    return found


@pytest.fixture(params=PARSERS, ids=["fcm", "xmpp"])
def parse(request: pytest.FixtureRequest) -> Callable[[bytes], Push]:
    return lambda value: request.param(value, "t/0/0/0")


@pytest.mark.parametrize("field", OPTIONAL)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_an_optional_field_of_a_wrong_kind_never_refuses_a_push(
    parse: Callable[[bytes], Push], field: str, value: object
) -> None:
    push = parse(json.dumps({"to": "t1", "data": {"a": "b"}, field: value}).encode())
    assert push.token == "t1"
    assert body(push)["data"] == {"a": "b"}


@pytest.mark.parametrize("field", sorted(NOTIFICATION))
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_nor_does_one_of_the_notification(parse: Callable[[bytes], Push], field: str, value: object) -> None:
    push = parse(json.dumps({"to": "t1", "data": {"a": "b"}, "notification": {field: value}}).encode())
    assert body(push)["data"] == {"a": "b"}


@pytest.mark.parametrize("field", ["to", "data", "notification", "metadata", "push_expiry"])
def test_what_the_push_is_about_refuses_it(parse: Callable[[bytes], Push], field: str) -> None:
    with pytest.raises(InvalidMessage):
        parse(json.dumps({"to": "t1", field: 1.5}).encode())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (rb'"a\ud83d"', "a\ufffd"),
        (rb'"\udc8ea"', "\ufffda"),
        (rb'"\udc8e\ud83d"', "\ufffd\ufffd"),
        (b'"a\xf0\x9f\x98"', "a\ufffd"),
        (b'"caf\xe9"', "caf\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
    ],
)
def test_cut_texts_are_repaired_as_values_and_as_keys(parse: Callable[[bytes], Push], value: bytes, text: str) -> None:
    push = parse(b'{"to":"t1","data":{"a":%b},"notification":{"title":%b},"metadata":{"m":%b}}' % (value, value, value))
    assert body(push)["data"] == {"a": text, "m": text}
    assert body(push)["notification"]["title"] == text
    assert feedback(push)["metadata"]["m"] == text
    assert body(parse(b'{"to":"t1","data":{%b:"b"}}' % value))["data"] == {text: "b"}


@pytest.mark.parametrize(
    "number", [b"1.10000000000000000001", b"123456789012345678901234567890", b"9007199254740993", b"1e400", b"-0.0"]
)
def test_numbers_keep_their_text(parse: Callable[[bytes], Push], number: bytes) -> None:
    push = parse(b'{"to":"t1","data":{"n":%b},"metadata":{"m":%b}}' % (number, number))
    sent = push.body  # type: ignore[attr-defined]
    assert b'"n":"%b"' % number in sent or b'"n":%b' % number in sent
    assert b'"m":%b' % number in google_feedback(SENT_FROM, push, DELIVERED, 7)


@pytest.mark.parametrize(
    ("value", "to", "data"),
    [
        (b'{"to":"a","TO":"b","To":null,"data":{"x":"1"}}', "b", {"x": "1"}),
        (b'{"to":"a","to":"b","data":{"x":"1"},"Data":{"y":"2"}}', "b", {"y": "2"}),
        (b'{"to":"a","data":{"x":"1"},"data":null}', "a", {"x": "1"}),
        (b'{"to":"a","metadata":{"x":"1"},"Metadata":{"y":"2"},"METADATA":null}', "a", {"x": "1", "y": "2"}),
    ],
)
def test_of_a_field_that_is_given_twice_the_last_that_is_not_null_holds(
    parse: Callable[[bytes], Push], value: bytes, to: str, data: dict[str, str]
) -> None:
    push = parse(value)
    assert push.token == to
    assert body(push)["data"] == data


def test_what_pusher_says_of_itself_is_not_the_producers_to_say(parse: Callable[[bytes], Push]) -> None:
    push = parse(b'{"to":"a","metadata":{"timestamp":9,"deleteToken":true,"Reason":"x","unregisteredAt":1,"m":1}}')
    assert set(body(push)["data"]) == {"timestamp", "deleteToken", "Reason", "unregisteredAt", "m"}
    found = feedback(push)
    assert found["timestamp"] == 7
    assert found["metadata"] == {"m": 1, "game": "game", "hostname": "pod-1", "platform": "gcm"}


def test_a_condition_beside_a_token_is_left_out(parse: Callable[[bytes], Push]) -> None:
    push = parse(b'{"to":"t1","condition":"x","data":{"a":"b"}}')
    assert push.token == "t1"
    assert "condition" not in body(push)


@pytest.mark.parametrize("given", ["a\tb", "x" * 1025])
def test_an_id_that_no_stanza_can_have_gives_way_to_the_derived_one(parse: Callable[[bytes], Push], given: str) -> None:
    message = {"to": "t1", "data": {"a": "b"}}
    assert parse(json.dumps(message | {"message_id": given}).encode()).id == parse(json.dumps(message).encode()).id
