"""What a feedback says about its token, and that nothing in a topic can break the reading."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from pusher.broker.offsets import TopicPartition
from pusher.listener.sorter import Sorted, Sorter, topic_name
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.reasons import REASONS
from pusher.providers.google.feedback import google_feedback
from pusher.providers.provider import provider
from pusher.push.feedback import SentFrom
from pusher.push.origin import origin_headers
from pusher.push.outcome import DELIVERED, Kind, Outcome
from pusher.push.push import Push
from pusher.push.topics import TopicName
from tests.records import record, tracker

APNS, GCM = "push-game-apns-feedbacks", "push-game-gcm-feedbacks"


def sort(*values: object, platform: str = "apns") -> Sorted:
    records = [record(value, offset, topic=APNS if platform == "apns" else GCM) for offset, value in enumerate(values)]
    return Sorter(platform).sort(tracker(records[0].topic), records)


def refusal(reason: object, token: object = "AB12", **fields: object) -> dict[str, object]:
    return {"Sent": False, "StatusCode": 410, "Reason": reason, "ApnsID": "x", "DeviceToken": token, **fields}


def nack(error: object, token: object = "AB12", **fields: object) -> dict[str, object]:
    return {"from": token, "message_id": "x", "message_type": "nack", "error": error, "category": "", **fields}


@pytest.mark.parametrize(
    ("reason", "doubtful"),
    [
        ("Unregistered", False),
        ("ExpiredToken", False),
        ("BadDeviceToken", True),
        ("DeviceTokenNotForTopic", True),
    ],
)
def test_apples_words_for_a_dead_token(reason: str, doubtful: bool) -> None:
    found = sort(refusal(reason))
    assert [(one.token, one.reason, one.doubtful) for one in found.dead] == [("AB12", reason, doubtful)]
    assert (found.others, found.successes, found.doubtful, found.proven) == ([], 0, int(doubtful), int(not doubtful))
    assert found.invalid == []


@pytest.mark.parametrize(
    ("error", "doubtful"),
    [("DEVICE_UNREGISTERED", False), ("BAD_REGISTRATION", True), ("INVALID_REGISTRATION", True)],
)
def test_googles_words_for_a_dead_token(error: str, doubtful: bool) -> None:
    found = sort(nack(error), platform="gcm")
    assert [(one.token, one.reason, one.doubtful) for one in found.dead] == [("AB12", error, doubtful)]
    assert (found.doubtful, found.proven) == (int(doubtful), int(not doubtful))


@pytest.mark.parametrize(
    ("reason", "metadata", "deleted"),
    [
        ("TopicDisallowed", {"deleteToken": True}, False),
        ("DeviceTokenNotForTopic", {"deleteToken": True, "hostname": "pod-1"}, True),
        ("DeviceTokenNotForTopic", {"hostname": "pod-1"}, False),
        ("DeviceTokenNotForTopic", {"hostname": "pod-1", "deleteToken": "true"}, False),
        ("DeviceTokenNotForTopic", None, True),
        ("Unregistered", {"hostname": "pod-1"}, True),
        ("BadDeviceToken", {"hostname": "pod-1"}, True),
        ("HTTP 410", {"deleteToken": True}, False),
    ],
)
def test_only_the_word_on_the_token_counts_and_where_it_needs_the_senders_mark(
    reason: str, metadata: object, deleted: bool
) -> None:
    found = sort(refusal(reason, metadata=metadata))
    assert (len(found.dead), found.others) == ((1, []) if deleted else (0, [0]))


def test_feedbacks_of_the_go_program() -> None:
    untracked = {"Sent": False, "StatusCode": 400, "Reason": "BadDeviceToken", "ApnsID": "x", "DeviceToken": "A"}
    assert [one.token for one in sort(untracked | {"timestamp": 0}).dead] == ["A"]
    newest = {"from": "B", "error": "DEVICE_UNREGISTERED", "error_description": "Requested entity was not found."}
    assert [one.token for one in sort(newest, platform="gcm").dead] == ["B"]
    unread = {"Sent": False, "StatusCode": 0, "Reason": "", "ApnsID": "", "Err": None, "DeviceToken": "C"}
    assert sort(unread).dead == []


@pytest.mark.parametrize(
    ("metadata", "timestamp", "told_ms"),
    [
        ({"unregisteredAt": 1_600_000_000_123}, 1_650_000_000, 1_600_000_000_123),
        ({"unregisteredAt": "1"}, 1_650_000_000, 1_650_000_000_000),
        (None, 1_650_000_000, 1_650_000_000_000),
        (None, 0, 1_700_000_000_000),
        ({"unregisteredAt": True}, "1", 1_700_000_000_000),
    ],
)
def test_when_it_was_known_that_a_token_is_dead(metadata: object, timestamp: object, told_ms: int) -> None:
    assert sort(refusal("Unregistered", metadata=metadata, timestamp=timestamp)).dead[0].told_ms == told_ms


def test_what_replay_released_is_marked_and_not_counted() -> None:
    value = orjson.dumps(refusal("BadDeviceToken"))
    copy = record(value, 1, topic=APNS, headers=origin_headers("push-game-apns-held/0/5/1", value))
    found = Sorter("apns").sort(tracker(APNS), [record(value, 0, topic=APNS), copy])
    assert [one.released for one in found.dead] == [False, True]
    assert (found.doubtful, found.proven) == (1, 0)


def test_the_senders_and_the_listener_agree_on_dead_tokens() -> None:
    assert {name for name, reason in REASONS.items() if reason.delete_token} == set(provider("apns").rules.dead)


def test_what_our_senders_write_is_understood() -> None:
    push = Push()
    push.token, push.id, push.metadata = "AB12", "id", {"jobId": 1}
    dead = Outcome(Kind.REJECTED, status=410, reason="Unregistered", key="unregistered", delete_token=True)
    gone = Outcome(Kind.REJECTED, reason="DEVICE_UNREGISTERED", key="device_unregistered", delete_token=True)
    apple = [apns_feedback(SentFrom("game", "apns", "h"), push, outcome, 1) for outcome in (DELIVERED, dead)]
    google = [google_feedback(SentFrom("game", "gcm", "h"), push, outcome, 1) for outcome in (DELIVERED, gone)]
    for found in (sort(*apple), sort(*google, platform="gcm")):
        assert (found.successes, found.others, [one.token for one in found.dead]) == (1, [0], ["AB12"])


@pytest.mark.parametrize(
    "value",
    [
        refusal("TooManyRequests"),
        refusal("BadTopic", metadata={"deleteToken": True}),
        refusal("unregistered"),
        refusal(410),
        refusal(None),
        refusal(["Unregistered"]),
        refusal({"Unregistered": 1}),
        {"error": "DEVICE_UNREGISTERED", "from": "AB12"},
        {"": "Unregistered", "DeviceToken": "AB12"},
        {},
        None,
        b"null",
    ],
)
def test_anything_else_deletes_nothing(value: object) -> None:
    found = sort(value if value is not None else b"null")
    assert (found.dead, found.others, found.successes, found.invalid) == ([], [0], 0, [])


def test_successes_are_counted() -> None:
    found = sort({"Sent": True, "Reason": ""}, {"Sent": True, "Reason": "Odd"}, {"sent": True}, {"Sent": "true"})
    assert (found.successes, found.others) == (2, [0, 1, 2, 3])
    found = sort({"message_type": "ack"}, {"message_type": "receipt"}, nack("INVALID_JSON"), platform="gcm")
    assert (found.successes, found.others) == (1, [0, 1, 2])


def test_names_of_fields_have_no_case_and_the_last_spelling_wins() -> None:
    found = sort(
        b'{"REASON":"Unregistered","devicetoken":"AB12"}',
        b'{"Reason":"","DeviceToken":"x","reason":"Unregistered","deviceToken":"AB12"}',
        b'{"reason":"Unregistered","Reason":"BadTopic","DeviceToken":"AB12"}',
        b'{"reason":"Unregistered","Reason":null,"DEVICETOKEN":"AB12","DeviceToken":null}',
    )
    assert [one.token for one in found.dead] == ["AB12", "AB12", "AB12"]
    assert found.others == [2]


def test_of_a_field_that_is_given_twice_the_last_that_is_not_null_holds() -> None:
    found = sort(
        b'{"Reason":"Unregistered","DeviceToken":"AB12","Reason":null,"DeviceToken":null}',
        b'{"Reason":"BadTopic","DeviceToken":"AB12","Reason":"Unregistered"}',
        b'{"Reason":"DeviceTokenNotForTopic","DeviceToken":"AB12","metadata":{"deleteToken":true},"metadata":{"a":1}}',
        b'{"Reason":"Unregistered","DeviceToken":"AB12","Reason":"BadTopic"}',
        b'{"Reason":null,"DeviceToken":"AB12"}',
    )
    assert [one.token for one in found.dead] == ["AB12"] * 3
    assert found.others == [3, 4]


def test_a_wrong_type_elsewhere_does_not_matter() -> None:
    assert len(sort(refusal("Unregistered", StatusCode="410", metadata=7, Err=[])).dead) == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not-json"),
        (None, "not-json"),
        (b"{", "not-json"),
        (b'{"Reason":"Unregistered"} x', "not-json"),
        (b"\xff\xfe\xfd", "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"a":' * 50_000, "not-json"),
        (b"[]", "not-an-object"),
        (b'"Unregistered"', "not-an-object"),
        (b"17", "not-an-object"),
        (refusal("Unregistered", 17), "bad-token"),
        (refusal("Unregistered", None), "bad-token"),
        (refusal("Unregistered", ["AB12"]), "bad-token"),
        (refusal("Unregistered", ""), "missing-token"),
        (b'{"Reason":"Unregistered"}', "bad-token"),
    ],
)
def test_a_feedback_that_tells_nothing(value: object, reason: str) -> None:
    found = Sorter("apns").sort(tracker(APNS), [record(value, 7, topic=APNS)])
    assert [(bad.offset, error.reason) for bad, error in found.invalid] == [(7, reason)]
    assert (found.dead, found.others) == ([], [])


def test_what_is_no_unicode_becomes_the_replacement_character() -> None:
    found = sort(
        b'{"Reason":"Unregistered","DeviceToken":"a\\ud800b","metadata":{"x":NaN}}',
        b'{"Reason":"Unregistered","DeviceToken":"a\xffb","metadata":{"\xfe":"\\udc00"}}',
        b'{"Reason":"Unregistered","DeviceToken":"\\ud83d\\ude00"}',
        b'{"Reason":"Unregistered","DeviceToken":"\\u0000"}',
    )
    assert [one.token for one in found.dead] == ["a\ufffdb", "a\ufffdb", "😀", "\0"]


def test_many_shapes_are_told_apart_and_not_all_remembered() -> None:
    sorter, owner = Sorter("apns"), tracker(APNS)
    for number in range(3_000):
        value = refusal("Unregistered", f"T{number}") | {f"field{number}": 1}
        assert sorter.sort(owner, [record(value, number, topic=APNS)]).dead[0].token == f"T{number}"
    assert len(sorter._shapes) <= 1_000


def test_every_feedback_ends_in_one_place_whatever_it_contains() -> None:
    """Broken in every way that a seed finds: no exception, and each offset is accounted for exactly once."""
    source = random.Random(7)
    good = [orjson.dumps(refusal("Unregistered")), orjson.dumps(nack("BAD_REGISTRATION")), orjson.dumps({"Sent": True})]
    pieces: list[Any] = [
        b"{",
        b"}",
        b"[",
        b'"',
        b",",
        b":",
        b"null",
        b"\\ud800",
        b"\xff",
        b"\x00",
        b"1e999",
        b"NaN",
        b"Reason",
    ]
    for round_number in range(400):
        records = []
        for offset in range(10):
            value = bytearray(source.choice(good))
            for _ in range(source.randrange(4)):
                at = source.randrange(len(value) + 1)
                value[at : at + source.randrange(4)] = source.choice(pieces)
            records.append(record(bytes(value), offset, topic=APNS))
        found = Sorter(("apns", "gcm")[round_number % 2]).sort(tracker(APNS), records)
        ended = [one.record.offset for one in found.dead] + found.others + [bad.offset for bad, _ in found.invalid]
        assert sorted(ended) == list(range(10))


def test_a_dead_one_finishes_its_own_offset() -> None:
    owner = tracker(APNS, 40)
    records = [record(refusal("Unregistered"), 40, topic=APNS), record(b"{}", 41, topic=APNS)]
    owner.admit(records)
    found = Sorter("apns").sort(owner, records)
    owner.finish_many(found.others)
    assert owner.low == 40
    found.dead[0].finish()
    assert owner.low == 42
    assert owner.key == TopicPartition(APNS, 0)


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("push-game-apns-feedbacks", ("game", "apns")),
        ("push-game_gcm-feedbacks", ("game", "gcm")),
        ("push-my_game-gcm-feedbacks", ("my_game", "gcm")),
        ("push-my-game-apns-feedbacks", ("my-game", "apns")),
        ("push-a-gcm-b-apns-feedbacks", ("a-gcm-b", "apns")),
        ("push-game_apns_gcm-feedbacks", ("game_apns", "gcm")),
        ("push-game-apns-apns-feedbacks", ("game-apns", "apns")),
        ("push-drop-table-apns-feedbacks", ("drop-table", "apns")),
        ('push-a"b-apns-feedbacks', ('a"b', "apns")),
        ("push-Ümlaut-gcm-feedbacks", ("Ümlaut", "gcm")),
        ("push-a\nb-gcm-feedbacks", ("a\nb", "gcm")),
    ],
)
def test_game_and_platform_come_from_the_topic(topic: str, name: tuple[str, str]) -> None:
    assert topic_name(topic) == TopicName(*name)


@pytest.mark.parametrize(
    "topic",
    [
        "push-game-apns-held",
        "push-game-apns-feedbacks-invalid",
        "push-game_apns-single",
        "push---feedbacks",
        "feedbacks",
        # Not from game's table: no sender of game writes there.
        "push-game_apns-old-feedbacks",
        "push-game-apnsx-feedbacks",
    ],
)
def test_other_topics_are_none_of_the_listeners(topic: str) -> None:
    assert topic_name(topic) is None


def test_feedbacks_with_ever_new_fields_do_not_stay_in_memory() -> None:
    sorter = Sorter("apns")
    for number in range(20):
        fields = {f"{number}-{n}": 1 for n in range(1_000)} | {"Reason": "Unregistered", "DeviceToken": "AB12"}
        assert len(sorter.sort(tracker(APNS), [record(fields)]).dead) == 1
    assert sum(len(name or "") for shape in sorter._shapes for name in shape) < 1_000
