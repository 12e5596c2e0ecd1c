"""One push to all who follow a Live Activity: messages with a channel, and the command ``channels``.

Sources: Apple, "Sending broadcast push notification requests to APNs" and "Sending channel management requests to
APNs"; asked for in pushy#1081, node-apn#162 and apns2#242.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hpack
import pytest
import yaml

from pusher import config
from pusher.errors import StartError
from pusher.providers.apns import channels
from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.providers.apns.service import PRODUCTION_HOST
from pusher.push.fields import InvalidMessage
from pusher.push.outcome import Kind
from pusher.sim.apns import ApnsSimulator
from pusher.sim.certificate import make_p8
from tests.records import request
from tests.unit.providers.apns.test_apns_service import opened

CHANNEL = "dHN0LXNyY2gtY2hubA=="
APP = "com.game"


def parse(own: str = APP, **fields: Any) -> ApnsPush:
    message = {"channel_id": CHANNEL, "Payload": {"aps": {"event": "update", "content-state": {}}}} | fields
    return ApnsParser(own)(*request(message, 0, "push-game_apns-single"))


def headers(push: ApnsPush) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in hpack.Decoder().decode(push.literals, raw=True)}


# --- messages


@pytest.mark.parametrize("name", ["channel_id", "Channel_Id", "CHANNEL_ID"])
def test_a_channel_in_place_of_a_token(name: str) -> None:
    fields: dict[str, Any] = {"channel_id": None, name: CHANNEL}
    push = parse(**fields)
    assert (push.token, push.path) == (CHANNEL, b"/4/broadcasts/apps/com.game")
    assert (push.kind.push_type, push.kind.priority, push.kind.broadcast) == (b"liveactivity", b"10", True)
    assert headers(push) == {"apns-request-id": push.id, "apns-channel-id": CHANNEL, "apns-expiration": "0"}


@pytest.mark.parametrize("own", ["com.game", "com.game.push-type.liveactivity"])
@pytest.mark.parametrize("topic", [None, "com.game", "com.game.push-type.liveactivity"])
def test_the_path_has_the_bundle_id_without_a_suffix(own: str, topic: str | None) -> None:
    """TopicDisallowed: "Ensure that no push type suffix is added to the bundle ID"."""
    assert parse(own, topic=topic).path == b"/4/broadcasts/apps/com.game"


@pytest.mark.parametrize(
    ("fields", "expiration"),
    [
        ({"expiration": 1_900_000_000}, "1900000000"),
        ({"push_expiry": 1_900_000_000_999}, "1900000000"),
        ({"push_expiry": 1_900_000_000_999, "expiration": 0}, "0"),
        ({"expiration": "soon"}, "0"),
    ],
)
def test_its_expiration(fields: dict[str, Any], expiration: str) -> None:
    assert headers(parse(**fields))["apns-expiration"] == expiration


@pytest.mark.parametrize(("given", "sent"), [(5, b"5"), ("normal", b"5"), (1, b"1"), ("loud", b"10"), (None, b"10")])
def test_its_priority(given: object, sent: bytes) -> None:
    assert parse(priority=given).kind.priority == sent


@pytest.mark.parametrize("fields", [{"collapse_id": "c"}, {"push_type": "alert"}, {"push_type": 5}])
def test_what_is_not_for_broadcasts_is_left_out(fields: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    parser = ApnsParser(APP, f"app-{fields}")
    message = {"channel_id": CHANNEL, "Payload": {}} | fields
    push = parser(*request(message, 0, "push-game_apns-single"))
    assert (push.kind.push_type, "apns-collapse-id" in headers(push)) == (b"liveactivity", False)
    assert next(iter(fields)) in caplog.text


def test_a_token_goes_before_a_channel() -> None:
    push = parse(DeviceToken="ab")
    assert (push.path, push.kind.broadcast) == (b"/3/device/ab", False)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"channel_id": ""}, "bad-channel-id"),
        ({"channel_id": "a b"}, "bad-channel-id"),
        ({"channel_id": "a\nb"}, "bad-channel-id"),
        ({"channel_id": 7}, "bad-channel-id"),
        ({"channel_id": [CHANNEL]}, "bad-channel-id"),
        ({"channel_id": "A" * 2_000}, "bad-channel-id"),
        ({"channel_id": None}, "missing-token"),
    ],
)
def test_channels_that_are_none(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidMessage) as invalid:
        parse(**fields)
    assert invalid.value.reason == reason


def test_a_broadcast_of_an_app_without_a_bundle_id_can_never_be_sent() -> None:
    with pytest.raises(InvalidMessage) as invalid:
        parse("")
    assert invalid.value.reason == "missing-topic"


# --- sending


def test_a_broadcast_is_sent_and_fed_back(tmp_path: Path) -> None:
    with opened(tmp_path) as bed:
        bed.apple.channels.of(APP)[CHANNEL] = 0
        assert bed.send(2, DeviceToken="", channel_id=CHANNEL) == {Kind.DELIVERED: 2}
        assert bed.send(1) == {Kind.DELIVERED: 3}
        feedback = json.loads(bed.publisher.records[0][1])
    ids = [received.request_id for received in bed.apple.received]
    assert [received.token for received in bed.apple.received[:2]] == [CHANNEL] * 2
    assert (feedback["Sent"], feedback["DeviceToken"], feedback["ApnsID"]) == (True, CHANNEL, ids[0])
    assert len(feedback["metadata"]["apnsUniqueId"]) == 36


@pytest.mark.parametrize(
    ("fields", "reason", "key"),
    [
        ({"channel_id": "QUJD"}, "ChannelNotRegistered", "channel-not-registered"),
        ({"channel_id": "A"}, "BadChannelId", "bad-channel-id"),
        ({"expiration": 1_900_000_000}, "BadExpirationDate", "bad-expiration-date"),
        ({"topic": "com.other"}, "FeatureNotEnabled", "feature-not-enabled"),
    ],
)
def test_a_broadcast_that_is_refused_deletes_nothing_and_holds_nobody(
    tmp_path: Path, fields: dict[str, Any], reason: str, key: str
) -> None:
    with opened(tmp_path, broadcast_apps=[APP]) as bed:
        bed.apple.channels.of(APP)[CHANNEL] = 0
        assert bed.send(25, **({"DeviceToken": "", "channel_id": CHANNEL} | fields)) == {Kind.REJECTED: 25}
        assert bed.send(1) == {Kind.REJECTED: 25, Kind.DELIVERED: 1}
        feedback = json.loads(bed.publisher.records[0][1])
    assert (feedback["Reason"], feedback["Err"]["Key"]) == (reason, key)
    assert "deleteToken" not in feedback["metadata"]


def test_a_broadcast_to_another_teams_app_holds_no_other_pushes(tmp_path: Path) -> None:
    """TopicMismatch is a 403: it counts for the topic and type that it was sent for."""
    with opened(tmp_path) as bed:
        bed.apple.channels.of(APP)[CHANNEL] = 0
        bed.apple.set_faults([f"prefix={CHANNEL[:8]}:403 TopicMismatch"])
        assert bed.send(25, DeviceToken="", channel_id=CHANNEL) == {Kind.REJECTED: 25}
        assert bed.send(5) == {Kind.REJECTED: 25, Kind.DELIVERED: 5}


# --- the command


class Managed:
    """A simulator with its host for channels, and the settings of an app "game" beside it."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.apple = ApnsSimulator(tls_dir=str(directory), channels_port=0, **options)
        self.apple.start()
        (directory / "key.p8").write_bytes(make_p8())
        server = self.apple.channels_server
        self.settings: dict[str, Any] = {
            "apps": "game",
            "caFile": self.apple.ca_file,
            "channels": {"host": "localhost", "port": server.port if server is not None else 0},
            "certs": {
                "game": {
                    "authKeyPath": str(directory / "key.p8"),
                    "keyID": "ABC123DEFG",
                    "teamID": "DEF123GHIJ",
                    "topic": APP,
                }
            },
        }

    def run(self, *arguments: str, app: str = "game") -> int:
        parser = argparse.ArgumentParser()
        channels.add_arguments(parser)
        args = parser.parse_args([*arguments, "--app", app])
        return channels.run(args, config.parse(yaml.safe_dump({"apns": self.settings}), {}))


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    made = Managed(tmp_path)
    yield made
    made.apple.close()


