import orjson
import pytest

from pusher.providers.google.xmpp.message import GcmParser, GcmPush, parse
from pusher.push.fields import InvalidMessage
from pusher.push.origin import origin_headers
from tests.records import request

TOKEN = "dFx0-k_A:APA91bG7"


def parsed(value: object, offset: int = 41, topic: str = "push-game_gcm-single", **changes: object) -> GcmPush:
    return parse(*request(value, offset, topic, **changes))


def refusal(value: object) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        parsed(value)
    return caught.value


def test_body_has_google_order_whatever_the_order_given() -> None:
    push = parsed(
        {
            "notification": {"badge": "1", "body": "B", "title": "T", "tag": "t", "color": "#fff", "icon": "i"},
            "data": {"jobId": "7737"},
            "dry_run": True,
            "delivery_receipt_requested": True,
            "time_to_live": 3600,
            "content_available": True,
            "priority": "high",
            "collapse_key": "c",
            "message_type": "m",
            "message_id": "ID",
            "to": TOKEN,
        }
    )
    assert push.body == (
        b'{"to":"dFx0-k_A:APA91bG7","message_id":"ID","message_type":"m","collapse_key":"c","priority":"high",'
        b'"content_available":true,"time_to_live":3600,"delivery_receipt_requested":true,"dry_run":true,'
        b'"data":{"jobId":"7737"},"notification":{"title":"T","body":"B","icon":"i","tag":"t","color":"#fff","badge":"1"}}'
    )
    assert (push.id, push.token, push.metadata, push.expires_ms) == ("ID", TOKEN, None, 0)


def test_names_ignore_case_and_unknown_fields_are_dropped() -> None:
    push = parsed({"TO": TOKEN, "Message_ID": "x", "Notification": {"TITLE": "T", "other": 1}, "other": {}})
    assert push.body == b'{"to":"dFx0-k_A:APA91bG7","message_id":"x","notification":{"title":"T"}}'


def test_of_several_spellings_the_last_wins() -> None:
    assert parsed(b'{"to":"a","To":"b","TO":"c"}').token == "c"


def test_of_several_spellings_the_last_holds_that_is_not_null_and_metadata_is_merged() -> None:
    push = parsed(b'{"to":"a","To":null,"Metadata":{"a":1,"b":1},"metadata":{"b":2},"METADATA":null}')
    assert (push.token, push.metadata) == ("a", {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"timeToLive": 60, "collapseKey": "c", "mutableContent": True, "dryRun": True}, None),
        ({"TIME_TO_LIVE": 60, "COLLAPSE_KEY": "c", "mutablecontent": True, "validate_only": True}, None),
        ({"time_to_live": 60, "collapse_key": "c", "mutable_content": True, "validateOnly": True}, None),
        ({"notification": {"titleLocKey": "k"}}, {"notification": {"title_loc_key": "k"}}),
        (
            {"notification": {"androidChannelId": "news", "subtitle": "s"}},
            {"notification": {"subtitle": "s", "android_channel_id": "news"}},
        ),
    ],
)
def test_spellings_without_underscores(given: dict[str, object], sent: dict[str, object] | None) -> None:
    push = parsed({"to": "t", "messageId": "i", **given})
    wanted = sent or {"collapse_key": "c", "mutable_content": True, "time_to_live": 60, "dry_run": True}
    assert orjson.loads(push.body) == {"to": "t", "message_id": "i", **wanted}
    assert push.left_out == []


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"message_id": 5}, {"message_id": "5"}),
        ({"collapse_key": 1}, {"collapse_key": "1"}),
        ({"priority": 10}, {"priority": "high"}),
        ({"priority": 5.0}, {"priority": "normal"}),
        ({"content_available": 1}, {"content_available": True}),
        ({"dry_run": "True"}, {"dry_run": True}),
        ({"dry_run": "false"}, {}),
        ({"delivery_receipt_requested": 0}, {}),
        ({"time_to_live": "60"}, {"time_to_live": 60}),
        ({"time_to_live": "60s"}, {"time_to_live": 60}),
        ({"time_to_live": 60.0}, {"time_to_live": 60}),
        ({"notification": {"title": 1}}, {"notification": {"title": "1"}}),
        ({"notification": {"body_loc_args": 7}}, {"notification": {"body_loc_args": "7"}}),
    ],
)
def test_a_wrong_kind_whose_meaning_is_plain_is_taken(given: dict[str, object], sent: dict[str, object]) -> None:
    push = parsed({"to": "t", "message_id": "i", **given})
    assert orjson.loads(push.body) == {"to": "t", "message_id": "i", **sent}
    assert push.left_out == []


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"message_type": {}}, "message_type"),
        ({"priority": 7}, "priority"),
        ({"priority": []}, "priority"),
        ({"content_available": "perhaps"}, "content_available"),
        ({"dry_run": []}, "dry_run"),
        ({"time_to_live": -1}, "time_to_live"),
        ({"time_to_live": True}, "time_to_live"),
        ({"time_to_live": 1.5}, "time_to_live"),
        ({"time_to_live": "soon"}, "time_to_live"),
        ({"condition": "'a' in topics"}, "condition"),
        ({"condition": 7}, "condition"),
        ({"message_id": {}}, "message_id"),
        ({"notification": {"badge": True}}, "notification.badge"),
        ({"notification": {"title": []}}, "notification.title"),
        ({"notification": {"body_loc_args": [{}]}}, "notification.body_loc_args"),
        ({"notification": {"image": "u"}}, "notification.image"),
        ({"notification": {"imageUrl": "u"}}, "notification.image_url"),
        ({"notification": {"other": "u"}}, "notification.other"),
        ({"android": {}}, "android"),
        ({"x" * 300: 1}, "x" * 100),
    ],
)
def test_what_has_no_place_is_left_out_and_named(given: dict[str, object], left_out: str) -> None:
    push = parsed({"to": "t", **given})
    assert orjson.loads(push.body) == {"to": "t", "message_id": push.id}
    assert push.left_out == [left_out]


