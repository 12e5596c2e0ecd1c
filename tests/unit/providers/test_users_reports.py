"""What people who run senders have reported, and what providers' pages say: the source stands beside each case.

A reference such as pushy#408 is an issue of the project of that name on GitHub.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from pusher import config
from pusher.errors import CredentialError
from pusher.providers.apns.credentials import ClientCertificate, ProviderToken, refuse_dates
from pusher.providers.apns.message import ApnsParser
from pusher.providers.apns.reasons import read_answer as apples
from pusher.providers.apns.settings import TOPIC
from pusher.providers.google.fcm.errors import read_answer as googles
from pusher.providers.google.fcm.message import parse as parse_fcm
from pusher.providers.google.xmpp.account import account
from pusher.providers.google.xmpp.message import parse as parse_xmpp
from pusher.providers.http2.transport import ConnectFailed, Origin, connect
from pusher.push.outcome import Kind
from pusher.sim.apns import ApnsSimulator
from pusher.sim.certificate import make_ca, make_client_certificate, make_p8
from tests.records import request
from tests.unit.providers.apns.test_apns_service import opened

KEY = make_p8().decode()
BODY = "".join(line for line in KEY.splitlines() if "-----" not in line)
BEGIN, END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"


# --- keys as text -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        # node-apn#650: the body in one line
        pytest.param(f"{BEGIN}\n{BODY}\n{END}", id="one line"),
        # microsoft/app-store-vsts-extension#383: line ends written out around a body of one line
        pytest.param(f"{BEGIN}\\n{BODY}\\n{END}", id="written out around one line"),
        # node-apn#650: a form field has made blanks of the line ends
        pytest.param(KEY.replace("\n", " "), id="blanks for line ends"),
        # xmtp/example-notification-server-go#36: quotes that a shell would have taken away
        pytest.param('"' + KEY.strip().replace("\n", "\\n") + '"', id="in quotes"),
        # PyAPNs2#144, justinmoon/pika#236: base64 of the file
        pytest.param(base64.b64encode(KEY.encode()).decode(), id="base64"),
        # autopush-rs#241: line ends written out twice, by a shell and by JSON
        pytest.param(KEY.replace("\n", "\\n"), id="written out"),
    ],
)
def test_a_key_as_it_comes_out_of_a_variable(text: str) -> None:
    assert ProviderToken.load(text, "K", "T").same_as(ProviderToken.load(KEY, "K", "T"))


# --- what is around or in a setting -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "topic"),
    [
        # kubernetes#23404, external-dns#5400, ory/hydra#1545: a line end at the end of a secret
        ("com.game\n", "com.game"),
        ("com.game\r\n", "com.game"),
        (" com.game\t", "com.game"),
        # node-apn#479: the brackets of a manual; refused in one line
        ("<com.game>", None),
        ("com.game\nX-Header: 1", None),
        ("com game", None),
    ],
)
def test_a_topic_as_it_is_pasted(text: str, topic: str | None) -> None:
    def read() -> str:
        return config.parse("", {"PUSHER_APNS_APPS": "game", "PUSHER_APNS_CERTS_GAME_TOPIC": text}).of(TOPIC, "game")

    if topic is not None:
        assert read() == topic
        return
    with pytest.raises(config.ConfigError) as refused:
        read()
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("sender_id", "good"),
    [
        # kubernetes#23404: what echo leaves at the end of a secret
        ("123456789012\n", True),
        # RFC 7622, 3.3: no local part has white space, quotes, or a character of the address
        ("1234 56789012", False),
        ("123456789012@gcm.googleapis.com", False),
        ("'123456789012'", False),
        ("1234\u00ad56789012", False),
    ],
)
def test_a_sender_id_as_it_is_pasted(sender_id: str, good: bool) -> None:
    if good:
        assert account("game", sender_id, "key").sender_id == "123456789012"
        return
    with pytest.raises(CredentialError, match="senderID") as refused:
        account("game", sender_id, "key")
    assert len(str(refused.value).splitlines()) == 1


# --- push types -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "topic", "push_type"),
    [
        # edamov/pushok#163, parse-server-push-adapter#348: the topic follows from the type
        ({"push_type": "liveactivity"}, "com.game.push-type.liveactivity", "liveactivity"),
        # APNSwift#252: controls of iOS 18; APNSwift#220: widgets of iOS 26
        ({"push_type": "controls"}, "com.game.push-type.controls", "controls"),
        ({"topic": "com.game.push-type.widgets"}, "com.game.push-type.widgets", "widgets"),
        # framna-nl-backend/ApnsPHP#90
        ({"push_type": "location"}, "com.game.location-query", "location"),
        # PyAPNs2#87, apnotic#87: InvalidPushType from the day of iOS 13 on
        ({"topic": "com.game.voip"}, "com.game.voip", "voip"),
        # apns2#148: background is for what shows nothing
        ({"Payload": {"aps": {"content-available": 1}}}, "com.game", "background"),
        ({"Payload": {"aps": {"content-available": 1, "sound": "s"}}}, "com.game", "alert"),
        # java-apns#88: a command for managed devices
        ({"Payload": {"mdm": "magic"}, "topic": "com.apple.mgmt.External.x"}, "com.apple.mgmt.External.x", "mdm"),
    ],
)
def test_the_push_type_that_apple_wants(fields: dict[str, Any], topic: str, push_type: str) -> None:
    message = {"DeviceToken": "ab", "Payload": {"aps": {"alert": "x"}}} | fields
    push = ApnsParser("com.game")(*request(message, 0, "push-game_apns-single"))
    assert (push.kind.topic.decode(), push.kind.push_type.decode()) == (topic, push_type)


# --- one provider token -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "topics",
    [
        # PyAPNs2#76: a token a topic, on one connection
        ["com.game", "com.other", "com.third", "com.game.voip"],
        # apns2#87 of AndrewBarba: many requests at the same time
        ["com.game"] * 40,
    ],
)
def test_one_token_serves_all_topics_and_requests(tmp_path: Path, topics: list[str]) -> None:
    with opened(tmp_path) as bed:
        for topic in topics:
            bed.send(5, topic=topic)
        assert bed.lane.totals.outcomes[Kind.DELIVERED] == 5 * len(topics)
        assert bed.apple.counts()["provider_tokens"] == 1


@pytest.mark.parametrize("minute", range(0, 60, 5))
def test_a_token_is_used_for_twenty_minutes_whenever_it_is_taken_into_use(minute: int) -> None:
    """apns2#44 of AndrewBarba: a timer that ran from the start renewed a token of ten minutes."""
    times = [0.0]
    token = ProviderToken.load(KEY, "K", "T", clock=lambda: times[0], elapsed=lambda: times[0])
    times[0] = minute * 60.0
    for _ in range(3):
        since, shown = times[0], token.current()
        while token.current() == shown:
            assert token.age_s < 50 * 60
            times[0] += 60
        assert times[0] - since >= 20 * 60


