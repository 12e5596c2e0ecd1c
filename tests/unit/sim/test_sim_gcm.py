"""The simulator against a client of this test's own: a TLS socket and ElementTree."""

import base64
import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

import pytest

from lab.processes import ROOT, wait_until
from pusher.sim.certificate import make_ca, make_server_certificate
from pusher.sim.faults import FaultSyntaxError
from pusher.sim.gcm import GcmSimulator
from pusher.sim.gcm_faults import ACTIONS, parse

HEADER = (
    "<stream:stream to='gcm.googleapis.com' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
GCM = "{google:mobile:data}gcm"


class Address(NamedTuple):
    """Where a simulator listens in another process."""

    port: int
    ca_file: str


class Client:
    """As little XMPP as will do."""

    def __init__(self, simulator: GcmSimulator | Address) -> None:
        context = ssl.create_default_context(cafile=simulator.ca_file)
        plain = socket.create_connection(("127.0.0.1", simulator.port), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.new_stream()

    def new_stream(self) -> None:
        self.parser: Any = ElementTree.XMLPullParser(("start", "end"))
        self.stanzas: list[Element] = []
        self.depth = 0
        self.ended = False
        self.send(HEADER)

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def read(self) -> bool:
        data = self.socket.recv(65_536)
        self.parser.feed(data)
        for event, element in self.parser.read_events():
            self.depth += 1 if event == "start" else -1
            if event == "end" and self.depth == 1:
                self.stanzas.append(element)
            self.ended = self.ended or self.depth == 0
        return bool(data)

    def next(self) -> Element:
        while not self.stanzas:
            assert self.read(), "the simulator closed the connection"
        return self.stanzas.pop(0)

    def until_end(self) -> None:
        while self.read():
            pass

    def auth(self, user: str = "123", password: str = "key") -> Element:
        assert self.next().tag.endswith("features")
        secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        return self.next()

    def bind(self) -> Element:
        self.new_stream()
        assert self.next()[0].tag == "{urn:ietf:params:xml:ns:xmpp-bind}bind"
        self.send("<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        return self.next()

    def login(self) -> "Client":
        assert self.auth().tag.endswith("success")
        assert self.bind().get("type") == "result"
        return self

    def push(self, name: str = "m1", to: str = "token", **more: object) -> None:
        payload = escape(json.dumps({"to": to, "message_id": name} | more))
        self.send(f'<message id={quoteattr(name)}><gcm xmlns="google:mobile:data">{payload}</gcm></message>')

    def answer(self) -> dict[str, object]:
        decoded = json.loads(self.next().findtext(GCM) or "")
        assert isinstance(decoded, dict)
        return decoded


@pytest.fixture
def simulator() -> Iterator[GcmSimulator]:
    with GcmSimulator({"123": "key"}) as running:
        yield running
        assert not running.violations


@pytest.fixture
def careless() -> Iterator[GcmSimulator]:
    with GcmSimulator() as running:
        yield running


@pytest.fixture
def client(simulator: GcmSimulator) -> Client:
    return Client(simulator).login()


ACK = {"from": "token", "message_id": "m1", "message_type": "ack"}


def test_ack(simulator: GcmSimulator, client: Client) -> None:
    client.push()
    assert client.answer() == ACK
    assert simulator.arrivals == {"m1": 1}
    assert simulator.ledger.received == [("m1", "token", 200, "")]


def test_logins_are_refused_on_order(simulator: GcmSimulator) -> None:
    simulator.orders()["refuse-logins"](["temporary-auth-failure"])
    failure = Client(simulator).auth()
    assert failure.tag.endswith("failure")
    assert failure[0].tag.endswith("temporary-auth-failure")
    with pytest.raises(ValueError, match="no SASL condition"):
        simulator.orders()["refuse-logins"](["<boom/>"])
    simulator.orders()["refuse-logins"]([])
    client = Client(simulator).login()
    simulator.orders()["cut"]([])
    with contextlib.suppress(ConnectionResetError):
        client.until_end()
    assert (simulator.events["logins"], simulator.events["refused-logins"]) == (1, 1)


def test_a_new_certificate_on_order(tmp_path: Path) -> None:
    with GcmSimulator(tls_dir=str(tmp_path)) as simulator:
        Client(simulator).login()
        make_server_certificate(make_ca("Somebody else")).write(tmp_path, "server")
        simulator.orders()["certificate"]([])
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(simulator)


def test_wrong_password(simulator: GcmSimulator) -> None:
    client = Client(simulator)
    failure = client.auth("123", "wrong")
    assert failure.tag.endswith("failure")
    assert failure[0].tag.endswith("not-authorized")
    client.until_end()
    assert client.ended
    assert simulator.events["refused-logins"] == 1


def test_ping(simulator: GcmSimulator, client: Client) -> None:
    client.send("<iq type='get' id='p7'><ping xmlns='urn:xmpp:ping'/></iq>")
    pong = client.next()
    assert (pong.get("type"), pong.get("id")) == ("result", "p7")
    assert simulator.events["pings"] == 1


def test_bind_can_be_refused(simulator: GcmSimulator) -> None:
    simulator.binds = False
    client = Client(simulator)
    client.auth()
    assert client.bind().get("type") == "error"


@pytest.mark.parametrize(
    "error", ["DEVICE_UNREGISTERED", "BAD_REGISTRATION", "INVALID_JSON", "SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR"]
)
def test_nack(simulator: GcmSimulator, client: Client, error: str) -> None:
    simulator.set_faults([f"prefix=tok:nack {error}"])
    client.push()
    answer = client.answer()
    assert (answer["message_type"], answer["error"], answer["message_id"]) == ("nack", error, "m1")
    client.push("m2", "other")
    assert client.answer()["message_type"] == "ack"
    assert simulator.ledger.received == [("m1", "token", 400, error), ("m2", "other", 200, "")]


def test_once_a_message(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["nack SERVICE_UNAVAILABLE,once"])
    for _ in range(2):
        client.push()
    assert [client.answer()["message_type"] for _ in range(2)] == ["nack", "ack"]
    assert simulator.arrivals["m1"] == 2


def test_silence_keeps_the_message_pending(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["prefix=quiet:silence"])
    client.push("m1", "quiet")
    client.push("m2")
    assert client.answer()["message_id"] == "m2"
    assert simulator.links[0].pending == {"m1"}
    assert simulator.ledger.received[0] == ("m1", "quiet", 0, "silence")


def test_canonical_id(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["ack NEW"])
    client.push()
    assert client.answer() == ACK | {"registration_id": "NEW"}


def test_delayed_answers_come_later(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["prefix=slow:ack,delay=50"])
    client.push("m1", "slow")
    client.push("m2")
    assert [client.answer()["message_id"] for _ in range(2)] == ["m2", "m1"]


def test_window_is_watched(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["silence"])
    for number in range(102):
        client.push(f"m{number}")
    wait_until(lambda: len(simulator.arrivals) == 102)
    assert simulator.max_pending == 102
    assert simulator.events["over-window"] == 2


def test_twice_wrong_id_and_garbage(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["prefix=two:twice", "prefix=stray:wrong-id", "prefix=bad:garbage"])
    client.push("m1", "two")
    assert [client.answer()["message_id"] for _ in range(2)] == ["m1", "m1"]
    client.push("m2", "stray")
    assert {client.answer()["message_id"] for _ in range(2)} == {"m2", "never-sent"}
    client.push("m3", "bad")
    assert client.answer()["message_id"] == "m3"
    with pytest.raises(ValueError, match="Expecting value"):
        client.answer()


def test_receipt_and_upstream_and_their_acknowledgement(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["prefix=r:receipt", "prefix=u:upstream"])
    client.push("m1", "r")
    client.answer()
    receipt = client.next()
    assert receipt.get("type") == "normal"
    content = json.loads(receipt.findtext(GCM) or "")
    assert content["message_type"] == "receipt"
    assert content["data"]["original_message_id"] == "m1"
    client.push("m2", "u")
    client.answer()
    upstream = client.answer()
    assert (upstream["from"], upstream["data"]) == ("u", {"hello": "<&>"})
    for name in (content["message_id"], upstream["message_id"]):
        client.push(str(name), "x", message_type="ack")
    wait_until(lambda: len(simulator.acknowledged) == 2)
    assert simulator.acknowledged == {"dr2:m1": 1, "up:m2": 1}
    assert set(simulator.arrivals) == {"m1", "m2"}


def test_stanza_error(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["stanza-error forbidden"])
    client.push()
    stanza = client.next()
    assert (stanza.get("type"), stanza.get("id")) == ("error", "m1")
    error = stanza.find("{jabber:client}error")
    assert error is not None
    assert error[0].tag == "{urn:ietf:params:xml:ns:xmpp-stanzas}forbidden"
    assert simulator.ledger.received == [("m1", "token", 400, "stanza-error")]


def test_drain(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["drain,times=1"])
    client.push("m1")
    assert client.answer()["message_type"] == "ack"
    assert client.answer() == {"message_type": "control", "control_type": "CONNECTION_DRAINING"}
    client.push("m2")
    assert client.answer()["error"] == "CONNECTION_DRAINING"
    other = Client(simulator).login()
    other.push("m3")
    assert other.answer()["message_type"] == "ack"


def test_drain_with_an_end(simulator: GcmSimulator, client: Client) -> None:
    assert simulator.command("drain,ms=20") == 1
    client.until_end()
    assert client.ended


def test_cut_ends_without_a_word(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["cut"])
    client.push()
    with contextlib.suppress(ConnectionResetError):
        client.until_end()
    assert not client.ended
    assert not client.stanzas
    assert simulator.ledger.received == [("m1", "token", 0, "cut")]
    wait_until(lambda: not simulator.links)


def test_end_closes_the_stream(simulator: GcmSimulator, client: Client) -> None:
    simulator.set_faults(["end,delivered"])
    client.push()
    client.until_end()
    assert client.ended
    assert simulator.ledger.received == [("m1", "token", 200, "")]


def test_broken_xml(simulator: GcmSimulator, client: Client) -> None:
    simulator.command("broken-xml")
    with pytest.raises(ElementTree.ParseError):
        client.until_end()


def test_stream_error(simulator: GcmSimulator, client: Client) -> None:
    simulator.command("stream-error conflict")
    error = client.next()
    assert error.tag == "{http://etherx.jabber.org/streams}error"
    assert error[0].tag == "{urn:ietf:params:xml:ns:xmpp-streams}conflict"


def test_freeze_and_thaw(simulator: GcmSimulator, client: Client) -> None:
    simulator.command("freeze 0.05")
    client.push()
    wait_until(simulator.links[0]._thawed.is_set)
    assert client.answer() == ACK


def test_a_stream_in_single_bytes(simulator: GcmSimulator, client: Client) -> None:
    for byte in '<message id="m1"><gcm xmlns="google:mobile:data">{"to":"token","message_id":"m1"}</gcm></message>':
        client.send(byte)
    assert client.answer() == ACK


def test_entities_are_resolved(simulator: GcmSimulator, client: Client) -> None:
    client.push("a&b", to="<>")
    assert client.answer() == {"from": "<>", "message_id": "a&b", "message_type": "ack"}


def test_too_large_is_refused(simulator: GcmSimulator, client: Client) -> None:
    client.push(data={"x": "y" * 4096})
    assert client.answer()["error"] == "INVALID_JSON"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"to": ""}, "Missing registration token"),
        ({"to": 7}, 'Field "to" must be a JSON String'),
        ({"condition": "'a' in topics"}, "not both"),
        ({"time_to_live": "60"}, 'Field "time_to_live" must be a JSON Number'),
        ({"time_to_live": True}, 'Field "time_to_live" must be a JSON Number'),
        ({"time_to_live": -1}, "InvalidTtl"),
        ({"time_to_live": 2_419_201}, "InvalidTtl"),
        ({"dry_run": "yes"}, 'Field "dry_run" must be a JSON Boolean'),
        ({"data": [1]}, 'Field "data" must be a JSON Object'),
        ({"data": {"from": "x"}}, "InvalidDataKey : from"),
        ({"data": {"message_type": "x"}}, "InvalidDataKey"),
        ({"data": {"gcm.n": "x"}}, "InvalidDataKey"),
        ({"data": {"googled": "x"}}, "InvalidDataKey"),
        ({"data": {"x": "y" * 2_100}, "notification": {"body": "z" * 2_000}}, "MessageTooBig"),
        ({"to": "/topics/news", "data": {"x": "y" * 2_100}}, "MessageTooBig"),
    ],
)
def test_messages_that_google_refuses(
    simulator: GcmSimulator, client: Client, fields: dict[str, object], words: str
) -> None:
    client.push(**fields)  # type: ignore[arg-type]
    answer = client.answer()
    assert (answer["message_type"], answer["error"]) == ("nack", "INVALID_JSON")
    assert words in str(answer["error_description"])


