"""The simulated hosts for broadcasts and their channels, asked by an independent client.

Reasons: Apple, "Handling error responses from Apple Push Notification service".
"""

import json
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lab.apns_client import Client, Connect, Reply, Simulate, apns_simulator, connections
from lab.simulators import simulators
from pusher.sim.apns import STATUSES
from pusher.sim.apns_channels import BroadcastChannels
from pusher.sim.apns_rules import AppleRules

APP = "com.example.app"
PAYLOAD = b'{"aps":{"event":"update","content-state":{}}}'


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    with simulators(apns_simulator) as start:
        yield lambda *args, **options: start(*args, channels_port=0, **options)


@pytest.fixture
def connect() -> Iterator[Connect]:
    with connections() as open_client:
        yield open_client


def management(connect: Connect, sim: Any) -> Client:
    return connect(SimpleNamespace(ca_file=sim.ca_file, port=sim.channels_server.port))


def manage(client: Client, method: str, what: str = "channels", body: bytes = b"", **headers: str | None) -> Reply:
    return client.ask(body, method=method, path=f"/1/apps/{APP}/{what}", apns_topic=None, apns_id=None, **headers)


def create(client: Client, policy: int = 0) -> str:
    body = json.dumps({"message-storage-policy": policy, "push-type": "LiveActivity"}).encode()
    reply = manage(client, "POST", body=body)
    assert (reply.status, reply.body) == (201, b"")
    uuid.UUID(reply.headers[b"apns-request-id"].decode())
    return reply.headers[b"apns-channel-id"].decode()


def broadcast(client: Client, channel_id: str | None, body: bytes = PAYLOAD, **headers: str | None) -> Reply:
    usual: dict[str, str | None] = {
        "path": f"/4/broadcasts/apps/{APP}",
        "apns_topic": None,
        "apns_id": None,
        "apns_request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "apns_push_type": "liveactivity",
        "apns_priority": "10",
        "apns_expiration": "0",
        "apns_channel_id": channel_id,
    }
    return client.ask(body, **(usual | headers))


