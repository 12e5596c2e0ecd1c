"""The simulated FCM, asked by independent clients: h2's client side for pushes, urllib for access tokens."""

import argparse
import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from h2.events import ConnectionTerminated

from lab.apns_client import Client, Reply, client_context, connections, poll
from lab.processes import ROOT
from lab.simulators import simulators
from pusher.sim.certificate import make_ca, make_p8, make_server_certificate
from pusher.sim.faults import FaultSyntaxError
from pusher.sim.fcm import FcmSimulator, add_arguments, from_arguments
from pusher.sim.fcm_oauth import GRANT_TYPE
from pusher.sim.fcm_quota import Quota, Terms
from pusher.sim.fcm_rules import BAD_REQUEST, CODES, FCM_ERROR, QUOTA_FAILURE, USUAL_CODE

PROJECT = "my-project"
SEND = f"/v1/projects/{PROJECT}/messages:send"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
TOKEN = "dFx0-k_A:APA91bG7"

Simulate = Callable[..., FcmSimulator]
Asked = dict[str, Any]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    with simulators(lambda *faults, **options: FcmSimulator(faults, **options)) as start:
        yield start


class Sender:
    """A client with an account and an access token."""

    def __init__(self, sim: Any, account: dict[str, str], client: Client) -> None:
        self.client, self.account = client, account
        self.context = ssl.create_default_context(cafile=sim.ca_file)
        _, answer = self.grant()
        self.token = answer["access_token"]

    def grant(self, form: dict[str, str] | None = None, **claims: Any) -> tuple[int, Asked]:
        """Asks for an access token; claims overwrite the right ones, None leaves one out."""
        if form is None:
            form = {"grant_type": GRANT_TYPE, "assertion": self.assertion(**claims)}
        data = urllib.parse.urlencode(form).encode()
        try:
            with urllib.request.urlopen(self.account["token_uri"], data, context=self.context) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def assertion(self, key: str = "", **claims: Any) -> str:
        now = int(time.time())
        right = {
            "iss": self.account["client_email"],
            "scope": SCOPE,
            "aud": self.account["token_uri"],
            "iat": now,
            "exp": now + 3600,
        }
        kept = {name: value for name, value in (right | claims).items() if value is not None}
        return jwt.encode(kept, key or self.account["private_key"], "RS256")

    def push(self, body: object, path: str = SEND, method: str = "POST", authorization: str | None = "") -> int:
        fields = [
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/json"),
        ]
        if authorization is not None:
            fields.append(("authorization", authorization or f"Bearer {self.token}"))
        return self.client.send(fields, body if isinstance(body, bytes) else json.dumps(body).encode())

    def ask(self, body: object, **how: Any) -> Reply:
        return self.client.reply(self.push(body, **how))

    def message(self, **message: Any) -> Reply:
        return self.ask({"message": {"token": TOKEN, **message}})


Send = Callable[[FcmSimulator], Sender]


@pytest.fixture
def send() -> Iterator[Send]:
    with connections() as connect:

        def open_sender(sim: FcmSimulator) -> Sender:
            any_sim: Any = sim
            return Sender(sim, sim.oauth.new_account(PROJECT), connect(any_sim))

        yield open_sender


def error_of(reply: Reply) -> Asked:
    error: Asked = json.loads(reply.body)["error"]
    assert error["code"] == reply.status
    return error


def code_of(reply: Reply) -> str | None:
    """FCM's own code, where it is told."""
    for detail in error_of(reply).get("details", []):
        if detail["@type"] == FCM_ERROR:
            return str(detail["errorCode"])
    return None


def violations_of(reply: Reply) -> dict[str, str]:
    for detail in error_of(reply).get("details", []):
        if detail["@type"] == BAD_REQUEST:
            return {violation["field"]: violation["description"] for violation in detail["fieldViolations"]}
    return {}


# ---- what is accepted