@pytest.mark.parametrize(
    "fields",
    [
        {"to": None, "condition": "'a' in topics"},
        {"time_to_live": 0},
        {"time_to_live": 2_419_200},
        {"data": {"From": "x", "collapse": 1}},
        {"unknown": {"from": "x"}},
        {"data": {"x": "y" * 4_000}, "unknown": "z" * 4_096},
    ],
)
def test_messages_that_google_takes(simulator: GcmSimulator, client: Client, fields: dict[str, object]) -> None:
    client.push(**fields)  # type: ignore[arg-type]
    assert client.answer()["message_type"] == "ack"


def test_a_device_takes_so_many_messages_a_minute(simulator: GcmSimulator, client: Client) -> None:
    simulator.device_rate.per_minute = 2
    errors = []
    for number in range(4):
        client.push(f"m{number}", to="one")
        errors.append(client.answer().get("error"))
    client.push("m4", to="another")
    assert errors == [None, None, "DEVICE_MESSAGE_RATE_EXCEEDED", "DEVICE_MESSAGE_RATE_EXCEEDED"]
    assert client.answer()["message_type"] == "ack"


def test_an_acknowledgement_without_its_receiver_is_refused(simulator: GcmSimulator, client: Client) -> None:
    client.push("up:1", to=None, message_type="ack")  # type: ignore[arg-type]
    assert client.answer()["error"] == "BAD_ACK"
    assert not simulator.acknowledged