def test_a_channel_from_its_beginning_to_its_end(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    manager, sender = management(connect, sim), connect(sim)
    first, second = create(manager), create(manager, 1)
    assert json.loads(manage(manager, "GET", "all-channels").body) == {"channels": [first, second]}
    found = manage(manager, "GET", apns_channel_id=second)
    assert json.loads(found.body) == {"message-storage-policy": 1, "push-type": "LiveActivity"}
    reply = broadcast(sender, first)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers[b"apns-request-id"] == b"0f8fad5b-d9cb-469f-a165-70867728950e"
    uuid.UUID(reply.headers[b"apns-unique-id"].decode())
    assert broadcast(sender, second, apns_expiration="1900000000").status == 200
    assert manage(manager, "DELETE", apns_channel_id=first).status == 204
    assert broadcast(sender, first).reason == "ChannelNotRegistered"
    assert json.loads(manage(manager, "GET", "all-channels").body) == {"channels": [second]}
    assert sim.received[0] == ("0f8fad5b-d9cb-469f-a165-70867728950e", first, 200, "")


@pytest.mark.parametrize(
    ("reason", "headers"),
    [
        ("MethodNotAllowed", {"method": "PUT"}),
        ("MissingProviderToken", {"authorization": None}),
        ("InvalidProviderToken", {"authorization": "bearer x"}),
        ("TopicMismatch", {"path": "/4/broadcasts/apps/com.example.other"}),
        ("TopicDisallowed", {"path": f"/4/broadcasts/apps/{APP}.push-type.liveactivity"}),
        ("FeatureNotEnabled", {"path": "/4/broadcasts/apps/com.example.plain"}),
        ("BadPath", {"path": "/4/broadcasts/apps/"}),
        ("BadPath", {"path": "/4/broadcasts/app/com.example.app"}),
        ("MissingChannelId", {"apns_channel_id": None}),
        ("BadChannelId", {"apns_channel_id": "not base64"}),
        ("BadChannelId", {"apns_channel_id": "QUJD" * 40}),
        ("ChannelNotRegistered", {"apns_channel_id": "dHN0LXNyY2gtY2hubA=="}),
        ("MissingPushType", {"apns_push_type": None}),
        ("InvalidPushType", {"apns_push_type": "alert"}),
        ("BadExpirationDate", {"apns_expiration": None}),
        ("BadExpirationDate", {"apns_expiration": "soon"}),
        # "Providing a nonzero expiration for a channel created with the No Message Stored storage policy"
        ("BadExpirationDate", {"apns_expiration": "1900000000"}),
        ("BadPriority", {"apns_priority": None}),
        ("BadPriority", {"apns_priority": "7"}),
    ],
)
def test_broadcasts_that_are_refused(
    simulate: Simulate, connect: Connect, reason: str, headers: dict[str, str | None]
) -> None:
    apps = [APP, "com.example.plain", f"{APP}.push-type.liveactivity"]
    sim = simulate(AppleRules(topics=frozenset(apps)), broadcast_apps=[APP])
    sim.channels.of(APP)["QUJDRA=="] = 0
    reply = broadcast(connect(sim), "QUJDRA==", PAYLOAD, **headers)
    assert (reply.status, reply.reason) == (STATUSES[reason], reason)
    assert b"apns-unique-id" not in reply.headers


@pytest.mark.parametrize(("reason", "body"), [("PayloadEmpty", b""), ("PayloadTooLarge", b"x" * 5_121)])
def test_payloads_that_are_refused(simulate: Simulate, connect: Connect, reason: str, body: bytes) -> None:
    sim = simulate()
    sim.channels.of(APP)["QUJDRA=="] = 0
    assert broadcast(connect(sim), "QUJDRA==", body).reason == reason
    assert broadcast(connect(sim), "QUJDRA==", b"x" * 5_120).status == 200


@pytest.mark.parametrize(
    ("reason", "method", "what", "body", "headers"),
    [
        ("BadRequestPayload", "POST", "channels", b"{", {}),
        ("BadRequestParams", "POST", "channels", b"[]", {}),
        ("BadRequestParams", "POST", "channels", b'{"message-storage-policy":2,"push-type":"LiveActivity"}', {}),
        ("BadRequestParams", "POST", "channels", b'{"push-type":"LiveActivity"}', {}),
        ("BadRequestParams", "POST", "channels", b'{"message-storage-policy":1,"push-type":"LiveActivity","x":1}', {}),
        ("MissingPushType", "POST", "channels", b'{"message-storage-policy":1}', {}),
        ("InvalidPushType", "POST", "channels", b'{"message-storage-policy":1,"push-type":"alert"}', {}),
        ("MethodNotAllowed", "PUT", "channels", b"", {}),
        ("MethodNotAllowed", "DELETE", "all-channels", b"", {}),
        ("BadPath", "GET", "some-channels", b"", {}),
        ("MissingChannelId", "DELETE", "channels", b"", {}),
        ("BadChannelId", "GET", "channels", b"", {"apns_channel_id": "?"}),
        ("ChannelNotRegistered", "DELETE", "channels", b"", {"apns_channel_id": "QUJDRA=="}),
        ("MissingProviderToken", "GET", "all-channels", b"", {"authorization": None}),
    ],
)
def test_requests_for_channels_that_are_refused(
    simulate: Simulate,
    connect: Connect,
    reason: str,
    method: str,
    what: str,
    body: bytes,
    headers: dict[str, str | None],
) -> None:
    reply = manage(management(connect, simulate()), method, what, body, **headers)
    assert (reply.status, reply.reason) == (STATUSES[reason], reason)


def test_an_app_has_so_many_channels_at_most() -> None:
    channels = BroadcastChannels(most=2)
    body = b'{"message-storage-policy":0,"push-type":"LiveActivity"}'
    found = [channels.manage(b"POST", APP, "channels", {}, body).reason for _ in range(3)]
    assert found == ["", "", "CannotCreateChannelConfig"]