FULL = {
    "data": {"k": "v", "id": "the-id"},
    "notification": {"title": "T", "body": "B", "image": "https://i"},
    "android": {
        "collapse_key": "c",
        "priority": "high",
        "ttl": "3600s",
        "data": {"k": "v"},
        "direct_boot_ok": True,
        "notification": {
            "title": "T",
            "icon": "i",
            "color": "#aB0123",
            "body_loc_key": "k",
            "body_loc_args": ["a", "b"],
            "notification_count": 3,
            "visibility": "PRIVATE",
            "notification_priority": "PRIORITY_LOW",
            "vibrate_timings": ["1s", "0.5s"],
            "light_settings": {"color": {"red": 1, "green": 0.5}, "light_on_duration": "1s"},
        },
        "fcm_options": {"analytics_label": "l"},
    },
    "apns": {"headers": {"apns-priority": "5"}, "payload": {"aps": {"badge": 1}}, "fcm_options": {"image": "i"}},
    "webpush": {"headers": {"Urgency": "high"}, "notification": {"any": 1}, "fcm_options": {"link": "https://l"}},
    "fcm_options": {"analytics_label": "l"},
    "token": TOKEN,
}


def test_accepts(simulate: Simulate, send: Send) -> None:
    sim = simulate()
    reply = send(sim).ask({"message": FULL})
    assert (reply.status, json.loads(reply.body)) == (200, {"name": f"projects/{PROJECT}/messages/0:the-id"})
    assert sim.received == [("the-id", TOKEN, 200, "")]
    assert sim.ledger.delivered == {"the-id": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"message": {"topic": "news"}},
        {"message": {"condition": "'a' in topics && !('b' in topics)"}},
        {"message": {"token": TOKEN, "fcmOptions": {"analyticsLabel": "l"}, "android": {"collapseKey": "c"}}},
        {"message": {"token": TOKEN, "android": {"priority": "HIGH", "ttl": "0s", "notification": None}}},
        {"message": {"token": TOKEN, "android": {"ttl": "2419200s", "notification": {"notification_count": "7"}}}},
        {"message": {"token": TOKEN, "data": {"k": "x" * 4095}}},
        {"validateOnly": False, "message": {"token": TOKEN}},
    ],
)
def test_accepts_also(simulate: Simulate, send: Send, body: object) -> None:
    assert send(simulate()).ask(body).status == 200


def test_a_dry_run_is_no_delivery(simulate: Simulate, send: Send) -> None:
    sim = simulate()
    assert send(sim).ask({"validate_only": True, "message": {"token": TOKEN}}).status == 200
    assert sim.received[0][1:] == (TOKEN, 200, "validate_only")
    assert sim.ledger.delivered == {}