# --- refusals that say nothing of the token ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "body", "own_topic", "deletes"),
    [
        # node-apn#479, #517, django-push-notifications#424: the sender's set-up
        (400, b'{"reason":"TopicDisallowed"}', True, False),
        # rails/action_push_native#4: deleting does not help where the topic is not the app's
        (400, b'{"reason":"DeviceTokenNotForTopic"}', False, False),
        (400, b'{"reason":"DeviceTokenNotForTopic"}', True, True),
        # twitbruv#125: a status alone deletes nothing
        (410, b"", True, False),
        (410, b"<html>Gone</html>", True, False),
        (404, b'{"reason":"BadPath"}', True, False),
        (410, b'{"reason":"Unregistered","timestamp":1700000000000}', False, True),
    ],
)
def test_apples_refusals_and_the_token(status: int, body: bytes, own_topic: bool, deletes: bool) -> None:
    assert apples(status, body, own_topic=own_topic).outcome.delete_token is deletes


@pytest.mark.parametrize(
    ("status", "code", "deletes"),
    [
        # FCM reference, ErrorCode; firebase-admin-java#1064
        (404, "UNREGISTERED", True),
        (404, "NOT_FOUND", False),
        (403, "SENDER_ID_MISMATCH", False),
        (400, "INVALID_ARGUMENT", False),
        (401, "THIRD_PARTY_AUTH_ERROR", False),
    ],
)
def test_googles_refusals_and_the_token(status: int, code: str, deletes: bool) -> None:
    detail = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}
    body = json.dumps({"error": {"code": status, "message": "words", "status": "X", "details": [detail]}}).encode()
    assert googles(status, body).outcome.delete_token is deletes


