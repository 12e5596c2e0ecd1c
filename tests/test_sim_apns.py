"""The simulated APNs, asked by an independent client: h2's client side on a plain TLS socket."""

import argparse
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import jwt
import pytest
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import Frame

from pusher.sim.apns import ApnsSimulator, add_arguments, from_arguments
from pusher.sim.apns_rules import STATUS, Rules
from pusher.sim.certificate import (
    load_verification_key,
    make_ca,
    make_client_certificate,
    make_p8,
    make_server_certificate,
    tls_files,
)
from pusher.sim.faults import Faults, FaultSyntaxError, parse

DEVICE = "ab" * 32
PAYLOAD = b'{"aps":{"alert":"hi"}}'
KEY = make_p8()
DEADLINE_S = 10.0


def provider_token(
    issued_at: float | None = None, team: str = "TEAM", key_id: str | None = "KEY", key: bytes = KEY, **more: Any
) -> str:
    claims = {"iss": team, "iat": int(time.time() if issued_at is None else issued_at), **more}
    return jwt.encode(claims, key, "ES256", headers={"kid": key_id} if key_id else None)


TOKEN = provider_token()


@dataclass
class Reply:
    """What came back on one stream."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["reason"])


class Client:
    """A connection to the simulator. receive(until) reads until a condition holds, or fails at the deadline."""

    def __init__(self, sim: ApnsSimulator, context: ssl.SSLContext | None = None) -> None:
        if context is None:
            context = client_context(sim.ca_file)
        plain = socket.create_connection(("127.0.0.1", sim.port), timeout=DEADLINE_S)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.replies: dict[int, Reply] = {}
        self.events: list[Event] = []
        self.raw = self.partial = b""
        self.ended = False
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def push(self, body: bytes = PAYLOAD, *, flush: bool = True, **headers: str | None) -> int:
        """Sends a push; header names with _ for -, None leaves one out; returns the stream."""
        fields: dict[str, str | None] = {
            ":method": headers.pop("method", "POST"),
            ":scheme": "https",
            ":path": headers.pop("path", f"/3/device/{DEVICE}"),
            ":authority": "localhost",
            "authorization": f"bearer {TOKEN}",
            "apns-topic": "com.example.app",
            "apns-id": str(uuid.uuid4()),
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send([(name, value) for name, value in fields.items() if value is not None], body, flush=flush)

    def send(self, fields: list[tuple[str, str]], body: bytes, *, flush: bool = True) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.replies[stream_id] = Reply()
        self.h2.send_headers(stream_id, fields, end_stream=not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=True)
        if flush:
            self.flush()
        return stream_id

    def ask(self, body: bytes = PAYLOAD, **headers: str | None) -> Reply:
        """Sends a push and waits for its reply."""
        return self.reply(self.push(body, flush=True, **headers))

    def reply(self, stream_id: int) -> Reply:
        reply = self.replies[stream_id]
        self.receive(lambda: reply.ended or reply.reset is not None)
        return reply

    def receive(self, until: Callable[[], object]) -> None:
        with gevent.Timeout(DEADLINE_S):
            while not until():
                data = self.read()
                if not data:
                    self.ended = True
                    assert until(), "the connection ended"
                    return
                for event in self.events_of(data):
                    self.take(event)
                self.flush_quietly()

    def events_of(self, data: bytes) -> Iterator[Event]:
        """Frame by frame, because h2 takes nothing more after a GOAWAY, which need not be the end."""
        self.partial += data
        while len(self.partial) >= 9:
            end = 9 + int.from_bytes(self.partial[:3], "big")
            if len(self.partial) < end:
                return
            frame, self.partial = self.partial[:end], self.partial[end:]
            yield from self.h2.receive_data(frame)
            if frame[3] == 7:
                self.h2.state_machine.state = ConnectionState.CLIENT_OPEN

    def read(self) -> bytes:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return b""
        self.raw += data
        return data

    def flush_quietly(self) -> None:
        """The server may have closed already; that shows when reading."""
        try:
            self.flush()
        except OSError:
            self.ended = True

    def take(self, event: Event) -> None:
        self.events.append(event)
        reply = self.replies.get(getattr(event, "stream_id", None) or 0, Reply())
        match event:
            case InformationalResponseReceived():
                reply.interim.append(int(dict(event.headers)[b":status"]))
            case ResponseReceived():
                reply.headers = dict(event.headers)
                reply.status = int(reply.headers[b":status"])
            case DataReceived():
                reply.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                reply.trailers = dict(event.headers)
            case StreamEnded():
                reply.ended = True
            case StreamReset():
                reply.reset = int(event.error_code)

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def frames(self) -> list[Frame]:
        """Everything received, as frames."""
        found, view = [], memoryview(self.raw)
        while view:
            frame, length = Frame.parse_frame_header(view[:9])
            frame.parse_body(view[9 : 9 + length])
            found.append(frame)
            view = view[9 + length :]
        return found

    def at_end(self) -> bool:
        """Reads until the server closes."""
        self.receive(lambda: self.ended)
        return self.ended

    def close(self) -> None:
        self.socket.close()


def client_context(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["h2"])
    return context


def poll(condition: Callable[[], object]) -> None:
    """Waits until a condition holds that another greenlet or process brings about."""
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.01)


Connect = Callable[..., Client]
Simulate = Callable[..., ApnsSimulator]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Starts simulators; at the end no client may have broken the protocol unnoticed."""
    started: list[ApnsSimulator] = []

    def start(rules: Rules = Rules(), *faults: str, **options: Any) -> ApnsSimulator:  # noqa: B008  # frozen
        sim = ApnsSimulator(rules, faults, **options)
        sim.start()
        started.append(sim)
        return sim

    yield start
    for sim in started:
        sim.close()
    assert [error for sim in started for error in sim.server.protocol_errors] == []


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened: list[Client] = []

    def open_client(sim: ApnsSimulator, context: ssl.SSLContext | None = None) -> Client:
        client = Client(sim, context)
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        client.close()


