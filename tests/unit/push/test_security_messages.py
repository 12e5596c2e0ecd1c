"""What hostile messages may try: none of them ends the process, and none writes into a header, a log or a datagram."""

from __future__ import annotations

import re
from collections.abc import Callable

import hpack
import orjson
import pytest

from pusher.errors import CredentialError
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.google.fcm.errors import read_answer
from pusher.providers.google.fcm.message import parse as parse_fcm
from pusher.providers.google.feedback import google_feedback
from pusher.providers.google.xmpp.engine import message_stanza
from pusher.providers.google.xmpp.message import parse as parse_gcm
from pusher.push.feedback import SentFrom
from pusher.push.fields import MAX_DEPTH, InvalidMessage
from pusher.push.outcome import DELIVERED
from pusher.push.push import Push
from pusher.telemetry import metrics
from pusher.telemetry.stats import MAX_SERIES, MAX_TAG_CHARACTERS, OTHER, Stats
from tests.records import request

Parse = Callable[[bytes | None, str], Push]
PARSERS: dict[str, Parse] = {"apns": ApnsParser("com.game"), "gcm": parse_gcm, "fcm": parse_fcm}
FRAMES: dict[str, bytes] = {
    "apns": b'{"DeviceToken":"ab","Payload":%b}',
    "apns metadata": b'{"DeviceToken":"ab","Payload":{"M":"mine"},"metadata":%b}',
    "gcm": b'{"to":"ab","data":%b}',
    "gcm metadata": b'{"to":"ab","metadata":%b}',
    "fcm": b'{"to":"ab","data":%b}',
    "fcm android": b'{"to":"ab","priority":"high","android":%b}',
}
ORIGIN = SentFrom("game", "apns", "host")
BREAKS = ["\r\n", "\n", "\0", "\r\nx-forged: 1", "\x1b[2J", "\x7f", "\x85", "\u2028"]


def reason_of(parse: Parse, value: bytes) -> str:
    try:
        parse(*request(value))
    except InvalidMessage as invalid:
        return invalid.reason
    return ""


def ends(frame: str, nested: bytes) -> str:
    """The reason why a message is invalid, "" for one that can be sent and fed back."""
    platform = frame.split(maxsplit=1)[0]
    try:
        push = PARSERS[platform](*request(FRAMES[frame] % nested))
    except InvalidMessage as invalid:
        return invalid.reason
    (apns_feedback if platform == "apns" else google_feedback)(ORIGIN, push, DELIVERED, 1)
    return ""


def nested(depth: int, number: bytes = b"1") -> bytes:
    return b'{"a":' * depth + number + b"}" * depth


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("number", [b"1", b"9" * 30], ids=["small", "long number"])
def test_nesting_of_any_depth_ends_no_process(frame: str, number: bytes) -> None:
    assert ends(frame, nested(MAX_DEPTH - 10, number)) == ""
    for depth in (MAX_DEPTH + 10, 500, 900, 950, 985, 1000, 1020):
        assert ends(frame, nested(depth, number)) in ("too-deep", "not-json")
    assert ends(frame, nested(100_000, number)) in ("too-deep", "not-json")


@pytest.mark.parametrize("depth", [900, 1000, 1020])
def test_nesting_within_a_text_ends_no_process(depth: int) -> None:
    arguments = orjson.dumps({"to": "ab", "notification": {"body_loc_args": "[" * depth + "]" * depth}})
    assert reason_of(parse_fcm, arguments) in ("", "too-deep")


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert ends("apns", b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}") == ""


@pytest.mark.parametrize("member", ["@type", "errorCode", "status"])
def test_an_answer_of_google_that_is_nested_deeply_ends_no_process(member: str) -> None:
    deep = b"[" * 1000 + b"]" * 1000
    body = {
        "@type": b'{"error":{"details":[{"@type":%b}]}}',
        "errorCode": b'{"error":{"details":[{"@type":"google.firebase.fcm.v1.FcmError","errorCode":%b}]}}',
        "status": b'{"error":{"status":%b}}',
    }[member]
    assert read_answer(400, body % deep).outcome.reason == "UNKNOWN"


@pytest.mark.parametrize("field", ["collapse_id", "push_type", "priority", "topic"])
@pytest.mark.parametrize("text", BREAKS)
def test_no_field_of_a_push_for_apple_breaks_a_header(field: str, text: str) -> None:
    message = {"DeviceToken": "ab", "Payload": {}} | {field: f"alert{text}x"}  # at an end it is cut off
    push = ApnsParser("com.game")(*request(message))
    headers = hpack.Decoder().decode(push.literals, raw=True)
    assert not [value for _, value in headers if text.encode() in value]
    assert push.kind[:3] == (b"com.game", b"alert", b"")