def test_a_project_has_a_quota_that_is_filled_anew(simulate: Simulate, send: Send) -> None:
    sim = simulate(quota="3/3600,retry-after")
    sender = send(sim)
    assert [sender.message().status for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = sender.message()
    assert code_of(refused) == "QUOTA_EXCEEDED"
    [failure] = [detail for detail in error_of(refused)["details"] if detail["@type"] == QUOTA_FAILURE]
    assert failure["violations"][0]["subject"] == f"project:{PROJECT}"
    assert 3_500 < int(refused.headers[b"retry-after"]) <= 3_600
    assert sim.counts()["quotas"] == {PROJECT: {"windows": [3], "refused": 3}}
    sim.set_quota(["2/3600"])
    assert [sender.message().status for _ in range(3)] == [200, 200, 429]
    assert b"retry-after" not in sender.message().headers
    sim.set_quota([])
    assert sender.message().status == 200


def test_windows_of_a_quota() -> None:
    quota = Quota(Terms.read("2/10"))
    assert [quota.take(now) for now in (100.0, 101.0, 102.0, 109.0)] == [None, None, 8.0, 1.0]
    assert [quota.take(now) for now in (110.0, 135.0, 136.0, 139.5)] == [None, None, None, 0.5]
    assert quota.counts() == {"windows": [2, 1, 0, 2], "refused": 3}


@pytest.mark.parametrize("text", ["", "5", "5/", "/5", "x/5", "5/0", "-1/5", "5/5,", "5/5,soon"])
def test_a_quota_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Terms.read(text)


def test_the_same_body_has_the_same_id(simulate: Simulate, send: Send) -> None:
    sim = simulate(id_key="pushId")
    sender = send(sim)
    for data in ({"id": "same"}, {"id": "same"}, {"id": "other"}, {"pushId": "given"}):
        assert sender.message(data=data).status == 200
    first, second, third, fourth = (received.request_id for received in sim.received)
    assert first == second != third
    assert fourth == "given"
    assert (sim.counts()["delivered"], sim.counts()["duplicates"]) == (3, 1)


# ---- what is refused


@pytest.mark.parametrize(
    ("message", "violations"),
    [
        ({"data": {"a": "x", "b": 12}}, {"message.data[1].value": "(TYPE_STRING), 12"}),
        ({"data": {"a": None}}, {"message.data[0].value": "(TYPE_STRING), null"}),
        ({"data": []}, {"message.data": "(map), []"}),
        ({"colour": 1}, {"message": "Unknown name \"colour\" at 'message': Cannot find field."}),
        ({"notification": "x"}, {"message.notification": '.Notification), "x"'}),
        ({"notification": {"title": 5}}, {"message.notification.title": "(TYPE_STRING), 5"}),
        ({"android": {"ttl": 3600}}, {"message.android.ttl": ".Duration), 3600"}),
        ({"android": {"ttl": "3600"}}, {"message.android.ttl": '.Duration), "3600"'}),
        ({"android": {"priority": "urgent"}}, {"message.android.priority": 'AndroidMessagePriority), "urgent"'}),
        ({"android": {"direct_boot_ok": "yes"}}, {"message.android.direct_boot_ok": '(TYPE_BOOL), "yes"'}),
        (
            {"android": {"notification": {"body_loc_args": "a", "title_loc_args": ["a", 1]}}},
            {
                "message.android.notification.body_loc_args": '(TYPE_STRING), "a"',
                "message.android.notification.title_loc_args[1]": "(TYPE_STRING), 1",
            },
        ),
        (
            {"android": {"notification": {"notification_count": 2**31}}},
            {"message.android.notification.notification_count": "(TYPE_INT32), 2147483648"},
        ),
        (
            {"android": {"notification": {"notification_count": 1.5, "light_settings": {"color": {"red": "r"}}}}},
            {
                "message.android.notification.notification_count": "(TYPE_INT32), 1.5",
                "message.android.notification.light_settings.color.red": '(TYPE_FLOAT), "r"',
            },
        ),
        ({"apns": {"payload": []}}, {"message.apns.payload": ".Struct), []"}),
        ({"topic": "t"}, {"message": "oneof field 'target' is already set. Cannot set 'topic'"}),
    ],
)
def test_wrong_types(simulate: Simulate, send: Send, message: Asked, violations: dict[str, str]) -> None:
    sim = simulate()
    reply = send(sim).message(**message)
    assert error_of(reply)["status"] == "INVALID_ARGUMENT"
    assert code_of(reply) is None
    found = violations_of(reply)
    assert found.keys() == violations.keys()
    assert all(found[field].endswith(words) for field, words in violations.items())
    assert sim.received[0][2:] == (400, "INVALID_ARGUMENT")
    assert sim.ledger.delivered == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"7"])
def test_bodies_that_are_no_request(simulate: Simulate, send: Send, body: bytes) -> None:
    error = error_of(send(simulate()).ask(body))
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert "details" not in error


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, ""),
        ({"token": "not a token"}, ""),
        ({"token": ""}, ""),
        ({"topic": "a b"}, "message.topic"),
        ({"topic": "t", "data": {"k": "x" * 2048}}, "message"),
        ({"condition": "a || b"}, "message.condition"),
        ({"condition": " || ".join(f"'{name}' in topics" for name in "abcdef")}, "message.condition"),
        ({"token": TOKEN, "data": {"from": "x"}}, "message.data"),
        ({"token": TOKEN, "data": {"google.x": "x"}}, "message.data"),
        ({"token": TOKEN, "data": {"gcm_x": "x"}}, "message.data"),
        ({"token": TOKEN, "data": {"message_type": "x"}}, "message.data"),
        ({"token": TOKEN, "data": {"collapse_key": "x"}}, "message.data"),
        ({"token": TOKEN, "data": {"k": "x" * 4000}, "notification": {"title": "x" * 96}}, "message"),
        ({"token": TOKEN, "android": {"ttl": "2419201s"}}, "message.android.ttl"),
        ({"token": TOKEN, "android": {"ttl": "-1s"}}, "message.android.ttl"),
        ({"token": TOKEN, "android": {"notification": {"color": "red"}}}, "message.android.notification.color"),
        (
            {"token": TOKEN, "data": {"k": "v"}, "apns": {"headers": {"apns-priority": "10"}}},
            "message.apns.headers",
        ),
        (
            {"token": TOKEN, "apns": {"headers": {"Apns-Priority": "10"}, "payload": {"aps": {"category": "c"}}}},
            "message.apns.headers",
        ),
        (
            {"token": TOKEN, "android": {"notification": {"notification_count": -1}}},
            "message.android.notification.notification_count",
        ),
    ],
)
def test_requests_without_sense(simulate: Simulate, send: Send, message: Asked, field: str) -> None:
    reply = send(simulate()).ask({"message": message})
    assert (reply.status, code_of(reply)) == (400, "INVALID_ARGUMENT")
    assert list(violations_of(reply)) == ([field] if field else [])


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"path": "/v1/projects/my-project/messages"}, 404),
        ({"path": "/v1/projects//messages:send"}, 404),
        ({"path": SEND + "?x=y"}, 404),
        ({"method": "PUT"}, 404),
    ],
)
def test_other_addresses_are_not_found_in_html(
    simulate: Simulate, send: Send, how: dict[str, str], status: int
) -> None:
    reply = send(simulate()).ask({"message": {"token": TOKEN}}, **how)
    assert reply.status == status
    assert reply.headers[b"content-type"].startswith(b"text/html")


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic abc", "key=legacy"])
def test_access_tokens_are_needed(simulate: Simulate, send: Send, authorization: str | None) -> None:
    reply = send(simulate()).ask({"message": {"token": TOKEN}}, authorization=authorization)
    assert (reply.status, error_of(reply)["status"], code_of(reply)) == (401, "UNAUTHENTICATED", None)