# ---- rules


def test_accepts_and_repeats_the_id(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    reply = connect(sim).ask(apns_id="0f8fad5b-d9cb-469f-a165-70867728950e")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers[b"apns-id"] == b"0f8fad5b-d9cb-469f-a165-70867728950e"
    assert sim.received == [("0f8fad5b-d9cb-469f-a165-70867728950e", DEVICE, 200, "")]
    assert sim.ledger.delivered == {"0f8fad5b-d9cb-469f-a165-70867728950e": 1}


def test_makes_an_id_where_none_is_given(simulate: Simulate, connect: Connect) -> None:
    reply = connect(simulate()).ask(apns_id=None)
    assert uuid.UUID(reply.headers[b"apns-id"].decode()).version == 4


@pytest.mark.parametrize(
    ("reason", "body", "headers"),
    [
        ("MethodNotAllowed", PAYLOAD, {"method": "PUT"}),
        ("BadPath", PAYLOAD, {"path": "/3/devices/ab"}),
        ("MissingDeviceToken", PAYLOAD, {"path": "/3/device/"}),
        ("BadDeviceToken", PAYLOAD, {"path": "/3/device/xyz"}),
        ("BadDeviceToken", PAYLOAD, {"path": "/3/device/ab%20"}),
        ("MissingProviderToken", PAYLOAD, {"authorization": None}),
        ("InvalidProviderToken", PAYLOAD, {"authorization": "basic abc"}),
        ("InvalidProviderToken", PAYLOAD, {"authorization": "bearer a.b.c"}),
        ("BadMessageId", PAYLOAD, {"apns_id": "1234"}),
        ("BadExpirationDate", PAYLOAD, {"apns_expiration": "tomorrow"}),
        ("BadPriority", PAYLOAD, {"apns_priority": "7"}),
        ("BadPriority", PAYLOAD, {"apns_push_type": "background", "apns_priority": "10"}),
        ("BadPriority", PAYLOAD, {"apns_push_type": "background"}),
        ("InvalidPushType", PAYLOAD, {"apns_push_type": "loud"}),
        ("BadCollapseId", PAYLOAD, {"apns_collapse_id": "c" * 65}),
        ("MissingTopic", PAYLOAD, {"apns_topic": None}),
        ("BadTopic", PAYLOAD, {"apns_topic": "com example"}),
        ("TopicDisallowed", PAYLOAD, {"apns_push_type": "voip"}),
        ("PayloadEmpty", b"", {}),
        ("PayloadTooLarge", b"x" * 4097, {}),
        ("PayloadTooLarge", b"x" * 5121, {"apns_push_type": "voip", "apns_topic": "com.example.app.voip"}),
    ],
)
def test_refuses(
    simulate: Simulate, connect: Connect, reason: str, body: bytes, headers: dict[str, str | None]
) -> None:
    sim = simulate()
    reply = connect(sim).ask(body, **headers)
    assert (reply.status, reply.reason) == (STATUS[reason], reason)
    uuid.UUID(reply.headers[b"apns-id"].decode())
    assert sim.received[0][2:] == (STATUS[reason], reason)
    assert sim.ledger.delivered == {}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"x" * 4096, {}),
        (b"x" * 5120, {"apns_push_type": "voip", "apns_topic": "com.example.app.voip"}),
        (PAYLOAD, {"apns_push_type": "background", "apns_priority": "5"}),
        (PAYLOAD, {"apns_priority": "1", "apns_expiration": "0", "apns_collapse_id": "c" * 64}),
        (PAYLOAD, {"apns_push_type": "liveactivity", "apns_topic": "com.example.app.push-type.liveactivity"}),
    ],
)
def test_accepts_at_the_limits(
    simulate: Simulate, connect: Connect, body: bytes, headers: dict[str, str | None]
) -> None:
    sim = simulate(Rules(topics=frozenset(["com.example.app"])))
    assert connect(sim).ask(body, **headers).status == 200