# --- refusals count for what was refused ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        # Apple, "Handling notification responses from APNs": the reasons with status 403
        ({"topic": "com.other"}, "InvalidProviderToken"),
        ({"topic": "com.other"}, "UnrelatedKeyIdInToken"),
        # forum 708937: location pushes want a token, whatever the other pushes of the app are sent with
        ({"push_type": "location"}, "Forbidden"),
        ({"push_type": "pushtotalk"}, "BadCertificate"),
    ],
)
def test_what_a_message_chose_holds_nobody(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    with opened(tmp_path, f"prefix=bad:403 {reason}") as bed:
        bed.send(25, DeviceToken="bad", **fields)
        assert bed.service.health().ready
        bed.send(5)
        assert bed.lane.totals.outcomes[Kind.DELIVERED] == 5


# --- outages ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fault",
    [
        # pushy#408, pushy#458, node-apn#463: minutes of it
        "500 InternalServerError",
        # Apple, "Handling notification responses from APNs"
        "503 Shutdown",
        # sygnal#304: what a proxy says for Apple
        "502,body=<html>Bad Gateway</html>",
        "503,body=<html>Service Unavailable</html>",
        # pushy#816: no answer to some notifications
        "reset INTERNAL_ERROR",
        "cut",
    ],
)
def test_an_outage_ends_no_push(tmp_path: Path, fault: str) -> None:
    action, comma, options = fault.partition(",")
    times = 1 if action == "cut" else 12  # each connection that is lost makes the next one wait
    with opened(tmp_path, f"{action},times={times}{comma}{options}") as bed:
        assert bed.send(10) == {Kind.DELIVERED: 10}


# --- fields of Google's -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "key",
    [
        # node-gcm#254, fcm-push#34, firebase-php#574
        "from",
        # PyFCM#103, firebase-admin-node#463, the-blue-alliance-android#917
        "message_type",
        # novu#12659, legacy HTTP reference: words of its table
        "collapse_key",
        # FCM reference, Message.data
        "google.sent_time",
        "gcm.notification.title",
    ],
)
@pytest.mark.parametrize("parse", [parse_fcm, parse_xmpp])
def test_metadata_never_spoils_a_message(parse: Callable[[bytes | None, str], Any], key: str) -> None:
    message = {"to": "token", "data": {"k": "v"}, "metadata": {key: "x", "jobId": "7"}}
    push = parse(*request(message, 0, "push-game_gcm-single"))
    body = orjson.loads(push.body)
    assert (body.get("message") or body)["data"] == {"k": "v", "jobId": "7"}
    assert push.metadata == {key: "x", "jobId": "7"}