def test_messages_before_the_login_end_the_stream(careless: GcmSimulator) -> None:
    client = Client(careless)
    client.push()
    client.until_end()
    assert careless.violations == ["message before the login"]


def test_messages_before_the_resource(careless: GcmSimulator) -> None:
    client = Client(careless)
    client.auth()
    client.new_stream()
    client.push()
    wait_until(lambda: careless.violations == ["message before a resource was bound"])


@pytest.mark.parametrize("payload", ["{", "[]", '{"to":"x"}', "7"])
def test_what_is_not_a_message(careless: GcmSimulator, payload: str) -> None:
    client = Client(careless).login()
    client.send(f"<message id='x'><gcm xmlns='google:mobile:data'>{payload}</gcm></message>")
    assert client.next().get("type") == "error"
    assert careless.violations == ["message without JSON, or without message_id"]


def test_broken_xml_of_the_client(careless: GcmSimulator) -> None:
    client = Client(careless).login()
    client.send("<message></gcm>")
    assert client.next()[0].tag.endswith("not-well-formed")
    assert careless.violations[0].startswith("broken XML")


def test_stanza_id_must_be_the_message_id(careless: GcmSimulator) -> None:
    client = Client(careless).login()
    client.send('<message id=\'x\'><gcm xmlns=\'google:mobile:data\'>{"to":"t","message_id":"y"}</gcm></message>')
    client.answer()
    assert careless.violations == ["stanza id 'x' of message 'y'"]


