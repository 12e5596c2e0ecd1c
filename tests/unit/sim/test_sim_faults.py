"""Every fault of the script, played by the simulated APNs to an independent client."""

import json
import time
import uuid
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated
from h2.settings import SettingCodes

from lab.apns_client import Connect, Reply, Simulate, announced, apns_simulator, connections, poll, provider_token
from lab.simulators import simulators
from pusher.sim.apns_rules import AppleRules
from pusher.sim.faults import Faults, FaultSyntaxError, parse


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    with simulators(apns_simulator) as start:
        yield start


@pytest.fixture
def connect() -> Iterator[Connect]:
    with connections() as open_client:
        yield open_client


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
    sim = simulate(AppleRules(), fault)
    reply = connect(sim).ask()
    assert (reply.status, reply.reason) == (status, reason)
    assert b"retry-after" not in reply.headers
    assert sim.ledger.faults == {fault: 1}
    assert sim.ledger.answers == {f"{status} {reason}": 1}


def test_retry_after(simulate: Simulate, connect: Connect) -> None:
    assert connect(simulate(AppleRules(), "503,retry-after=2")).ask().headers[b"retry-after"] == b"2"


def test_410_says_since_when(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(
        AppleRules(), "prefix=aa:410 ExpiredToken,timestamp=1700000000123", "prefix=bb:410", now=lambda: 1.8e9
    )
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
    reply = connect(simulate(AppleRules(), fault)).ask()
    assert (reply.status, reply.body, reply.headers[b"content-type"]) == (status, body, b"text/html")


def test_a_refusal_goes_before_a_fault(simulate: Simulate, connect: Connect) -> None:
    assert connect(simulate(AppleRules(), "503,trailers")).ask(b"").reason == "PayloadEmpty"


def test_silence_and_reset(simulate: Simulate, connect: Connect) -> None:
    script = ["prefix=aa:silence", "prefix=bb:reset", "prefix=cc:reset REFUSED_STREAM", "prefix=dd:reset 8,delivered"]
    sim = simulate(AppleRules(), *script)
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
    sim = simulate(AppleRules(), "prefix=aa:ok,delay=50")
    client = connect(sim)
    client.h2.reset_stream(client.push(path="/3/device/aa"), ErrorCodes.CANCEL)
    client.flush()
    assert client.ask().status == 200
    assert sim.server.counts["resets_by_client"] == 1


def test_goaway_in_one_step(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "prefix=aa:goaway Shutdown"))
    assert client.ask().status == 200
    stream = client.push(path="/3/device/aa")
    assert client.at_end()
    assert client.replies[stream].status == 200
    (goaway,) = client.seen(ConnectionTerminated)
    assert (goaway.last_stream_id, goaway.error_code) == (stream, ErrorCodes.NO_ERROR)
    assert json.loads(goaway.additional_data) == {"reason": "Shutdown"}


def test_goaway_that_leaves_streams_out(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(AppleRules(), "prefix=aa:goaway,unprocessed,code=ENHANCE_YOUR_CALM")
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
    client = connect(
        simulate(AppleRules(), "prefix=aa:drain Shutdown,ms=100", "prefix=bb:silence", "prefix=cc:drain,ms=500")
    )
    assert client.ask().status == 200
    silent = client.push(path="/3/device/bb")
    assert client.ask(path="/3/device/aa").status == 200
    (warning,) = client.seen(ConnectionTerminated)
    assert warning.last_stream_id == 2**31 - 1
    assert client.ask(path="/3/device/cc").status == 200
    client.receive(lambda: len(client.seen(ConnectionTerminated)) == 3)
    late = client.push()
    client.receive(lambda: len(client.seen(ConnectionTerminated)) == 4)
    client.h2.reset_stream(silent, ErrorCodes.CANCEL)
    client.flush()
    assert client.at_end()
    assert client.replies[late] == Reply()
    assert [event.last_stream_id for event in client.seen(ConnectionTerminated)] == [2**31 - 1] * 2 + [7] * 2


def test_every_third_request(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "503:1/3"))
    assert [client.ask().status for _ in range(6)] == [200, 200, 503, 200, 200, 503]


@pytest.mark.parametrize("fault", ["cut", "cut,fin", "cut,delay=20"])
def test_cut(simulate: Simulate, connect: Connect, fault: str) -> None:
    sim = simulate(AppleRules(), fault)
    client = connect(sim)
    stream = client.push()
    assert client.at_end()
    assert client.replies[stream] == Reply()
    assert sim.received[0][2:] == (0, "cut")
    client.close()
    poll(lambda: not sim.server.links)


def test_a_late_fault_on_a_link_that_is_gone(simulate: Simulate, connect: Connect) -> None:
    sim = simulate(AppleRules(), "prefix=aa:cut,delay=30", "prefix=bb:drain,ms=30", "prefix=cc:ok,delay=60")
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
    client = connect(simulate(AppleRules(), "prefix=aa:freeze 0.3"))
    assert client.ask().status == 200
    begun = time.monotonic()
    frozen, behind = client.push(path="/3/device/aa"), client.push()
    assert client.reply(frozen).status == 200
    assert time.monotonic() - begun >= 0.3
    assert client.reply(behind).status == 200


@pytest.mark.parametrize("octets", [1, 5, 12])
def test_cut_in_the_middle_of_a_frame(simulate: Simulate, connect: Connect, octets: int) -> None:
    sim = simulate(AppleRules(), f"prefix=aa:cut,octets={octets}")
    client = connect(sim)
    assert client.ask().status == 200
    received = len(client.raw)
    client.push(path="/3/device/aa")
    while client.read():
        pass
    assert 0 < len(client.raw) - received <= octets
    assert sim.received[1][2:] == (0, "cut")


def test_freeze_in_the_middle_of_a_frame(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "prefix=aa:freeze 0.3,octets=5", "prefix=bb:ok,delay=50"))
    assert client.ask().status == 200
    begun = time.monotonic()
    behind, frozen = client.push(path="/3/device/bb"), client.push(path="/3/device/aa")
    client.receive(lambda: 0 < len(client.partial) < 9)
    assert not client.replies[frozen].ended
    assert client.reply(frozen).status == 200
    assert time.monotonic() - begun >= 0.3
    assert client.reply(behind).status == 200


def test_delay_lets_others_pass(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "prefix=aa:ok,delay=200"))
    assert client.ask().status == 200
    late, prompt = client.push(path="/3/device/aa"), client.push()
    assert client.reply(prompt).status == 200
    assert client.replies[late] == Reply()
    assert client.reply(late).status == 200


def test_shapes(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "410,continuation=3,padding=9,interim=103,trailers"))
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
    client = connect(simulate(AppleRules(), fault))
    assert [client.ask().status for _ in range(3)] == [200, 200, 200]


def test_settings_change_and_come_back(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "settings MAX_CONCURRENT_STREAMS 3,ms=50", max_streams=40))
    assert [client.ask().status for _ in range(2)] == [200, 200]
    client.receive(lambda: announced(client, SettingCodes.MAX_CONCURRENT_STREAMS) == [1, 40, 3, 3, 40, 40])


def test_once_an_id_and_times(simulate: Simulate, connect: Connect) -> None:
    client = connect(simulate(AppleRules(), "prefix=aa:429,once", "prefix=bb:429,times=1"))
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
