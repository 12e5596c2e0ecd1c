"""A Kafka message made into the body of ``messages:send``, field by field."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pytest

from pusher.providers.google.fcm.message import FIELDS, FcmParser, FcmPush, parse
from pusher.providers.google.request import NOTIFICATION
from pusher.push.fields import InvalidMessage, Json
from pusher.sim import fcm_rules
from tests.records import request

TOPIC = "push-game_gcm-single"
TOKEN = "dFx0-k_A:APA91bG7"
NOW_S = 1_800_000_000.9


def parsed(value: object) -> FcmPush:
    return parse(*request(value, topic=TOPIC), lambda: NOW_S)


def message(**fields: Json) -> dict[str, Json]:
    return dict(orjson.loads(parsed({"to": TOKEN, **fields}).body)["message"])


def android(**fields: Json) -> dict[str, Json]:
    return dict(message(**fields)["android"])


def apns(**fields: Json) -> dict[str, Json]:
    return dict(message(**fields).get("apns", {}))


def aps(**notification: Json) -> dict[str, Json]:
    return dict(apns(notification=notification)["payload"]["aps"])


def shown(**notification: Json) -> dict[str, Json]:
    return dict(android(notification=notification)["notification"])


def test_exact_bytes() -> None:
    push = parsed(
        {
            "notification": {"title": "T", "body": "B", "icon": "i"},
            "priority": "high",
            "collapse_key": "c",
            "time_to_live": 3600,
            "data": {"jobId": "7737"},
            "to": TOKEN,
        }
    )
    assert push.body == (
        b'{"message":{"data":{"jobId":"7737"},"notification":{"title":"T","body":"B"},"android":{"ttl":"3600s",'
        b'"collapse_key":"c","priority":"high","notification":{"title":"T","body":"B","icon":"i"}},'
        b'"apns":{"headers":{"apns-expiration":"1800003600","apns-priority":"10"}},"token":"dFx0-k_A:APA91bG7"}}'
    )


MUTABLE_FOR_A_MINUTE = {
    "apns": {"headers": {"apns-expiration": "1800000060"}, "payload": {"aps": {"mutable-content": 1}}},
    "android": {"ttl": "60s"},
}
SILENT = {
    "apns": {
        "headers": {"apns-push-type": "background", "apns-priority": "5"},
        "payload": {"aps": {"content-available": 1}},
    }
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"data": {}}, {}),
        ({"notification": {}}, {}),
        ({"notification": {"title": ""}}, {}),
        ({"data": {"a": "b"}}, {"data": {"a": "b"}}),
        ({"metadata": {"a": "m", "b": "m"}, "data": {"a": "d"}}, {"data": {"a": "d", "b": "m"}}),
        ({"metadata": {"n": 1}}, {"data": {"n": "1"}}),
        ({"time_to_live": 0}, {"android": {"ttl": "0s"}, "apns": {"headers": {"apns-expiration": "0"}}}),
        ({"collapse_key": "c"}, {"android": {"collapse_key": "c"}}),
        ({"priority": "HIGH"}, {"android": {"priority": "high"}, "apns": {"headers": {"apns-priority": "5"}}}),
        ({"priority": " normal\n"}, {"android": {"priority": "normal"}, "apns": {"headers": {"apns-priority": "5"}}}),
        ({"content_available": True}, SILENT),
        ({"mutable_content": True}, {"apns": {"payload": {"aps": {"mutable-content": 1}}}}),
        ({"mutableContent": True, "timeToLive": 60}, MUTABLE_FOR_A_MINUTE),
        ({"content_available": False, "dry_run": False}, {}),
        ({"direct_boot_ok": True}, {"android": {"direct_boot_ok": True}}),
        ({"directBootOk": "true"}, {"android": {"direct_boot_ok": True}}),
        ({"restricted_package_name": "com.x"}, {"android": {"restricted_package_name": "com.x"}}),
        ({"restrictedPackageName": "com.x"}, {"android": {"restricted_package_name": "com.x"}}),
        ({"webpush": {"headers": {"Urgency": "high"}}}, {"webpush": {"headers": {"Urgency": "high"}}}),
        ({"fcm_options": {"analytics_label": "l"}}, {"fcm_options": {"analytics_label": "l"}}),
        ({"notification": {"image": "i"}}, {"notification": {"image": "i"}}),
        ({"notification": {"image_url": "u"}}, {"notification": {"image": "u"}}),
        ({"notification": {"image": "i", "image_url": "u"}}, {"notification": {"image": "i"}}),
    ],
)
def test_mapping(fields: Mapping[str, Json], expected: dict[str, Json]) -> None:
    assert message(**fields) == {"token": TOKEN, **expected}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        ([], "[]"),
    ],
)
def test_data_values_become_strings(value: Json, text: str) -> None:
    assert message(data={"k": value})["data"] == {"k": text}


def test_a_number_above_64_bits_keeps_its_value() -> None:
    push = parsed(b'{"to":"t","data":{"n":123456789012345678901234567890}}')
    assert orjson.loads(push.body)["message"]["data"] == {"n": "123456789012345678901234567890"}


@pytest.mark.parametrize(("name", "value"), [("icon", "x"), ("color", "#0aF9c3"), ("tag", "x")])
def test_what_android_alone_shows(name: str, value: str) -> None:
    assert message(notification={name: value}) == {"token": TOKEN, "android": {"notification": {name: value}}}


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        # FCM reference, AndroidMessagePriority: two words
        ({"priority": "urgent"}, "priority"),
        ({"priority": "10"}, "priority"),
        ({"priority": " "}, "priority"),
        # AndroidConfig.ttl: four weeks at most
        ({"time_to_live": 2_419_201}, "time_to_live"),
        ({"timeToLive": "99999999"}, "time_to_live"),
        # AndroidNotification.color: #rrggbb
        ({"notification": {"color": "red"}}, "notification.color"),
        ({"notification": {"color": "#fff"}}, "notification.color"),
        ({"notification": {"color": "#ff00ff00"}}, "notification.color"),
        ({"notification": {"color": "#ff00gg"}}, "notification.color"),
    ],
)
def test_a_value_that_google_would_refuse_is_left_out(fields: dict[str, Json], left_out: str) -> None:
    push = parsed({"to": TOKEN, "data": {"k": "v"}, **fields})
    assert push.left_out == (left_out,)
    assert orjson.loads(push.body) == {"message": {"token": TOKEN, "data": {"k": "v"}}}
    assert fcm_rules.read(push.body)[1] is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # legacy XMPP protocol reference, notification payload for iOS; phonegap-plugin-push#2715: no sound through v1
        ({"sound": "ping.aiff"}, {"sound": "ping.aiff"}),
        ({"badge": "3"}, {"badge": 3}),
        # evollu/react-native-fcm#570: 0 clears the badge
        ({"badge": 0}, {"badge": 0}),
        ({"click_action": "NEW"}, {"category": "NEW"}),
        ({"clickAction": "NEW"}, {"category": "NEW"}),
        ({"subtitle": "S", "title": "T"}, {"alert": {"title": "T", "subtitle": "S"}}),
        ({"title_loc_key": "K"}, {"alert": {"title-loc-key": "K"}}),
        (
            {
                "body": "B",
                "body_loc_key": "K",
                "body_loc_args": '["a","b"]',
                "titleLocArgs": ["c"],
                "title_loc_key": "L",
            },
            {
                "alert": {
                    "body": "B",
                    "title-loc-key": "L",
                    "title-loc-args": ["c"],
                    "loc-key": "K",
                    "loc-args": ["a", "b"],
                }
            },
        ),
    ],
)
def test_what_apple_shows(given: dict[str, Json], expected: dict[str, Json]) -> None:
    assert aps(**given) == expected


def test_apples_alert_is_googles_where_it_has_nothing_of_its_own() -> None:
    assert apns(notification={"title": "T", "body": "B"}) == {}


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"notification": {"title": "T"}, "priority": "high"}, {"apns-priority": "10"}),
        ({"notification": {"title": "T"}, "priority": "normal"}, {"apns-priority": "5"}),
        ({"notification": {"title": "T"}, "priority": "urgent"}, {}),
        # FCM reference, Message.data: of data alone no other priority is allowed
        ({"data": {"k": "v"}, "priority": "high"}, {"apns-priority": "5"}),
        # Apple, "Pushing background updates to your app"; node-apn#241
        ({"content_available": True, "priority": "high"}, {"apns-push-type": "background", "apns-priority": "5"}),
        ({"content_available": True, "notification": {"badge": 1}, "priority": "high"}, {"apns-priority": "10"}),
        (
            {"content_available": True, "notification": {"tag": "t"}},
            {"apns-push-type": "background", "apns-priority": "5"},
        ),
        ({"time_to_live": 60}, {"apns-expiration": "1800000060"}),
    ],
)
def test_headers_for_apple(fields: dict[str, Json], headers: dict[str, str]) -> None:
    assert apns(**fields).get("headers", {}) == headers


def test_a_block_of_its_own_for_apple_is_all_that_apple_is_told() -> None:
    """But for what is for Apple alone."""
    block: dict[str, Json] = {"payload": {"aps": {"sound": "mine"}}}
    notification: dict[str, Json] = {"title": "T", "sound": "x", "badge": 1, "click_action": "c", "body_loc_key": "k"}
    assert apns(apns=block, notification=notification, priority="high", time_to_live=9) == block
    assert apns(apns=block, notification={"subtitle": "S"}, mutable_content=True) == {
        "payload": {"aps": {"mutable-content": 1, "alert": {"subtitle": "S"}, "sound": "mine"}}
    }


@pytest.mark.parametrize("name", ["title", "body"])
def test_what_every_platform_shows(name: str) -> None:
    given = {name: "x"}
    assert message(notification=given) == {"token": TOKEN, "notification": given, "android": {"notification": given}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("one", ["one"]),
        (["a", "b"], ["a", "b"]),
        (["a", 5, 1.5], ["a", "5", "1.5"]),
        ('["a","b"]', ["a", "b"]),
        (' [ "a" , 5 ] ', ["a", "5"]),
        ("[not json", ["[not json"]),
        ("[]", []),
    ],
)
@pytest.mark.parametrize("name", ["body_loc_args", "title_loc_args"])
def test_arguments_of_localized_texts(name: str, given: Json, expected: list[str]) -> None:
    assert shown(**{name: given}) == {name: expected}


@pytest.mark.parametrize(
    ("badge", "count"), [("3", 3), (3, 3), (0, 0), ("0", 0), (4.0, 4), (2**31 - 1, 2**31 - 1), ("007", 7)]
)
def test_a_badge_is_the_number_of_notifications(badge: Json, count: int) -> None:
    assert shown(badge=badge) == {"notification_count": count}


@pytest.mark.parametrize("badge", ["+1", "many", -1, 1.5, 2**31, "²", "9" * 5000])
def test_a_badge_that_is_no_number_is_left_out_and_reported(badge: Json) -> None:
    push = parsed({"to": TOKEN, "notification": {"title": "T", "badge": badge}})
    assert push.left_out == ("notification.badge",)
    assert "notification_count" not in orjson.loads(push.body)["message"]["android"]["notification"]


def test_what_v1_has_no_place_for_is_reported() -> None:
    push = parsed({"to": TOKEN, "message_type": "m", "delivery_receipt_requested": True})
    assert push.left_out == ("message_type", "delivery_receipt_requested")
    assert push.body == b'{"message":{"token":"dFx0-k_A:APA91bG7"}}'
    assert parsed({"to": TOKEN, "delivery_receipt_requested": False}).left_out == ()


def test_every_field_of_xmpp_arrives_or_is_reported() -> None:
    """A field added to the table without a mapping would be lost in silence."""
    samples: dict[str, Json] = {
        "to": TOKEN,
        "condition": "",
        "message_id": "the-id",
        "message_type": "v-message_type",
        "collapse_key": "v-collapse_key",
        "priority": "high",
        "content_available": True,
        "mutable_content": True,
        "time_to_live": 4711,
        "delivery_receipt_requested": True,
        "dry_run": True,
        "data": {"v-data": "x"},
        "metadata": {"v-metadata": "x"},
        "push_expiry": 9_000_000_000_000,
        "notification": {name: f"v-{name}" for name in NOTIFICATION}
        | {"badge": 4712, "image_url": "", "color": "#a1b2c3"},
        "direct_boot_ok": True,
        "restricted_package_name": "v-restricted_package_name",
    }
    assert samples.keys() == FIELDS.keys() - {"android", "apns", "webpush", "fcm_options"}
    push = parsed(samples)
    text = push.body.decode()
    marks = [f"v-{name}" for name in [*samples, *NOTIFICATION] if f"v-{name}" in str(samples)]
    assert [mark for mark in [*marks, TOKEN, "high", "#a1b2c3", "4711", "4712"] if mark not in text] == [
        "v-message_type"
    ]
    assert '"validate_only":true' in text
    assert '"content-available":1,"mutable-content":1' in text
    assert '"direct_boot_ok":true' in text
    assert push.left_out == ("message_type", "delivery_receipt_requested")
    assert (push.id, push.expires_ms, push.ttl_s) == ("the-id", 9_000_000_000_000, 4711)


@pytest.mark.parametrize(
    ("fields", "ttl_s"),
    [
        ({}, None),
        ({"time_to_live": 0}, 0),
        ({"time_to_live": 60}, 60),
        ({"android": {"ttl": "3.5s"}}, 3.5),
        ({"time_to_live": 60, "android": {"ttl": "10s"}}, 10),
        ({"android": {"ttl": "soon"}}, None),
        ({"android": {"ttl": 7}}, None),
    ],
)
def test_retries_end_with_the_time_to_live_that_is_sent(fields: dict[str, object], ttl_s: float | None) -> None:
    assert parsed({"to": "t", **fields}).ttl_s == ttl_s


def test_dry_run() -> None:
    assert parsed({"to": "t", "dry_run": True}).body == b'{"validate_only":true,"message":{"token":"t"}}'


@pytest.mark.parametrize(
    ("to", "target"),
    [(TOKEN, {"token": TOKEN}), ("/topics/news", {"topic": "news"}), ("/topics/a%20b", {"topic": "a%20b"})],
)
def test_targets(to: str, target: dict[str, str]) -> None:
    push = parsed({"to": to})
    assert orjson.loads(push.body)["message"] == target
    assert push.token == to


def test_a_condition_takes_the_place_of_a_token() -> None:
    condition = "'a' in topics && !('b' in topics)"
    push = parsed({"condition": condition})
    assert orjson.loads(push.body)["message"] == {"condition": condition}
    assert push.token == condition


def test_a_condition_beside_a_token_is_left_out() -> None:
    push = parsed({"to": "t", "condition": "c"})
    assert orjson.loads(push.body)["message"] == {"token": "t"}
    assert push.left_out == ("condition",)


def test_a_subtitle_is_for_apple_and_a_channel_for_android() -> None:
    sent = message(notification={"title": "T", "subtitle": "S", "body": "B", "android_channel_id": "news"})
    assert sent["apns"] == {"payload": {"aps": {"alert": {"title": "T", "subtitle": "S", "body": "B"}}}}
    assert sent["android"]["notification"] == {"title": "T", "body": "B", "channel_id": "news"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "missing-token"),
        ({"condition": ""}, "missing-token"),
        ({"condition": 5}, "missing-token"),
        ({"to": "a b"}, "bad-token"),
        ({"to": "t", "android": "x"}, "bad-android"),
        ({"to": "t", "apns": []}, "bad-apns"),
        ({"to": "t", "webpush": 1}, "bad-webpush"),
        ({"to": "t", "fcm_options": True}, "bad-fcm-options"),
        ({"to": "t", "data": [1]}, "bad-data"),
        ({"to": "t", "notification": "x"}, "bad-notification"),
        ({"to": "t", "data": {"k": "x" * 70_000}}, "payload-too-large"),
    ],
)
def test_what_can_never_be_sent(fields: Mapping[str, Json], reason: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parsed(fields)
    assert caught.value.reason == reason


def test_given_members_win_over_mapped_ones() -> None:
    assert android(
        priority="high",
        collapse_key="c",
        notification={"title": "T", "sound": "s"},
        android={"priority": "NORMAL", "direct_boot_ok": True, "notification": {"sound": "other", "channel_id": "ch"}},
    ) == {
        "collapse_key": "c",
        "priority": "NORMAL",
        "direct_boot_ok": True,
        "notification": {"title": "T", "sound": "other", "channel_id": "ch"},
    }


def test_given_apns_is_kept_beside_content_available() -> None:
    assert message(content_available=True, apns={"headers": {"apns-priority": "5"}, "payload": {"aps": {"badge": 1}}})[
        "apns"
    ] == {"headers": {"apns-priority": "5"}, "payload": {"aps": {"content-available": 1, "badge": 1}}}


def test_names_ignore_case_but_not_inside_objects_that_are_taken_over() -> None:
    push = parsed({"TO": "t", "Android": {"directBootOk": True}, "other": 1})
    assert orjson.loads(push.body)["message"] == {"android": {"directBootOk": True}, "token": "t"}


def test_an_id_is_derived_where_none_is_given() -> None:
    assert parsed({"to": "t"}).id == parsed({"to": "t"}).id != ""


def test_the_parser_warns_once_of_what_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    parser = FcmParser("warned-app")
    for offset in range(3):
        value = {"to": "secret-token", "message_type": "m"}
        push = parser(*request(value, offset, topic=TOPIC))
        assert push.left_out == ("message_type",)
    assert len(caplog.records) == 1
    assert "secret-token" not in caplog.text