def test_the_same_port_after_a_restart(simulator: GcmSimulator, client: Client) -> None:
    port = simulator.port
    simulator.stop()
    with pytest.raises(ConnectionRefusedError):
        Client(simulator)
    simulator.start()
    assert simulator.port == port
    Client(simulator).login().push()
    wait_until(lambda: simulator.arrivals == {"m1": 1})


def test_a_client_that_resets_leaves_nothing_behind(simulator: GcmSimulator, client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    wait_until(lambda: not simulator.links)


def test_counts(simulator: GcmSimulator, client: Client) -> None:
    client.push()
    client.answer()
    counts = simulator.counts()
    assert counts["answers"] == {"200": 1}
    assert counts["events"] == {"connections": 1, "logins": 1}
    assert counts["max_pending"] == 1
    assert simulator.report()["received"] == [("m1", "token", 200, "")]


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_read(action: str) -> None:
    fewest, most = ACTIONS[action]
    for number in range(fewest, most + 1):
        words = ["1"] * number
        fault = parse(" ".join(["prefix=ab:", action, *words]) + ":1/3,once,times=4,delay=20,delivered,ms=5")
        assert (fault.prefix, fault.action, fault.arguments, fault.every) == ("ab", action, tuple(words), 3)
        assert (fault.once, fault.times, fault.delay_s, fault.delivered, fault.step_s) == (True, 4, 0.02, True, 0.005)


@pytest.mark.parametrize(
    "line", ["", "jump", "nack", "cut now", "ack:often", "ack,when=1", "freeze long", "ack,times=x", "ack:1/x"]
)
def test_wrong_lines_are_refused(line: str) -> None:
    with pytest.raises(FaultSyntaxError):
        parse(line)


def test_the_command(tmp_path: Path) -> None:
    flags = ["--port", "0", "--tls-dir", str(tmp_path), "--account", "123:key", "--admin-port", "0"]
    flags += ["--fault", "prefix=x:nack BAD_REGISTRATION", "--ledger", str(tmp_path / "ledger.json")]
    program = [sys.executable, "-c", COMMAND, *flags]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        listening, admin = process.stdout.readline(), process.stdout.readline()
        simulator = Address(int(listening.split(":")[1].split()[0]), str(tmp_path / "ca.pem"))
        client = Client(simulator).login()
        client.push("m1", "x")
        assert client.answer()["error"] == "BAD_REGISTRATION"
        with urllib.request.urlopen(admin.split()[-1] + "/counts") as response:
            assert json.load(response)["answers"] == {"400 BAD_REGISTRATION": 1}
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert json.loads((tmp_path / "ledger.json").read_text())["received"] == [["m1", "x", 400, "BAD_REGISTRATION"]]


COMMAND = """
from gevent import monkey
monkey.patch_all()
import argparse, sys
from pusher.sim import gcm
parser = argparse.ArgumentParser()
gcm.add_arguments(parser)
sys.exit(gcm.run(parser.parse_args()))
"""