def test_an_access_token_ends_and_is_for_one_project(simulate: Simulate, send: Send) -> None:
    clock = time.time()
    sim = simulate(now=lambda: clock)
    sender = send(sim)
    other = sender.ask({"message": {"token": TOKEN}}, path=SEND.replace(PROJECT, "other"))
    assert (other.status, error_of(other)["status"], code_of(other)) == (403, "PERMISSION_DENIED", None)
    clock += 3598
    assert sender.message().status == 200
    clock += 2
    assert sender.message().status == 401


@pytest.mark.parametrize("deed", ["revoke", "remove"])
def test_access_tokens_are_revoked(simulate: Simulate, send: Send, deed: str) -> None:
    sim = simulate()
    sender = send(sim)
    if deed == "revoke":
        sim.orders()["revoke"]([])
    else:
        sim.oauth.remove_account(sender.account["client_email"])
    assert sender.message().status == 401
    assert sender.grant()[0] == (200 if deed == "revoke" else 400)


# ---- the token endpoint


def test_orders(simulate: Simulate, send: Send, tmp_path: Path) -> None:
    sim = simulate(tls_dir=str(tmp_path))
    sender = send(sim)
    sim.orders()["oauth-faults"](["503,body={}"])
    assert sender.grant()[0] == 503
    sim.orders()["oauth-faults"]([])
    assert sender.grant()[0] == 200
    make_server_certificate(make_ca("Somebody else")).write(tmp_path, "server")
    sim.orders()["certificate"]([])
    newcomer: Any = sim
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(newcomer, client_context(sim.ca_file))
    poll(lambda: sim.server.counts["tls_failures"])
    sim.server.protocol_errors.clear()
    sim.orders()["cut"]([])
    while sender.client.read():
        pass


def test_grants(simulate: Simulate, send: Send) -> None:
    sender = send(simulate(token_lifetime_s=7))
    status, answer = sender.grant()
    assert status == 200
    assert answer.pop("access_token") != sender.token
    assert answer == {"expires_in": 7, "token_type": "Bearer"}