def test_refuses_a_header_given_twice(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate())
    fields = [(":method", "POST"), (":scheme", "https"), (":path", f"/3/device/{DEVICE}"), (":authority", "localhost")]
    fields += [("authorization", f"bearer {TOKEN}"), ("apns-topic", "com.example"), ("apns-topic", "com.example")]
    assert client.reply(client.send(fields, PAYLOAD)).reason == "DuplicateHeaders"


def test_knows_its_topics(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(topics=frozenset(["com.example.app"]))))
    assert client.ask().status == 200
    assert client.ask(apns_topic="com.example.other").reason == "TopicDisallowed"
    assert client.ask(apns_topic="com.example.app.voip", apns_push_type="alert").reason == "TopicDisallowed"


def test_options_of_tokens_and_push_types(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(any_token=True, require_push_type=True)))
    assert client.ask(path="/3/device/HELLO_~.-9", apns_push_type="alert").status == 200
    assert client.ask(path="/3/device/a%41", apns_push_type="alert").reason == "BadDeviceToken"
    assert client.ask().reason == "InvalidPushType"


# ---- provider tokens


@pytest.mark.parametrize(
    "token",
    [
        provider_token(key_id=None),
        provider_token(team="OTHER"),
        provider_token(key_id="OTHER"),
        provider_token(key=make_p8()),
        provider_token(time.time() + 3600),
        provider_token(iat="now"),
        jwt.encode({"iss": "TEAM", "iat": int(time.time())}, "s" * 32, "HS256", headers={"kid": "KEY"}),
    ],
    ids=["no kid", "other team", "other key id", "other key", "future", "iat is no number", "HS256"],
)
def test_refuses_a_provider_token(simulate: Simulate, connect: Connect, token: str) -> None:
    rules = Rules(key_ids=frozenset(["KEY"]), team_ids=frozenset(["TEAM"]), verification_key=load_verification_key(KEY))
    client = connect(simulate(rules))
    assert client.ask(authorization=f"bearer {token}").reason == "InvalidProviderToken"
    assert client.ask().status == 200


def test_expired_provider_token_spoils_the_connection(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    old = provider_token(time.time() - 3601)
    client = connect(sim)
    reply = client.ask(authorization=f"bearer {old}")
    assert (reply.status, reply.reason) == (403, "ExpiredProviderToken")
    assert client.ask().reason == "ExpiredProviderToken"
    assert connect(sim).ask().status == 200


def test_without_wedge_a_new_token_heals(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(wedge=False, token_lifetime_s=100)))
    assert client.ask(authorization=f"bearer {provider_token(time.time() - 110)}").reason == "ExpiredProviderToken"
    assert client.ask().status == 200


def test_one_team_a_connection(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(renewal_scope="off")))
    assert client.ask().status == 200
    assert client.ask(authorization=f"bearer {provider_token(team='OTHER')}").reason == "InvalidProviderToken"


