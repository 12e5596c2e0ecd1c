import orjson
import pytest

from pusher.providers.google.xmpp.message import GcmPush, parse
from pusher.push.fields import InvalidMessage
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
    header = ("pusher-origin", b"push-game_gcm-single/0/41/1700000000000")
    assert parsed({"to": "t"}, topic="push-game_gcm-replay", offset=9, headers=(header,)).id == first.id


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
        ({"to": "a b"}, "bad-token", "to has characters"),
        ({"to": "a\n"}, "bad-token", "to has characters"),
        ({"to": "x" * 4097}, "bad-token", "too many"),
        ({"to": "t", "message_id": 5}, "bad-message-id", "message_id is not a string"),
        ({"to": "t", "message_id": "a\tb"}, "bad-message-id", "control characters"),
        ({"to": "t", "message_id": "x" * 1025}, "bad-message-id", "too long"),
        ({"to": "t", "message_type": {}}, "bad-message-type", "message_type is not a string"),
        ({"to": "t", "collapse_key": 1}, "bad-collapse-key", "collapse_key is not a string"),
        ({"to": "t", "priority": 10}, "bad-priority", "priority is not a string"),
        ({"to": "t", "content_available": 1}, "bad-content-available", "content_available is not a boolean"),
        ({"to": "t", "dry_run": "true"}, "bad-dry-run", "dry_run is not a boolean"),
        ({"to": "t", "delivery_receipt_requested": 0}, "bad-delivery-receipt-requested", "is not a boolean"),
        ({"to": "t", "time_to_live": -1}, "bad-time-to-live", "time_to_live is not a number of seconds"),
        ({"to": "t", "time_to_live": 1.0}, "bad-time-to-live", "time_to_live is not"),
        ({"to": "t", "time_to_live": True}, "bad-time-to-live", "time_to_live is not"),
        ({"to": "t", "time_to_live": "60"}, "bad-time-to-live", "time_to_live is not"),
        ({"to": "t", "data": []}, "bad-data", "data is not an object"),
        ({"to": "t", "data": "x"}, "bad-data", "data is not an object"),
        ({"to": "t", "notification": "x"}, "bad-notification", "notification is not an object"),
        ({"to": "t", "notification": {"title": 1}}, "bad-title", "notification.title is not a string"),
        ({"to": "t", "notification": {"badge": True}}, "bad-badge", "notification.badge is not a string or a number"),
        ({"to": "t", "notification": {"body_loc_args": [{}]}}, "bad-body-loc-args", "a string or an array of strings"),
        ({"to": "t", "metadata": []}, "bad-metadata", "metadata is not an object"),
        ({"to": "t", "push_expiry": "1"}, "bad-expiry", "push_expiry is not an integer"),
        ({"to": "t", "data": {"x": "y" * 65_536}}, "payload-too-large", "the message has"),
    ],
)
def test_refused(message: object, reason: str, detail: str) -> None:
    error = refusal(message)
    assert error.reason == reason
    assert detail in error.detail