@pytest.mark.parametrize(
    ("claims", "error", "words"),
    [
        ({"iss": "nobody@x"}, "invalid_grant", "account not found"),
        ({"iss": None}, "invalid_grant", "account not found"),
        ({"aud": "https://other/token"}, "invalid_grant", "audience"),
        ({"aud": None}, "invalid_grant", "aud"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope", "scope"),
        ({"scope": None}, "invalid_scope", "scope"),
        ({"exp": None}, "invalid_grant", "exp"),
        ({"iat": None}, "invalid_grant", "iat"),
        ({"exp": int(time.time()) + 9000}, "invalid_grant", "short-lived"),
        ({"iat": 1000, "exp": 2000}, "invalid_grant", "timeframe"),
        ({"iat": 2**33, "exp": 2**33 + 60}, "invalid_grant", "timeframe"),
    ],
)
def test_assertions_that_are_refused(simulate: Simulate, send: Send, claims: Asked, error: str, words: str) -> None:
    status, answer = send(simulate()).grant(**claims)
    assert (status, answer["error"]) == (400, error)
    assert words in answer["error_description"]


def test_signatures_are_verified(simulate: Simulate, send: Send) -> None:
    sim = simulate()
    sender = send(sim)
    other = sim.oauth.new_account("other")
    assert sender.grant(key=other["private_key"])[1]["error_description"] == "Invalid JWT Signature."
    unsigned = jwt.encode({"iss": sender.account["client_email"]}, "", "none")
    assert sender.grant({"grant_type": GRANT_TYPE, "assertion": unsigned})[1]["error"] == "invalid_grant"


def test_forms_that_are_refused(simulate: Simulate, send: Send) -> None:
    sender = send(simulate())
    assert sender.grant({"grant_type": "password"})[1]["error"] == "unsupported_grant_type"
    assert sender.grant({"grant_type": GRANT_TYPE})[1]["error"] == "invalid_grant"
    assert sender.grant({})[0] == 400


def test_faults_of_the_token_endpoint(simulate: Simulate, send: Send) -> None:
    sim = simulate()
    sender = send(sim)
    sim.oauth.set_faults(["503 unavailable,times=1,retry-after=3", "ok,delay=1"])
    assert sender.grant() == (503, {"error": "unavailable", "error_description": "as the script has it"})
    assert sender.grant()[0] == 200
    with pytest.raises(FaultSyntaxError, match="status, ok and silence only"):
        sim.oauth.set_faults(["goaway"])


def test_an_account_that_lacks_something_or_has_another_key() -> None:
    with FcmSimulator() as sim:
        with pytest.raises(ValueError, match="client_email, project_id"):
            sim.oauth.add_account({"private_key": "x"})
        with pytest.raises(ValueError, match="RSA"):
            sim.oauth.add_account({"private_key": make_p8().decode(), "client_email": "e", "project_id": "p"})


# ---- faults


@pytest.mark.parametrize("code", CODES)
def test_each_error(simulate: Simulate, send: Send, code: str) -> None:
    status = CODES[code].status
    sim = simulate(f"{status} {code}")
    reply = send(sim).message()
    assert (reply.status, error_of(reply)["status"]) == (status, CODES[code].rpc_status)
    assert code_of(reply) == (code if CODES[code].detailed else None)
    assert sim.received[0][2:] == (status, code)


@pytest.mark.parametrize(("status", "code"), USUAL_CODE.items())
def test_usual_errors(simulate: Simulate, send: Send, status: int, code: str) -> None:
    reply = send(simulate(str(status))).message()
    assert (reply.status, error_of(reply)["message"]) == (status, CODES[code].message)


def test_an_error_that_is_not_in_the_table(simulate: Simulate, send: Send) -> None:
    reply = send(simulate("418 TEAPOT")).message()
    assert (reply.status, code_of(reply), error_of(reply)["status"]) == (418, "TEAPOT", "UNKNOWN")


def test_retry_after_and_a_page_of_html(simulate: Simulate, send: Send) -> None:
    sim = simulate("prefix=a:429,retry-after=7", "prefix=b:502", "prefix=c:500,body=<p>oops")
    sender = send(sim)
    throttled, gateway, page = (sender.message(token=token) for token in ("a1", "b1", "c1"))
    assert throttled.headers[b"retry-after"] == b"7"
    assert code_of(throttled) == "QUOTA_EXCEEDED"
    assert gateway.headers[b"content-type"] == b"text/html"
    assert gateway.body == b"<html><h1>502</h1></html>"
    assert (page.status, page.body) == (500, b"<p>oops")
    assert sim.counts()["answers"] == {"429 QUOTA_EXCEEDED": 1, "502": 1, "500 INTERNAL": 1}


def test_once_lets_a_retry_pass(simulate: Simulate, send: Send) -> None:
    sim = simulate("503,once")
    sender = send(sim)
    assert [sender.message(data={"n": n}).status for n in "1122"] == [503, 200, 503, 200]
    assert sim.counts()["delivered"] == 2


def test_silence_reset_and_goaway(simulate: Simulate, send: Send) -> None:
    sim = simulate("prefix=s:silence", "prefix=r:reset", "prefix=g:goaway,unprocessed")
    sender = send(sim)
    silent = sender.push({"message": {"token": "s1"}})
    assert sender.message(token="r1").reset == 2
    answered = sender.message(token="ok")
    assert answered.status == 200
    sender.push({"message": {"token": "g1"}})
    sender.client.receive(lambda: sender.client.seen(ConnectionTerminated))
    assert not sender.client.replies[silent].ended
    assert [received[1:] for received in sim.received] == [
        ("s1", 0, "silence"),
        ("r1", 0, "reset"),
        ("ok", 200, ""),
        ("g1", 0, "goaway"),
    ]


def test_the_rules_come_before_the_faults(simulate: Simulate, send: Send) -> None:
    sim = simulate("503")
    assert send(sim).message(data={"k": 1}).status == 400


def test_latency(simulate: Simulate, send: Send) -> None:
    sim = simulate(latency_ms=10)
    assert send(sim).message().status == 200


def test_it_comes_back_on_the_same_ports_and_knows_its_accounts(simulate: Simulate, send: Send) -> None:
    sim = simulate()
    sender = send(sim)
    ports = (sim.port, sim.oauth.port)
    sim.stop()
    with pytest.raises(OSError, match="refused"):
        sender.grant()
    sim.start()
    assert (sim.port, sim.oauth.port) == ports
    assert sender.grant()[0] == 200


def test_a_client_without_trust_is_counted(simulate: Simulate, send: Send) -> None:
    sim = simulate()
    account = sim.oauth.new_account("p")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(account["token_uri"])
    poll(lambda: sim.counts()["oauth"] == {"tls_failures": 1})


def test_other_addresses_of_the_token_endpoint_and_the_end_of_the_files() -> None:
    with FcmSimulator() as sim:
        address = sim.oauth.token_uri.replace("/token", "/other")
        context = ssl.create_default_context(cafile=sim.ca_file)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address, b"", context=context)
    assert not Path(sim.ca_file).exists()