@pytest.mark.parametrize("scope", ["connection", "team"])
def test_limits_token_renewals(simulate: Simulate, connect: Connect, scope: Any) -> None:
    clock = [time.time()]
    sim = simulate(Rules(renewal_scope=scope), now=lambda: clock[0])
    client = connect(sim)
    assert client.ask().status == 200
    second = f"bearer {provider_token(clock[0] - 5)}"
    reply = client.ask(authorization=second)
    assert (reply.status, reply.reason) == (429, "TooManyProviderTokenUpdates")
    other = connect(sim).ask(authorization=second)
    assert other.status == (200 if scope == "connection" else 429)
    clock[0] += 1200
    assert client.ask(authorization=second).status == 200
    assert client.ask().status == 200


def test_renewals_may_be_free(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(renewal_scope="off")))
    for age in range(3):
        assert client.ask(authorization=f"bearer {provider_token(time.time() - age)}").status == 200


def test_client_certificate_stands_for_token_and_topic(simulate: Simulate, connect: Connect, tmp_path: Path) -> None:
    ca = make_ca()
    ca_file, _ = ca.write(tmp_path, "clients")
    sim = simulate(client_ca=ca_file)
    context = client_context(sim.ca_file)
    context.load_cert_chain(*make_client_certificate(ca, "com.example.app").write(tmp_path, "app"))
    client = connect(sim, context)
    assert client.ask(authorization=None, apns_topic=None).status == 200
    assert client.ask(authorization=None, apns_topic="com.example.other").reason == "TopicDisallowed"
    assert connect(sim).ask(authorization=None).reason == "MissingProviderToken"


@pytest.mark.parametrize("flaw", ["expired", "stranger"])
def test_bad_client_certificate_is_refused_by_tls(
    simulate: Simulate, connect: Connect, tmp_path: Path, flaw: str
) -> None:
    ca = make_ca()
    ca_file, _ = ca.write(tmp_path, "clients")
    sim = simulate(client_ca=ca_file)
    signer = ca if flaw == "expired" else make_ca("stranger")
    certificate = make_client_certificate(signer, "com.example.app", expired=flaw == "expired")
    context = client_context(sim.ca_file)
    context.load_cert_chain(*certificate.write(tmp_path, "app"))
    with pytest.raises(ssl.SSLError):
        connect(sim, context).ask(authorization=None)
    poll(lambda: sim.server.counts["tls_failures"])
    sim.server.protocol_errors.clear()


def test_expired_server_certificate(simulate: Simulate, connect: Connect, tmp_path: Path) -> None:
    ca = make_ca()
    ca.write(tmp_path, "ca")
    make_server_certificate(ca, ["localhost"], expired=True).write(tmp_path, "server")
    sim = simulate(tls_dir=str(tmp_path))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        connect(sim)
    poll(lambda: sim.server.counts["tls_failures"])
    sim.server.protocol_errors.clear()


def test_certificate_for_other_names(simulate: Simulate, tmp_path: Path) -> None:
    tls_files(tmp_path)
    sim = simulate(tls_dir=str(tmp_path), names=["apns.example"])
    for name in ("apns.example", "127.0.0.1"):
        plain = socket.create_connection(("127.0.0.1", sim.port), timeout=DEADLINE_S)
        with client_context(sim.ca_file).wrap_socket(plain, server_hostname=name) as secured:
            assert secured.selected_alpn_protocol() == "h2"


def test_simulators_share_a_directory(tmp_path: Path) -> None:
    first = tls_files(tmp_path)
    ca = Path(first.ca).read_bytes()
    assert tls_files(tmp_path) == first
    assert Path(first.ca).read_bytes() == ca
    assert Path(first.key).stat().st_mode & 0o077 == 0


# ---- streams


def announced(client: Client, setting: SettingCodes) -> list[int]:
    return [
        event.changed_settings[setting].new_value
        for event in client.seen(RemoteSettingsChanged)
        if setting in event.changed_settings
    ]


def test_one_stream_until_the_first_valid_request(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(max_streams=50))
    assert client.ask(authorization=None).status == 403
    assert announced(client, SettingCodes.MAX_CONCURRENT_STREAMS) == [1]
    assert client.ask().status == 200
    client.receive(lambda: announced(client, SettingCodes.MAX_CONCURRENT_STREAMS) == [1, 50])