@pytest.mark.parametrize(
    ("fields", "path", "value"),
    [
        # django-push-notifications#582
        ({"mutable_content": True}, ("apns", "payload", "aps", "mutable-content"), 1),
        # gorush#805: content_available was lost with v1
        ({"content_available": True}, ("apns", "payload", "aps", "content-available"), 1),
        # phonegap-plugin-push#2715: no sound or action through v1
        ({"notification": {"sound": "ping"}}, ("apns", "payload", "aps", "sound"), "ping"),
        ({"notification": {"click_action": "A"}}, ("apns", "payload", "aps", "category"), "A"),
        # phonegap-plugin-push#2340: the channel of Android 8
        ({"notification": {"android_channel_id": "c"}}, ("android", "notification", "channel_id"), "c"),
        # laravel-notification-channels/fcm#37, firebase-admin-node#2548: values that are no strings
        ({"data": {"id": 21465}}, ("data", "id"), "21465"),
        ({"data": {"list": [1]}}, ("data", "list"), "[1]"),
    ],
)
def test_what_the_new_interface_of_googles_has_elsewhere(fields: Any, path: tuple[str, ...], value: object) -> None:
    push = parse_fcm(*request({"to": "token", **fields}, 0, "push-game_gcm-single"))
    found = orjson.loads(push.body)["message"]
    for name in path:
        found = found[name]
    assert found == value


# --- certificates -----------------------------------------------------------------------------------------------------
def handshake(tmp_path: Path, certificate: bytes) -> str:
    """What becomes of a connection with it: "" or the reason, as the operator reads it."""
    authority = make_ca("Apple's")
    client_ca, _ = authority.write(tmp_path, "client-ca")
    with ApnsSimulator(client_ca=client_ca, tls_dir=str(tmp_path / "apple")) as apple:
        context = ssl.create_default_context(cafile=apple.ca_file)
        context.set_alpn_protocols(["h2"])
        ClientCertificate.load(certificate.decode(), "").load_into(context)
        try:
            channel = connect(Origin("localhost", apple.port), context, 10)
        except ConnectFailed as failed:
            return str(failed)
        try:
            # TLS 1.3: the server's refusal comes behind the handshake
            while channel.receive():
                pass
        except OSError as error:
            return str(error)
        finally:
            channel.close()
    return ""


def test_a_certificate_of_a_stranger_is_named_as_such(tmp_path: Path) -> None:
    """houston#94, reown-com/push-server#343: "tlsv1 alert unknown ca" lost behind a reset."""
    stranger = make_client_certificate(make_ca("Nobody's"), "com.game")
    assert "unknown ca" in handshake(tmp_path, stranger.pem() + stranger.key_pem()).lower().replace("_", " ")


@pytest.mark.parametrize(
    ("expired", "words"),
    [
        # java-apns#353, pushy#609, Ph3nol/NotificationPusher#133: it ended, and only the log of TLS said so
        (True, "the certificate expired on"),
        (False, None),
    ],
)
def test_dates_are_looked_at_before_it_is_used(expired: bool, words: str | None) -> None:
    made = make_client_certificate(make_ca(), "com.game", expired=expired)
    loaded = ClientCertificate.load((made.pem() + made.key_pem()).decode(), "")
    if words is None:
        refuse_dates(loaded, loaded.expires_at_s - 1)
        with pytest.raises(CredentialError, match="not valid before"):
            refuse_dates(loaded, 0.0)
        return
    with pytest.raises(CredentialError, match=words):
        refuse_dates(loaded, loaded.expires_at_s + 1)


@pytest.mark.parametrize("order", ["leaf, issuer, key", "issuer, leaf, key", "key, issuer, leaf", "issuer, key, leaf"])
def test_a_chain_may_be_in_any_order(order: str) -> None:
    """RFC 8446, 4.4.2: the sender's own comes first; files are put together in any order (apn_on_rails#41)."""
    authority = make_ca()
    made = make_client_certificate(authority, "com.game")
    parts = {"leaf": made.pem(), "issuer": authority.pem(), "key": made.key_pem()}
    loaded = ClientCertificate.load(b"".join(parts[name] for name in order.split(", ")).decode(), "")
    assert loaded.chain_pem == made.pem() + authority.pem()
    assert loaded.expires_at_s == made.certificate.not_valid_after_utc.timestamp()
    loaded.load_into(ssl.create_default_context())