# ---- command


def test_arguments(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    known = tmp_path / "known.json"
    with FcmSimulator() as sim:
        account = sim.oauth.new_account("known")
    known.write_text(json.dumps(account))
    written = tmp_path / "new.json"
    line = f"--port 0 --oauth-port 0 --tls-dir {tmp_path} --credentials {known} --write-credentials {written}"
    line += " --project p2 --token-lifetime 9 --max-streams 7 --latency-ms 3 --fault 429 --oauth-fault 503"
    line += " --seed 4 --id-key n --ledger-limit 5 --name sim.example"
    with from_arguments(parser.parse_args(line.split())) as sim:
        assert (sim.server.max_streams, sim.ledger.limit, sim.latency_s) == (7, 5, 0.003)
        assert [fault.action for fault in sim.faults.script] == ["429"]
        new = json.loads(written.read_text())
        assert written.stat().st_mode & 0o777 == 0o600
        assert (new["project_id"], new["token_uri"]) == ("p2", sim.oauth.token_uri)
        assert set(sim.oauth._accounts) == {account["client_email"], new["client_email"]}
        assert sim.oauth.token_lifetime_s == 9
        sim.stop()
        sim.start()
        assert json.loads(written.read_text()) == new
    assert "retry-after=S" in parser.format_help()


COMMAND = """
from gevent import monkey; monkey.patch_all()
import argparse, sys
from pusher.sim.fcm import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


def test_the_command(tmp_path: Path) -> None:
    ledger, key = tmp_path / "ledger.json", tmp_path / "key.json"
    flags = ["--port", "0", "--oauth-port", "0", "--tls-dir", str(tmp_path), "--ledger", str(ledger)]
    flags += ["--write-credentials", str(key), "--project", PROJECT]
    command = [sys.executable, "-c", COMMAND, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("fcm simulator listening on https://127.0.0.1:")
        port, ca_file = int(ready.split()[4].rsplit(":", 1)[1]), ready.split()[6]
        sim: Any = argparse.Namespace(port=port, ca_file=ca_file)
        client = Client(sim, client_context(ca_file))
        sender = Sender(sim, json.loads(key.read_text()), client)
        assert sender.message().status == 200
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert json.loads(ledger.read_text())["received"][0][1:] == [TOKEN, 200, ""]


def test_the_command_with_a_wrong_fault() -> None:
    command = [sys.executable, "-c", COMMAND, "--port", "0", "--oauth-port", "0", "--fault", "explode"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "explode" in done.stderr