def test_channels_are_made_listed_and_deleted(managed: Managed, capsys: pytest.CaptureFixture[str]) -> None:
    assert managed.run("create") == managed.run("create", "--store") == 0
    plain, stored = capsys.readouterr().out.split()
    assert managed.apple.channels.of(APP) == {plain: 0, stored: 1}
    assert managed.run("list") == 0
    assert capsys.readouterr().out.splitlines() == [plain, stored]
    assert managed.run("delete", "--channel", plain) == 0
    assert managed.run("list") == 0
    assert capsys.readouterr().out.splitlines() == [stored]


def test_what_apple_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    managed = Managed(tmp_path, broadcast_apps=["com.other"])
    assert managed.run("create") == 1
    assert capsys.readouterr() == ("", "pusher: Apple refuses the request: FeatureNotEnabled\n")
    managed.apple.close()


def test_a_channel_that_is_gone_is_said_so(managed: Managed, capsys: pytest.CaptureFixture[str]) -> None:
    assert managed.run("delete", "--channel", CHANNEL) == 1
    assert capsys.readouterr().err == "pusher: Apple refuses the request: ChannelNotRegistered\n"


@pytest.mark.parametrize(
    ("arguments", "app", "words"),
    [
        (("delete",), "game", "with the id of a channel"),
        (("delete", "--channel", "a b"), "game", "with the id of a channel"),
        (("list", "--channel", CHANNEL), "game", "only delete takes --channel"),
        (("list",), "other", "apns.apps has game"),
    ],
)
def test_usage(managed: Managed, arguments: tuple[str, ...], app: str, words: str) -> None:
    with pytest.raises(StartError, match=words):
        managed.run(*arguments, app=app)


def test_without_a_bundle_id_or_an_answer(managed: Managed) -> None:
    managed.apple.stop()
    managed.settings["connectTimeout"] = 0.2
    with pytest.raises(StartError, match="localhost:"):
        managed.run("list")
    managed.settings["certs"]["game"]["topic"] = ""
    with pytest.raises(StartError, match="topic is not set"):
        managed.run("list")


@pytest.mark.parametrize(
    ("production", "expected"),
    [
        (True, "api-manage-broadcast.push.apple.com:2196"),
        (False, "api-manage-broadcast.sandbox.push.apple.com:2195"),
    ],
)
def test_apples_hosts_for_channels(production: bool, expected: str) -> None:
    found = config.parse("", {}, production=production)
    assert str(channels.channels_origin(found)) == expected
    assert PRODUCTION_HOST not in expected