def test_streams_above_the_limit_are_refused(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(Rules(), "silence", max_streams=2, first_stream_alone=False)
    client = connect(sim)
    streams = [client.push(flush=False) for _ in range(3)]
    client.flush()
    assert client.reply(streams[2]).reset == ErrorCodes.REFUSED_STREAM
    assert sim.server.counts["refused_streams"] == 1
    assert len(sim.received) == 2


def test_small_windows(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(initial_window=100))
    client.receive(lambda: announced(client, SettingCodes.INITIAL_WINDOW_SIZE)[-1:] == [100])
    stream_id = client.h2.get_next_available_stream_id()
    client.replies[stream_id] = Reply()
    fields = {":method": "POST", ":scheme": "https", ":path": f"/3/device/{DEVICE}", ":authority": "localhost"}
    fields |= {"authorization": f"bearer {TOKEN}", "apns-topic": "com.example.app"}
    client.h2.send_headers(stream_id, list(fields.items()))
    rest = b"x" * 1000
    while rest:
        client.receive(lambda: client.h2.local_flow_control_window(stream_id) > 0)
        room = client.h2.local_flow_control_window(stream_id)
        assert room <= 100
        client.h2.send_data(stream_id, rest[:room], end_stream=len(rest) <= room)
        rest = rest[room:]
        client.flush()
    assert client.reply(stream_id).status == 200


def test_error_bodies_wait_for_the_clients_window(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "410"))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 7})
    client.flush()
    assert client.ask().reason == "Unregistered"
    assert max(len(event.data) for event in client.seen(DataReceived)) == 7


def test_many_requests_at_once_are_each_answered(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(max_streams=500, first_stream_alone=False)
    client = connect(sim)
    client.receive(lambda: announced(client, SettingCodes.MAX_CONCURRENT_STREAMS))
    streams = [client.push(flush=False) for _ in range(500)]
    client.flush()
    assert {client.reply(stream).status for stream in streams} == {200}
    assert len(sim.ledger.delivered) == 500


def test_a_protocol_error_is_told(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    client = connect(sim)
    client.socket.sendall(b"\x00\x00\x01\x00\x01\x00\x00\x00\x01x")  # DATA on a stream that was never opened
    assert client.at_end()
    assert len(sim.server.protocol_errors) == 1
    sim.server.protocol_errors.clear()


def test_clients_goaway_lets_open_streams_finish(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), latency_ms=50))
    stream = client.push()
    client.socket.sendall(b"\x00\x00\x08\x07\x00" + b"\x00" * 4 + b"\x00" * 8)
    assert client.reply(stream).status == 200
    assert client.at_end()


def test_starts_again_on_the_same_port(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    client = connect(sim)
    assert client.ask().status == 200
    port = sim.port
    sim.stop()
    assert client.at_end()
    sim.start()
    assert sim.port == port
    assert connect(sim).ask().status == 200


# ---- faults


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("429", 429, "TooManyRequests"),
        ("429 TooManyProviderTokenUpdates", 429, "TooManyProviderTokenUpdates"),
        ("500", 500, "InternalServerError"),
        ("503 Shutdown", 503, "Shutdown"),
        ("403 ExpiredProviderToken", 403, "ExpiredProviderToken"),
        ("400 SomethingNew", 400, "SomethingNew"),
    ],
)
def test_answers_by_fault(simulate: Simulate, connect: Connect, fault: str, status: int, reason: str) -> None:
    sim = simulate(Rules(), fault)
    reply = connect(sim).ask()
    assert (reply.status, reply.reason) == (status, reason)
    assert b"retry-after" not in reply.headers
    assert sim.ledger.faults == {fault: 1}
    assert sim.ledger.answers == {f"{status} {reason}": 1}


def test_retry_after(simulate: Simulate, connect: Connect) -> None:
    assert connect(simulate(Rules(), "503,retry-after=2")).ask().headers[b"retry-after"] == b"2"