@pytest.mark.parametrize("text", BREAKS)
def test_no_token_of_a_push_for_apple_breaks_a_header(text: str) -> None:
    with pytest.raises(InvalidMessage):
        PARSERS["apns"](*request({"DeviceToken": f"ab{text}", "Payload": {}}))


@pytest.mark.parametrize("token", ["a/../../1/x", "a?b", "a#b", "%zz", "a b", "a\\b", "ä"])
def test_no_token_leaves_its_place_in_the_path(token: str) -> None:
    with pytest.raises(InvalidMessage):
        PARSERS["apns"](*request({"DeviceToken": token, "Payload": {}}))


@pytest.mark.parametrize("text", BREAKS)
def test_no_target_of_a_push_for_google_breaks_a_stanza(text: str) -> None:
    with pytest.raises(InvalidMessage):
        parse_gcm(*request({"to": f"a{text}"}))


@pytest.mark.parametrize("text", BREAKS)
def test_no_id_of_a_push_for_google_breaks_a_stanza(text: str) -> None:
    """It is left out, as if there were none."""
    push, without = parse_gcm(*request({"to": "ab", "message_id": f"a{text}"})), parse_gcm(*request({"to": "ab"}))
    assert (push.id, push.body) == (without.id, without.body)
    assert push.id.isprintable()


def test_markup_in_a_push_for_google_is_text() -> None:
    push = parse_gcm(*request({"to": "ab", "message_id": "'\"><x/>&", "data": {"k": "</gcm></message><x/>]]>"}}))
    stanza = message_stanza(push.id, push.body)
    assert re.findall(rb"<[^>]*>", stanza)[-2:] == [b"</gcm>", b"</message>"]
    assert stanza.count(b"<") == 4


@pytest.mark.parametrize("project", ["a/../b", "a?b", "a\r\nx: y", "a b", "", "ä"])
def test_no_project_id_leaves_its_place_in_the_path(project: str) -> None:
    account: dict[str, object] = {"project_id": project, "client_email": "a@b", "private_key": "x"}
    with pytest.raises(CredentialError, match="project_id"):
        ServiceAccount.read(account, "the account")


@pytest.mark.parametrize(
    "value",
    [
        b'{"DeviceToken":"\\ud800","Payload":{}}',
        b'{"DeviceToken":"\\u0000","Payload":{}}',
        b'{"DeviceToken":"ab","Payload":{"a":NaN}}',
        b'{"DeviceToken":"ab","DeviceToken":["x"],"Payload":{}}',
        b'{"DeviceToken":"ab","Payload":{"a":"' + b"x" * 10_000_000 + b'"}}',
        b'{"DeviceToken":"ab","Payload":{}}' + b" " * 10_000_000 + b"x",
        b"\xff\xfe{}",
    ],
    ids=["surrogate", "nul", "nan", "twice", "10 MB", "blanks", "utf-16"],
)
def test_json_at_its_edges_is_invalid(value: bytes) -> None:
    with pytest.raises(InvalidMessage) as invalid:
        PARSERS["apns"](*request(value))
    assert len(invalid.value.detail) < 300


def test_reasons_and_topics_that_others_invent_are_a_bounded_number_of_series() -> None:
    stats = Stats("host")
    for number in range(5 * MAX_SERIES):
        stats.counter(metrics.FAILED, "gcm", "game", f"reason-{number}").add()
        stats.counter(metrics.INVALID, f"platform-{number}", f"game-{number}", "unknown-game").add()
    samples = stats.snapshot()
    failed = {sample.tags: sample.value for sample in samples if sample.metric is metrics.FAILED}
    assert len(failed) == MAX_SERIES + 1
    assert failed["gcm", "game", OTHER] == 4 * MAX_SERIES
    assert failed["gcm", "game", "reason-7"] == 1
    invalid = [sample for sample in samples if sample.metric is metrics.INVALID]
    assert len(invalid) <= 2 * MAX_SERIES + 1
    assert sum(sample.value for sample in invalid) == 5 * MAX_SERIES


def test_a_long_reason_is_cut_in_metrics() -> None:
    stats = Stats("host")
    for end in ("a", "b"):
        stats.counter(metrics.FAILED, "gcm", "game", "x" * 2_000 + end).add()
    (sample,) = stats.snapshot()
    assert sample.tags[2] == "x" * MAX_TAG_CHARACTERS
    assert sample.value == 2
