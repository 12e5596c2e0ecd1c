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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.settings import SettingCodes

from lab.apns_client import (
    DEADLINE_S,
    DEVICE,
    KEY,
    PAYLOAD,
    TOKEN,
    Connect,
    Reply,
    Simulate,
    announced,
    apns_simulator,
    client_context,
    connections,
    poll,
    provider_token,
)
from lab.processes import ROOT
from lab.simulators import simulators
from pusher.sim.apns import add_arguments, from_arguments
from pusher.sim.apns_rules import STATUS, AppleRules
from pusher.sim.certificate import (
    load_verification_key,
    make_ca,
    make_client_certificate,
    make_p8,
    make_server_certificate,
    tls_files,
)

SILENT = b'{"aps":{"content-available":1,"alert":null}}'
MDM_COMMAND = b'{"mdm":"magic"}'
BACKGROUND: dict[str, str | None] = {"apns_push_type": "background", "apns_priority": "5"}
ACTIVITY: dict[str, str | None] = {
    "apns_push_type": "liveactivity",
    "apns_topic": "com.example.app.push-type.liveactivity",
}
MANAGED: dict[str, str | None] = {"apns_push_type": "mdm", "apns_topic": "com.apple.mgmt.External.x"}


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    with simulators(apns_simulator) as start:
        yield start


@pytest.fixture
def connect() -> Iterator[Connect]:
    with connections() as open_client:
        yield open_client


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
        # PyAPNs2#87, apnotic#87, apns2#23: the type is not that of the topic
        ("InvalidPushType", PAYLOAD, {"apns_push_type": "alert", "apns_topic": "com.example.app.voip"}),
        ("InvalidPushType", PAYLOAD, {"apns_push_type": "alert", "apns_topic": "com.example.app.complication"}),
        ("InvalidPushType", SILENT, {**BACKGROUND, "apns_topic": "com.example.app.pushkit.fileprovider"}),
        ("InvalidPushType", PAYLOAD, {"apns_push_type": "alert", "apns_topic": "com.apple.mgmt.External.x"}),
        ("InvalidPushType", MDM_COMMAND, {"apns_push_type": "mdm", "apns_topic": "com.example.app"}),
        # Apple, "Sending notification requests to APNs": the type reflects the payload
        ("InvalidPushType", PAYLOAD, BACKGROUND),
        ("InvalidPushType", b'{"aps":{"content-available":1,"badge":0}}', BACKGROUND),
        ("InvalidPushType", b'{"aps":{"content-available":0}}', BACKGROUND),
        ("InvalidPushType", b"[]", BACKGROUND),
        ("InvalidPushType", PAYLOAD, ACTIVITY),
        # java-apns#88: a command for managed devices stands alone
        ("InvalidPushType", MDM_COMMAND, {"apns_push_type": "alert"}),
        ("InvalidPushType", PAYLOAD, MANAGED),
        ("InvalidPushType", b'{"mdm":"magic","M":{"jobId":1}}', MANAGED),
        ("InvalidPushType", b'{"mdm":{}}', MANAGED),
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
        (SILENT, BACKGROUND),
        (b'{"aps":{"content-available":true}}', BACKGROUND),
        (b'{"aps":{"event":"end"}}', ACTIVITY),
        (MDM_COMMAND, {**MANAGED, "apns_topic": "com.apple.mgmt.External.x"}),
        (PAYLOAD, {"apns_topic": "com.example.app.voip"}),
        (PAYLOAD, {"apns_priority": "1", "apns_expiration": "0", "apns_collapse_id": "c" * 64}),
        (b'{"aps":{"content-state":{}}}', ACTIVITY),
    ],
)
def test_accepts_at_the_limits(
    simulate: Simulate, connect: Connect, body: bytes, headers: dict[str, str | None]
) -> None:
    sim = simulate(AppleRules(topics=frozenset(["com.example.app", "com.apple.mgmt.External.x"])))
    assert connect(sim).ask(body, **headers).status == 200


def test_refuses_a_header_given_twice(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate())
    fields = [(":method", "POST"), (":scheme", "https"), (":path", f"/3/device/{DEVICE}"), (":authority", "localhost")]
    fields += [("authorization", f"bearer {TOKEN}"), ("apns-topic", "com.example"), ("apns-topic", "com.example")]
    assert client.reply(client.send(fields, PAYLOAD)).reason == "DuplicateHeaders"


def test_knows_its_topics(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(topics=frozenset(["com.example.app"]))))
    assert client.ask().status == 200
    assert client.ask(apns_topic="com.example.other").reason == "TopicDisallowed"
    assert client.ask(apns_topic="com.example.app.voip", apns_push_type="voip").status == 200
    assert client.ask(apns_topic="com.example.x.voip", apns_push_type="voip").reason == "TopicDisallowed"