def test_410_says_since_when(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(Rules(), "prefix=aa:410 ExpiredToken,timestamp=1700000000123", "prefix=bb:410", now=lambda: 1.8e9)
    client = connect(sim)
    token = f"bearer {provider_token(1.8e9)}"
    reply = client.ask(path="/3/device/aa11", authorization=token)
    assert json.loads(reply.body) == {"reason": "ExpiredToken", "timestamp": 1700000000123}
    reply = client.ask(path="/3/device/bb11", authorization=token)
    assert json.loads(reply.body) == {"reason": "Unregistered", "timestamp": 1800000000000}
    assert client.ask(path="/3/device/cc11", authorization=token).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ("502", 502, b"<html><h1>502</h1></html>"),
        ("503,body=<b>down, sorry</b>", 503, b"<b>down, sorry</b>"),
        ("429,body=", 429, b""),
    ],
)
def test_bodies_that_are_no_json(simulate: Simulate, connect: Connect, fault: str, status: int, body: bytes) -> None:
    reply = connect(simulate(Rules(), fault)).ask()
    assert (reply.status, reply.body, reply.headers[b"content-type"]) == (status, body, b"text/html")


def test_a_refusal_goes_before_a_fault(simulate: Simulate, connect: Connect) -> None:
    assert connect(simulate(Rules(), "503,trailers")).ask(b"").reason == "PayloadEmpty"


def test_silence_and_reset(simulate: Simulate, connect: Connect) -> None:
    script = ["prefix=aa:silence", "prefix=bb:reset", "prefix=cc:reset REFUSED_STREAM", "prefix=dd:reset 8,delivered"]
    sim = simulate(Rules(), *script)
    client = connect(sim)
    assert client.ask().status == 200
    silent = client.push(path="/3/device/aa")
    assert client.ask(path="/3/device/bb").reset == ErrorCodes.INTERNAL_ERROR
    assert client.ask(path="/3/device/cc").reset == ErrorCodes.REFUSED_STREAM
    assert client.ask(path="/3/device/dd").reset == ErrorCodes.CANCEL
    assert client.ask().status == 200
    assert client.replies[silent] == Reply()
    assert [(entry.token, entry.status, entry.reason) for entry in sim.received[1:5]] == [
        ("aa", 0, "silence"),
        ("bb", 0, "reset"),
        ("cc", 0, "reset"),
        ("dd", 200, ""),
    ]


def test_the_client_may_cancel_what_is_silent(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(Rules(), "prefix=aa:ok,delay=50")
    client = connect(sim)
    client.h2.reset_stream(client.push(path="/3/device/aa"), ErrorCodes.CANCEL)
    client.flush()
    assert client.ask().status == 200
    assert sim.server.counts["resets_by_client"] == 1


def test_goaway_in_one_step(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "prefix=aa:goaway Shutdown"))
    assert client.ask().status == 200
    stream = client.push(path="/3/device/aa")
    assert client.at_end()
    assert client.replies[stream].status == 200
    (goaway,) = client.seen(ConnectionTerminated)
    assert (goaway.last_stream_id, goaway.error_code) == (stream, ErrorCodes.NO_ERROR)
    assert json.loads(goaway.additional_data) == {"reason": "Shutdown"}


def test_goaway_that_leaves_streams_out(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(Rules(), "prefix=aa:goaway,unprocessed,code=ENHANCE_YOUR_CALM")
    client = connect(sim)
    first = client.push()
    assert client.reply(first).status == 200
    left_out = [client.push(path=f"/3/device/{token}", flush=False) for token in ("aa", "bb")]
    client.flush()
    assert client.at_end()
    (goaway,) = client.seen(ConnectionTerminated)
    assert (goaway.last_stream_id, goaway.error_code) == (first, ErrorCodes.ENHANCE_YOUR_CALM)
    assert [client.replies[stream] for stream in left_out] == [Reply(), Reply()]
    assert [entry.status for entry in sim.received] == [200, 0]


def test_goaway_in_two_steps(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "prefix=aa:drain Shutdown,ms=100", "prefix=bb:silence"))
    assert client.ask().status == 200
    silent = client.push(path="/3/device/bb")
    assert client.ask(path="/3/device/aa").status == 200
    (warning,) = client.seen(ConnectionTerminated)
    assert warning.last_stream_id == 2**31 - 1
    assert client.ask(path="/3/device/aa").status == 200
    client.receive(lambda: len(client.seen(ConnectionTerminated)) == 4)
    late = client.push()
    client.h2.reset_stream(silent, ErrorCodes.CANCEL)
    client.flush()
    assert client.at_end()
    assert client.replies[late] == Reply()
    assert [event.last_stream_id for event in client.seen(ConnectionTerminated)] == [2**31 - 1] * 2 + [7] * 2