def test_a_condition_takes_the_place_of_a_token() -> None:
    push = parsed({"condition": "'a' in topics", "message_id": "i"})
    assert push.body == b'{"condition":"\'a\' in topics","message_id":"i"}'
    assert push.token == "'a' in topics"


@pytest.mark.parametrize("key", ["from", "message_type", "collapse_key", "google", "google.c.a", "gcm", "gcm.n.e"])
def test_metadata_that_google_would_refuse_in_data_stays_out_of_it(key: str) -> None:
    push = parsed({"to": "t", "metadata": {key: "crm", "jobId": "7", "From": "kept"}})
    assert orjson.loads(push.body)["data"] == {"jobId": "7", "From": "kept"}
    assert push.metadata == {key: "crm", "jobId": "7", "From": "kept"}
    own = parsed({"to": "t", "data": {key: "the producer's own"}})
    assert orjson.loads(own.body)["data"] == {key: "the producer's own"}


def test_metadata_of_reserved_keys_alone_makes_no_data() -> None:
    assert "data" not in orjson.loads(parsed({"to": "t", "metadata": {"from": "crm"}}).body)


def test_the_parser_names_a_field_once_a_minute_and_few_in_all(caplog: pytest.LogCaptureFixture) -> None:
    read = GcmParser("talkative")
    for number in range(50):
        read(*request({"to": "t", "subtitel": 1}))
        read(*request({"to": "t", f"unknown{number}": 1} | {f"{number}.{n}": 1 for n in range(50)}))
    assert caplog.text.count("field=subtitel") + caplog.text.count("'field': 'subtitel'") <= 1
    assert len(caplog.records) == 5


def test_keys_in_data_keep_their_case() -> None:
    assert orjson.loads(parsed({"to": TOKEN, "data": {"To": 1, "to": 2}}).body)["data"] == {"To": 1, "to": 2}


@pytest.mark.parametrize("empty", ["", None, False, {}])
def test_empty_values_are_left_out(empty: object) -> None:
    fields = {
        "": ("message_type", "collapse_key", "priority"),
        None: ("time_to_live", "data", "notification", "metadata", "push_expiry", "priority", "dry_run", "message_id"),
        False: ("content_available", "delivery_receipt_requested", "dry_run"),
    }
    names = ("data", "notification") if empty == {} else fields[empty]  # type: ignore[index]
    push = parsed({"to": "t", "message_id": "i"} | dict.fromkeys(names, empty) | {"message_id": "i"})
    assert push.body == b'{"to":"t","message_id":"i"}'