def test_options_of_tokens_and_push_types(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(any_token=True, require_push_type=True)))
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
    rules = AppleRules(
        key_ids=frozenset(["KEY"]), team_ids=frozenset(["TEAM"]), verification_key=load_verification_key(KEY)
    )
    client = connect(simulate(rules))
    assert client.ask(authorization=f"bearer {token}").reason == "InvalidProviderToken"
    assert client.ask().status == 200


@pytest.mark.parametrize(
    "token",
    [provider_token(key_id=None), jwt.encode({"iss": "TEAM", "iat": 1}, "s" * 32, "HS256", headers={"kid": "K"})],
)
def test_form_of_a_token_counts_without_a_key(simulate: Simulate, connect: Connect, token: str) -> None:
    assert connect(simulate()).ask(authorization=f"bearer {token}").reason == "InvalidProviderToken"


def test_expired_provider_token_spoils_the_connection(simulate: Simulate, connect: Connect) -> None:
    sim = simulate()
    old = provider_token(time.time() - 3601)
    client = connect(sim)
    reply = client.ask(authorization=f"bearer {old}")
    assert (reply.status, reply.reason) == (403, "ExpiredProviderToken")
    assert client.ask().reason == "ExpiredProviderToken"
    assert connect(sim).ask().status == 200


def test_tokens_expire_on_order(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(now=lambda: 1.8e9)
    old, new = (f"bearer {provider_token(issued_at)}" for issued_at in (1.8e9 - 1, 1.8e9))
    assert connect(sim).ask(authorization=old).status == 200
    sim.orders()["expire-tokens"]([])
    assert connect(sim).ask(authorization=old).reason == "ExpiredProviderToken"
    assert connect(sim).ask(authorization=new).status == 200
    assert sim.counts()["provider_tokens"] == 2


def test_a_new_certificate_and_a_cut_on_order(simulate: Simulate, connect: Connect, tmp_path: Path) -> None:
    sim = simulate(tls_dir=str(tmp_path))
    client = connect(sim)
    assert client.ask().status == 200
    make_server_certificate(make_ca("Somebody else")).write(tmp_path, "server")
    sim.orders()["certificate"]([])
    assert client.ask().status == 200
    sim.orders()["cut"]([])
    assert not client.read()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(sim)
    poll(lambda: sim.server.counts["tls_failures"])
    sim.server.protocol_errors.clear()


def test_without_wedge_a_new_token_heals(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(wedge=False, token_lifetime_s=100)))
    assert client.ask(authorization=f"bearer {provider_token(time.time() - 110)}").reason == "ExpiredProviderToken"
    assert client.ask(authorization=f"bearer {provider_token()}").status == 200


def test_one_team_a_connection(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(renewal_scope="off")))
    assert client.ask().status == 200
    assert client.ask(authorization=f"bearer {provider_token(team='OTHER')}").reason == "InvalidProviderToken"


@pytest.mark.parametrize("scope", ["connection", "team"])
def test_limits_token_renewals(simulate: Simulate, connect: Connect, scope: Any) -> None:
    clock = [time.time()]
    sim = simulate(AppleRules(renewal_scope=scope), now=lambda: clock[0])
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
    client = connect(simulate(AppleRules(renewal_scope="off")))
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


def test_one_stream_until_the_first_valid_request(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(max_streams=50))
    assert client.ask(authorization=None).status == 403
    assert announced(client, SettingCodes.MAX_CONCURRENT_STREAMS) == [1]
    assert client.ask().status == 200
    client.receive(lambda: announced(client, SettingCodes.MAX_CONCURRENT_STREAMS) == [1, 50])


def test_streams_above_the_limit_are_refused(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(AppleRules(), "silence", max_streams=2, first_stream_alone=False)
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
    client = connect(simulate(AppleRules(), "410"))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 7})
    client.flush()
    assert client.ask().reason == "Unregistered"
    assert max(len(event.data) for event in client.seen(DataReceived)) == 7


def test_error_bodies_wait_for_the_clients_settings(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "410"))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    stream = client.push()
    client.receive(lambda: client.replies[stream].status == 410)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    client.flush()
    assert client.reply(stream).reason == "Unregistered"


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
    client = connect(simulate(AppleRules(), latency_ms=50))
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
    root = ROOT
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
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{admin}/explode", data=b"")
        summary = json.loads(process.stdout.readline())
        os.kill(process.pid, number)
        assert process.wait(DEADLINE_S) == 0
    written = json.loads(ledger.read_text())
    assert summary.keys() < written.keys()
    assert [(token, status) for _, token, status, _ in written["received"]] == [(DEVICE, 200), (DEVICE, 410)]


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, "--port", "0", "--fault", "explode"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "explode" in done.stderr