def test_every_third_request(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "503:1/3"))
    assert [client.ask().status for _ in range(6)] == [200, 200, 503, 200, 200, 503]


@pytest.mark.parametrize("fault", ["cut", "cut,fin", "cut,delay=20"])
def test_cut(simulate: Simulate, connect: Connect, fault: str) -> None:
    sim = simulate(Rules(), fault)
    client = connect(sim)
    stream = client.push()
    assert client.at_end()
    assert client.replies[stream] == Reply()
    assert sim.received[0][2:] == (0, "cut")
    poll(lambda: not sim.server.links)


def test_a_late_fault_on_a_link_that_is_gone(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(Rules(), "prefix=aa:cut,delay=30", "prefix=bb:drain,ms=30", "prefix=cc:ok,delay=60")
    for token in ("aa", "bb", "cc"):
        leaver = connect(sim)
        leaver.push(path=f"/3/device/{token}")
        leaver.close()
    client = connect(sim)
    assert client.ask(path="/3/device/cc").status == 200  # the greenlet of late calls is alive


def test_every_link_can_be_disturbed_from_outside(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    clients = [connect(sim), connect(sim)]
    assert [client.ask().status for client in clients] == [200, 200]
    for link in list(sim.server.links):
        link.cut()
    assert all(client.at_end() for client in clients)
    poll(lambda: not sim.server.links)


def test_freeze(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "prefix=aa:freeze 0.3"))
    assert client.ask().status == 200
    begun = time.monotonic()
    streams = [client.push(path="/3/device/aa"), client.push()]
    assert [client.reply(stream).status for stream in streams] == [200, 200]
    assert time.monotonic() - begun >= 0.3


def test_delay_lets_others_pass(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "prefix=aa:ok,delay=200"))
    assert client.ask().status == 200
    late, prompt = client.push(path="/3/device/aa"), client.push()
    assert client.reply(prompt).status == 200
    assert client.replies[late] == Reply()
    assert client.reply(late).status == 200


def test_shapes(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "410,continuation=3,padding=9,interim=103,trailers"))
    reply = client.ask()
    assert (reply.status, reply.reason, reply.interim) == (410, "Unregistered", [103])
    assert reply.trailers == {b"x-trailer": b"end"}
    frames = client.frames()
    _interim, headers, _trailers = (frame for frame in frames if frame.type == 1)
    assert "PADDED" in headers.flags
    assert "END_HEADERS" not in headers.flags
    assert sum(frame.type == 9 for frame in frames) > 5
    assert set(next(frame for frame in frames if frame.type == 0).flags) == {"PADDED"}


@pytest.mark.parametrize("fault", ["ok,continuation", "ok,padding=30", "ok,trailers", "ok,interim"])
def test_shapes_of_success(simulate: Simulate, connect: Connect, fault: str) -> None:
    client = connect(simulate(Rules(), fault))
    assert [client.ask().status for _ in range(3)] == [200, 200, 200]


def test_settings_change_and_come_back(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "settings MAX_CONCURRENT_STREAMS 3,ms=50", max_streams=40))
    assert [client.ask().status for _ in range(2)] == [200, 200]
    client.receive(lambda: announced(client, SettingCodes.MAX_CONCURRENT_STREAMS) == [1, 40, 3, 3, 40, 40])