def test_zero_is_not_empty() -> None:
    push = parsed({"to": "t", "message_id": "i", "time_to_live": 0, "notification": {"badge": 0}})
    assert push.body == b'{"to":"t","message_id":"i","time_to_live":0,"notification":{"badge":0}}'


def test_arrays_and_numbers_are_taken() -> None:
    given = {"body_loc_args": ["a", "2"], "title_loc_args": '["a"]', "badge": 7}
    assert orjson.loads(parsed({"to": "t", "notification": given}).body)["notification"] == given


def test_an_image_is_for_fcm_alone() -> None:
    push = parsed({"to": "t", "message_id": "i", "notification": {"image": "u", "image_url": "u"}})
    assert push.body == b'{"to":"t","message_id":"i"}'
    push = parsed({"to": "t", "message_id": "i", "notification": {"image": "u", "title": "T"}})
    assert push.body == b'{"to":"t","message_id":"i","notification":{"title":"T"}}'


def test_metadata_goes_into_data_and_does_not_replace_values() -> None:
    push = parsed({"to": "t", "data": {"a": 1, "n": None}, "metadata": {"a": 2, "n": 3, "deep": {"x": [1]}}})
    assert orjson.loads(push.body)["data"] == {"a": 1, "n": 3, "deep": {"x": [1]}}
    assert push.metadata == {"a": 2, "n": 3, "deep": {"x": [1]}}
    assert b"metadata" not in push.body


def test_metadata_makes_data_where_there_is_none() -> None:
    assert orjson.loads(parsed({"to": "t", "metadata": {"jobId": "1"}}).body)["data"] == {"jobId": "1"}


def test_metadata_without_a_member_adds_no_data() -> None:
    push = parsed({"to": "t", "message_id": "i", "metadata": {}})
    assert push.body == b'{"to":"t","message_id":"i"}'
    assert push.metadata == {}


def test_expiry_stays_here() -> None:
    push = parsed({"to": "t", "message_id": "i", "push_expiry": 1_700_000_000_001})
    assert push.expires_ms == 1_700_000_000_001
    assert push.body == b'{"to":"t","message_id":"i"}'


def test_numbers_keep_their_value() -> None:
    data = b'"data":{"a":1234567890123456789,"b":18446744073709551615,"c":0.1,"d":36893488147419103232}}'
    assert parsed(b'{"to":"t",' + data).body.endswith(data)


def test_an_empty_message_id_is_derived_from_the_record() -> None:
    first, again = parsed({"to": "t"}), parsed({"to": "t", "message_id": ""})
    other = parsed({"to": "t"}, offset=42)
    assert first.id == again.id != other.id
    assert orjson.loads(first.body)["message_id"] == first.id


def test_the_id_of_a_replayed_record_is_that_of_the_first() -> None:
    first = parsed({"to": "t"})
    headers = origin_headers("push-game_gcm-single/0/41/1700000000000", b'{"to":"t"}')
    assert parsed({"to": "t"}, topic="push-game_gcm-replay", offset=9, headers=headers).id == first.id


@pytest.mark.parametrize(
    ("message", "reason", "detail"),
    [
        (None, "not-json", "the record has no value"),
        (b"{", "not-json", "not JSON"),
        ([], "not-an-object", "the message is a JSON list, not an object"),
        ({}, "missing-token", "to is missing"),
        ({"to": None}, "missing-token", "to is missing"),
        ({"to": ""}, "missing-token", "to is missing"),
        ({"to": 5}, "bad-to", "to is not a string"),
        ({"to": "a b"}, "bad-token", "to has too many characters"),
        ({"to": "a\n"}, "bad-token", "to has too many characters"),
        ({"to": "x" * 4097}, "bad-token", "too many"),
        ({"to": "t", "data": []}, "bad-data", "data is not an object"),
        ({"to": "t", "data": "x"}, "bad-data", "data is not an object"),
        ({"to": "t", "notification": "x"}, "bad-notification", "notification is not an object"),
        ({"to": "t", "metadata": []}, "bad-metadata", "metadata is not an object"),
        ({"to": "t", "push_expiry": "1"}, "bad-expiry", "push_expiry is not an integer"),
        ({"to": "t", "data": {"x": "y" * 65_536}}, "payload-too-large", "the message has"),
    ],
)
def test_refused(message: object, reason: str, detail: str) -> None:
    error = refusal(message)
    assert error.reason == reason
    assert detail in error.detail