def test_once_an_id_and_times(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(Rules(), "prefix=aa:429,once", "prefix=bb:429,times=1"))
    ids = [str(uuid.uuid4()) for _ in range(2)]
    assert [client.ask(path="/3/device/aa", apns_id=ids[i // 2]).status for i in range(4)] == [429, 200, 429, 200]
    assert [client.ask(path="/3/device/bb").status for _ in range(3)] == [429, 200, 200]


def test_rates_are_seeded() -> None:
    def played(seed: int) -> list[bool]:
        faults = Faults(["429:0.25"], seed)
        return [faults.pick("token", "id") is not None for _ in range(4000)]

    assert played(1) == played(1)
    assert played(1) != played(2)
    assert 850 < sum(played(1)) < 1150


@pytest.mark.parametrize(
    "text",
    [
        "",
        "explode",
        "429 Two Words",
        "429:often",
        "429,often",
        "429,delay=long",
        "reset NO_SUCH_CODE",
        "goaway,code=NO_SUCH_CODE",
        "settings SIZE 1",
        "settings MAX_FRAME_SIZE big",
        "freeze",
        "freeze long",
        "silence,unprocessed",
        "goaway,unprocessed,delay=1",
        "429:1/0",
        "429:2",
        "ok,interim=200",
        "ok,continuation=0",
        "ok,padding=256",
    ],
)
def test_wrong_fault_lines(text: str) -> None:
    with pytest.raises(FaultSyntaxError):
        parse(text)


# ---- records and the command


def test_the_ledger_is_bounded(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(ledger_limit=2)
    client = connect(sim)
    apns_id = str(uuid.uuid4())
    for _ in range(4):
        assert client.ask(apns_id=apns_id).status == 200
    counts = sim.counts()
    assert len(sim.received) == 2
    assert (counts["answers"], counts["delivered"], counts["duplicates"], counts["left_out"]) == ({"200": 4}, 1, 1, 2)


def test_every_flag_reaches_the_simulator(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    key_file = tmp_path / "key.p8"
    line = f"--port 0 --tls-dir {tmp_path} --write-key {key_file} --key-id K --team-id T --topic com.x --any-token"
    line += " --require-push-type --token-lifetime 9 --token-updates team --no-wedge --max-streams 7 --no-first-stream"
    line += " --initial-window 99 --fault 429 --seed 4 --latency-ms 3 --ledger-limit 5"
    sim = from_arguments(parser.parse_args(line.split()))
    rules = sim.rules
    assert [*rules.key_ids, *rules.team_ids, *rules.topics] == ["K", "T", "com.x"]
    assert (rules.any_token, rules.require_push_type, rules.wedge) == (True, True, False)
    assert (rules.token_lifetime_s, rules.renewal_scope) == (9, "team")
    assert rules.verification_key == load_verification_key(key_file.read_bytes())
    assert (sim.server.max_streams, sim.ledger.limit, sim.latency_s) == (7, 5, 0.003)
    assert [fault.action for fault in sim.faults.script] == ["429"]
    assert "retry-after=S" in parser.format_help()


COMMAND = """
from gevent import monkey; monkey.patch_all()
import argparse, sys
from pusher.sim.apns import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command(connect: Connect, tmp_path: Path, number: int) -> None:
    ledger, key = tmp_path / "ledger.json", tmp_path / "key.p8"
    flags = ["--port", "0", "--admin-port", "0", "--tls-dir", str(tmp_path), "--ledger", str(ledger)]
    flags += ["--write-key", str(key), "--summary-every", "0.05"]
    command = [sys.executable, "-c", COMMAND, *flags]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        ready, admin = process.stdout.readline(), process.stdout.readline().split()[-1]
        assert ready.startswith("apns simulator listening on https://127.0.0.1:")
        port, ca_file = int(ready.split()[4].rsplit(":", 1)[1]), ready.split()[6]
        sim = argparse.Namespace(port=port, ca_file=ca_file)
        authorization = f"bearer {provider_token(key=key.read_bytes())}"
        client = connect(sim)
        assert client.ask(authorization=authorization).status == 200
        urllib.request.urlopen(f"{admin}/faults", data=b"410\n").close()
        assert client.ask(authorization=authorization).status == 410
        with urllib.request.urlopen(f"{admin}/counts") as response:
            assert json.load(response)["answers"] == {"200": 1, "410 Unregistered": 1}
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{admin}/faults", data=b"explode")
        summary = json.loads(process.stdout.readline())
        os.kill(process.pid, number)
        assert process.wait(DEADLINE_S) == 0
    written = json.loads(ledger.read_text())
    assert summary.keys() < written.keys()
    assert [(token, status) for _, token, status, _ in written["received"]] == [(DEVICE, 200), (DEVICE, 410)]


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, "--port", "0", "--fault", "explode"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 1
    assert "explode" in done.stderr
