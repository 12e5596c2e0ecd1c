import contextlib
import errno
import gc
import itertools
import os
import re
import socket as socket_module
import ssl
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import orjson
import pytest

from lab.endless_xmpp import FLOODS, stanza
from lab.processes import wait_until
from lab.scripted_xmpp import Scripted, say
from pusher.providers.budget import Budget
from pusher.providers.google.xmpp.engine import MAX_STANZA_BYTES, Engine, Inflow, iterparse, message_stanza
from pusher.providers.google.xmpp.link import (
    MAX_QUEUED_BYTES,
    MAX_UNWRITTEN_BYTES,
    AuthError,
    CertificateError,
    ClosedError,
    Link,
    LinkError,
    LinkSettings,
)
from pusher.providers.tls import TlsTrust
from pusher.sim.certificate import make_ca, make_server_certificate
from pusher.sim.gcm import GcmSimulator
from tests.faults.altered import HostsFile
from tests.faults.surroundings import MUTE, mute

Json = dict[str, Any]


class Owner:
    """Makes links to a simulator and keeps what they report."""

    def __init__(self, port: int, ca_file: str) -> None:
        self.port, self.ca_file = port, ca_file
        self.messages: list[Json] = []
        self.errors: list[tuple[str, str, str]] = []
        self.downs: list[LinkError] = []

    def link(self, **settings: Any) -> Link:
        chosen: Json = {"host": "localhost", "port": self.port, "sender_id": "123", "api_key": "key"} | settings

        def message(content: Json) -> None:
            self.messages.append(content)
            if content.get("message_id") != "nobody" and "from" in content:
                link.useful()

        link = Link(
            LinkSettings(**chosen),
            on_message=message,
            on_stanza_error=lambda *error: self.errors.append(error),
            on_down=self.downs.append,
        )
        return link

    def opened(self, **settings: Any) -> Link:
        link = self.link(**settings)
        link.open(self.tls())
        return link

    def tls(self) -> ssl.SSLContext:
        return TlsTrust(self.ca_file).context()

    def ids(self) -> list[str]:
        return [message["message_id"] for message in self.messages]

    def down(self) -> str:
        wait_until(lambda: self.downs)
        gevent.sleep(0)
        assert len(self.downs) == 1
        return str(self.downs[0])


def push(link: Link, name: str, to: str = "token", **more: object) -> None:
    link.send(name, orjson.dumps({"to": to, "message_id": name} | more))


@pytest.fixture
def simulator() -> Iterator[GcmSimulator]:
    with GcmSimulator({"123": "key"}) as running:
        yield running
        assert not running.violations


@pytest.fixture
def owner(simulator: GcmSimulator) -> Owner:
    return Owner(simulator.port, simulator.ca_file)


def test_a_mute_address_does_not_hide_the_next(
    owner: Owner, simulator: GcmSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{MUTE} localhost\n127.0.0.1 localhost\n")
    monkeypatch.setattr(gevent.get_hub(), "resolver", HostsFile(hosts))
    with mute(simulator.port):
        owner.opened(connect_timeout_s=3.0).close()
    assert simulator.events["logins"] == 1


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    server = Scripted(tmp_path)
    yield server
    server.server.stop()


def say_in_single_bytes(socket: Any, text: str) -> None:
    for byte in text.encode():
        socket.sendall(bytes([byte]))


# --- stanzas ----------------------------------------------------------------------------------------------------------
def test_stanza_is_exact() -> None:
    assert message_stanza("ID", b'{"to":"T"}') == (
        b'<message id="ID"><gcm xmlns="google:mobile:data">{"to":"T"}</gcm></message>'
    )


def test_stanza_is_escaped() -> None:
    stanza = message_stanza('a"<&>b', '{"x":"</gcm>&amp;\ufffe\uffff]]>"}'.encode())
    assert stanza == (
        b'<message id="a&quot;&lt;&amp;&gt;b"><gcm xmlns="google:mobile:data">'
        b'{"x":"&lt;/gcm&gt;&amp;amp;\\ufffe\\uffff]]&gt;"}</gcm></message>'
    )


# --- the login --------------------------------------------------------------------------------------------------------
def test_what_is_said_at_the_login(scripted: Scripted) -> None:
    scripted.serve = lambda socket: scripted.login(socket, say)
    owner = Owner(scripted.port, scripted.ca_file)
    owner.opened()
    wait_until(lambda: "presence" in scripted.received)
    header = (
        "<stream:stream to='gcm.googleapis.com' xmlns='jabber:client' "
        "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
    )
    assert scripted.received.count(header) == 2
    assert 'mechanism="PLAIN"' in scripted.received
    assert ">ADEyMwBrZXk=</auth>" in scripted.received
    assert "<presence xml:lang='en'><show></show><status></status></presence>" in scripted.received


def test_login_and_answers_in_single_bytes(scripted: Scripted) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say_in_single_bytes)
        say_in_single_bytes(socket, '<message><gcm xmlns=\'google:mobile:data\'>{"message_id":"m1"}</gcm></message>')
        scripted.rest(socket)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.opened()
    wait_until(lambda: owner.messages == [{"message_id": "m1"}])
    link.kill(ClosedError("the test is over"))


@pytest.mark.parametrize(("user", "key"), [("123", "wrong"), ("321", "key")])
def test_wrong_credentials(owner: Owner, user: str, key: str) -> None:
    with pytest.raises(AuthError, match=r"^the server refuses the login: not-authorized$"):
        owner.opened(sender_id=user, api_key=key)
    assert not owner.downs


def test_a_login_that_fails_for_other_reasons_is_no_fault_of_the_credentials(scripted: Scripted) -> None:
    def serve(socket: Any) -> None:
        scripted.until(socket, "version='1.0'>")
        say(socket, scripted.LOGIN[0] + scripted.LOGIN[1])
        scripted.until(socket, "</auth>")
        say(socket, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/></failure>")
        scripted.rest(socket)

    scripted.serve = serve
    with pytest.raises(LinkError, match="temporary-auth-failure") as caught:
        Owner(scripted.port, scripted.ca_file).opened()
    assert not isinstance(caught.value, AuthError)


def test_no_login_with_a_password(simulator: GcmSimulator, owner: Owner) -> None:
    simulator.mechanisms = ("X-OAUTH2",)
    with pytest.raises(LinkError, match="no login with a password"):
        owner.opened()
    assert simulator.events["refused-logins"] == 0


def test_no_resource(simulator: GcmSimulator, owner: Owner) -> None:
    simulator.binds = False
    with pytest.raises(LinkError, match=r"^the server refuses the session: resource-constraint$"):
        owner.opened()


def test_nobody_listens(simulator: GcmSimulator, owner: Owner) -> None:
    simulator.stop()
    with pytest.raises(LinkError, match=rf"^cannot connect to localhost:{owner.port}: .*Connection refused$"):
        owner.opened()


def test_unknown_host(owner: Owner) -> None:
    with pytest.raises(LinkError, match=r"^cannot connect to no\.such\.host\.invalid:\d+: "):
        owner.opened(host="no.such.host.invalid")


def test_a_server_that_says_nothing(scripted: Scripted) -> None:
    scripted.serve = scripted.rest
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.link(connect_timeout_s=0.3)
    with pytest.raises(LinkError, match=r"^no login at localhost:\d+ within 0\.3 s$"):
        link.open(owner.tls())
    wait_until(lambda: not link._greenlets)
    assert not owner.downs


@pytest.mark.parametrize("steps", range(5))
def test_a_login_that_stands_still_at_any_step_is_given_up(scripted: Scripted, steps: int) -> None:
    def serve(socket: Any) -> None:
        said = ["version='1.0'>", "", "</auth>", "version='1.0'>", ""]
        for awaited, answer in list(zip(said, scripted.LOGIN, strict=True))[:steps]:
            if awaited:
                scripted.until(socket, awaited)
            say(socket, answer)
        scripted.rest(socket)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.link(connect_timeout_s=0.5)
    with pytest.raises(LinkError, match=r"^no login at localhost:\d+ within 0\.5 s$"):
        link.open(owner.tls())
    wait_until(lambda: not link._greenlets)


def test_a_server_that_is_mute_before_tls_is_given_up(owner: Owner) -> None:
    with socket_module.create_server(("127.0.0.1", 0)) as mute_server:
        link = owner.link(port=mute_server.getsockname()[1], connect_timeout_s=0.3)
        with pytest.raises(LinkError, match=r"0\.3 s$|timed out$"):
            link.open(owner.tls())


def test_an_opening_that_is_given_up(scripted: Scripted) -> None:
    scripted.serve = scripted.rest
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.link()
    opening = gevent.spawn(link.open, owner.tls())
    wait_until(lambda: "stream" in scripted.received or link._greenlets)
    opening.kill()
    assert isinstance(link.reason, ClosedError)
    wait_until(lambda: not link._greenlets)


# --- certificates -----------------------------------------------------------------------------------------------------
def test_an_unknown_authority(owner: Owner, tmp_path: Path) -> None:
    owner.ca_file, _ = make_ca("another").write(tmp_path, "other")
    with pytest.raises(CertificateError, match=r"^the certificate of localhost:\d+ is refused: "):
        owner.opened()


def test_an_expired_certificate(tmp_path: Path) -> None:
    refused_certificate(tmp_path, "expired", expired=True)


def test_a_certificate_for_another_host(tmp_path: Path) -> None:
    refused_certificate(tmp_path, "Hostname mismatch", names=("gcm.googleapis.com",))


def refused_certificate(directory: Path, words: str, **made: Any) -> None:
    ca = make_ca()
    ca.write(directory, "ca")
    make_server_certificate(ca, **made).write(directory, "server")
    with GcmSimulator(tls_dir=str(directory)) as simulator:
        with pytest.raises(CertificateError, match=words):
            Owner(simulator.port, simulator.ca_file).opened()
        assert simulator.events["logins"] == 0


def test_the_stream_names_the_service_whatever_the_host(simulator: GcmSimulator, owner: Owner) -> None:
    owner.opened(host="127.0.0.1")
    wait_until(lambda: simulator.events["presences"] == 1)


# --- messages ---------------------------------------------------------------------------------------------------------
def test_send_and_ack(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened()
    assert link.up
    push(link, "m1")
    wait_until(lambda: owner.messages)
    assert owner.messages == [{"from": "token", "message_id": "m1", "message_type": "ack"}]
    assert simulator.arrivals == {"m1": 1}


def test_text_arrives_as_it_was(simulator: GcmSimulator, owner: Owner) -> None:
    text = "<a href='x'>&amp; ]]> \" \\ ü 🎉 \ufffe \uffff \x00 \x85 \u2028"
    link = owner.opened()
    push(link, "a<&>'\"b", to=text)
    wait_until(lambda: owner.messages)
    assert owner.messages == [{"from": text, "message_id": "a<&>'\"b", "message_type": "ack"}]


def test_ten_thousand_messages(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened()
    for number in range(10_000):
        push(link, f"m{number}")
    wait_until(lambda: len(owner.messages) == 10_000)
    assert owner.ids() == [f"m{number}" for number in range(10_000)]
    assert set(simulator.arrivals.values()) == {1}


def test_every_kind_of_message_is_handed_on(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened()
    simulator.command("drain")
    simulator.command("receipt")
    simulator.command("upstream")
    simulator.set_faults(["nack BAD_REGISTRATION"])
    push(link, "m1")
    wait_until(lambda: len(owner.messages) == 4)
    control, receipt, upstream, nack = owner.messages
    assert control == {"message_type": "control", "control_type": "CONNECTION_DRAINING"}
    assert receipt["message_type"] == "receipt"
    assert upstream["data"] == {"hello": "<&>"}
    assert nack["error"] == "CONNECTION_DRAINING"


def test_stanza_errors_name_their_message(simulator: GcmSimulator, owner: Owner) -> None:
    simulator.set_faults(["stanza-error not-acceptable"])
    link = owner.opened()
    push(link, "m<1>")
    wait_until(lambda: owner.errors)
    text = "InvalidJson: JSON_PARSING_ERROR : Missing Required Field: message_id"
    assert owner.errors == [("m<1>", "not-acceptable", text)]
    assert link.up
    assert not owner.messages


def test_garbage_is_ignored(simulator: GcmSimulator, owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    simulator.set_faults(["garbage"])
    link = owner.opened(app="garbled")
    push(link, "m1")
    push(link, "m2")
    wait_until(lambda: len(owner.messages) == 2)
    assert link.up
    assert "undecodable message from Google ignored" in caplog.text
    assert "message_type" not in caplog.text


# --- the end ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("cut", r"^the server closed the connection$|^the connection failed: "),
        ("end", r"^the server closed the connection$"),
        ("broken-xml", r"^broken XML from the server: mismatched tag"),
        ("stream-error policy-violation", r"^stream error: policy-violation$"),
        ("stream-error see-other-host", r"^stream error: see-other-host$"),
    ],
)
def test_down(simulator: GcmSimulator, owner: Owner, command: str, reason: str) -> None:
    link = owner.opened()
    simulator.command(command)
    assert re.search(reason, owner.down())
    assert not link.up
    assert link.reason is owner.downs[0]
    with pytest.raises(LinkError):
        push(link, "late")
    wait_until(lambda: not link._greenlets)


def raise_(error: Exception) -> None:
    raise error


def test_a_down_link_does_not_come_back(simulator: GcmSimulator, owner: Owner) -> None:
    owner.opened()
    simulator.command("cut")
    owner.down()
    gevent.sleep(0.2)
    assert simulator.events["connections"] == 1


def test_a_new_link_after_a_cut(simulator: GcmSimulator, owner: Owner) -> None:
    owner.opened()
    simulator.command("cut")
    owner.down()
    link = owner.opened()
    push(link, "m1")
    wait_until(lambda: owner.ids() == ["m1"])


def test_close_is_polite(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened()
    push(link, "m1")
    link.close()
    assert isinstance(link.reason, ClosedError)
    assert owner.downs == [link.reason]
    assert simulator.arrivals == {"m1": 1}
    wait_until(lambda: not simulator.links)
    assert simulator.events["broken-connections"] == 0


def test_close_of_a_frozen_peer_does_not_hang(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened()
    simulator.command("freeze 60")
    link.close(timeout_s=0.1)
    assert owner.downs == [link.reason]


def test_kill_reports_once_and_the_first_reason_stays(owner: Owner) -> None:
    link = owner.opened()
    first = LinkError("first")
    link.kill(first)
    link.kill(LinkError("second"))
    link.close()
    assert owner.downs == [first]
    assert link.reason is first


def test_unwritten_messages_are_told(owner: Owner) -> None:
    link = owner.opened()
    push(link, "m1")
    push(link, "m2")
    link.kill(LinkError("before the writer had its turn"))
    assert link.unwritten == ["m1", "m2"]


def test_an_exception_out_of_a_callback_ends_the_link(simulator: GcmSimulator, owner: Owner) -> None:
    error = KeyError("a bug")
    link = Link(
        LinkSettings("localhost", owner.port, "123", "key"),
        on_message=lambda _: raise_(error),
        on_stanza_error=lambda *_: None,
        on_down=owner.downs.append,
    )
    link.open(owner.tls())
    push(link, "m1")
    assert owner.down() == "KeyError: 'a bug'"
    assert owner.downs[0].__cause__ is error


# --- silence ----------------------------------------------------------------------------------------------------------
def test_pings_keep_a_quiet_link(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened(ping_interval_s=0.05, ping_timeout_s=5)
    wait_until(lambda: simulator.events["pings"] >= 1)
    assert link.up


def test_a_frozen_peer_is_noticed_by_pings(simulator: GcmSimulator, owner: Owner) -> None:
    owner.opened(ping_interval_s=0.1, ping_timeout_s=0.3)
    simulator.command("freeze 60")
    assert owner.down() == "no answer to a ping within 0.3 s"


def test_a_peer_that_does_not_answer_pings(simulator: GcmSimulator, owner: Owner) -> None:
    simulator.answer_pings = False
    owner.opened(ping_interval_s=0.1, ping_timeout_s=0.3)
    assert owner.down() == "no answer to a ping within 0.3 s"


def test_a_peer_that_does_not_read_is_noticed_by_the_writer(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened(ping_interval_s=60, ping_timeout_s=0.5)
    simulator.command("freeze 60")
    sent = 0
    while link.up:
        with contextlib.suppress(LinkError):
            push(link, f"m{sent}", data={"x": "y" * 50_000})
            sent += 1
    assert owner.down() == "the server has read nothing for 0.5 s"
    assert link.unwritten
    assert len(link.unwritten) * 50_000 < MAX_UNWRITTEN_BYTES + 100_000
    assert link.unwritten[-1] == f"m{sent - 1}"


def test_pings_of_the_server_are_answered(scripted: Scripted) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        say(socket, "<iq type='get' from='gcm.googleapis.com' id='s&amp;1'><ping xmlns='urn:xmpp:ping'/></iq>")
        scripted.until(socket, "/>")
        scripted.rest(socket)

    scripted.serve = serve
    link = Owner(scripted.port, scripted.ca_file).opened()
    wait_until(lambda: 'id="s&amp;1"' in scripted.received)
    assert scripted.received.endswith("""<iq type='result' to="gcm.googleapis.com" id="s&amp;1"/>""")
    link.kill(ClosedError("the test is over"))


def test_requests_of_a_server_that_reads_nothing_do_not_fill_the_memory(scripted: Scripted) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        with contextlib.suppress(OSError):
            while True:
                say(socket, f"<iq type='get' id='{'x' * 60_000}'><ping xmlns='urn:xmpp:ping'/></iq>")

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.opened()
    while not owner.downs:
        assert link._out_bytes <= MAX_QUEUED_BYTES
        gevent.sleep(0.001)
    assert owner.down() in (
        "the server sends more requests than it reads answers",
        "the server floods the connection with stanzas that answer no message",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (" " * (MAX_STANZA_BYTES + 100_000), f"a stanza of more than {MAX_STANZA_BYTES} bytes from the server"),
        ("<a>" * 100, "elements nested deeper than 32 from the server"),
    ],
)
def test_stanzas_without_end_end_the_link(scripted: Scripted, content: str, reason: str) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        with contextlib.suppress(OSError):
            say(socket, content)
        scripted.rest(socket)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    owner.opened()
    assert owner.down() == reason


def test_words_of_an_error_are_cut(scripted: Scripted) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        error = "<bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        words = f"<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>{'w' * 10_000}</text>"
        say(socket, f"<message id='1' type='error'><error>{error}{words}</error></message>")
        scripted.rest(socket)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.opened()
    wait_until(lambda: owner.errors)
    assert owner.errors == [("1", "bad-request", "w" * 500)]
    link.kill(ClosedError("the test is over"))


def test_other_requests_of_the_server_are_refused(scripted: Scripted) -> None:
    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        say(socket, "<iq type='get' id='q7'><query xmlns='jabber:iq:version'/></iq>")
        scripted.until(socket, "</iq>")
        scripted.rest(socket)

    scripted.serve = serve
    link = Owner(scripted.port, scripted.ca_file).opened()
    wait_until(lambda: "feature-not-implemented" in scripted.received)
    assert '<iq type=\'error\' to="" id="q7">' in scripted.received
    assert link.up
    link.kill(ClosedError("the test is over"))


# --- floods -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_keeps_nobody_waiting_and_ends_the_link(scripted: Scripted, kind: str) -> None:
    chunk = (FLOODS[kind] * (1 + 200_000 // len(FLOODS[kind]))).encode()
    reading: gevent.Greenlet[..., None]

    def serve(socket: Any) -> None:
        nonlocal reading
        scripted.login(socket, say)
        reading = gevent.spawn(scripted.rest, socket)
        with contextlib.suppress(OSError):
            while True:
                socket.sendall(chunk)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    owner.messages = Forgetful()
    link = owner.opened()
    pauses = [time.monotonic()]
    while link.up and len(pauses) < 2_000:
        gevent.sleep(0.01)
        pauses.append(time.monotonic())
    assert not link.up
    assert max(after - before for before, after in itertools.pairwise(pauses)) < 1.0
    reading.kill()


class SingleBytes:
    """What a server says, one octet a read."""

    def __init__(self, begin: bytes, then: bytes) -> None:
        self._begin, self._then = begin, then
        self.reads = 0

    def receive(self) -> bytes:
        self.reads += 1
        return self._then if self.reads > 1 else self._begin


@pytest.mark.parametrize("content", ["<message a='x", "<message x", "<message>x", "<!--x", " "])
def test_single_bytes_of_what_never_ends_are_paid_by_the_read(content: str) -> None:
    """The parser looks through all of an unended token again at each read."""
    source = SingleBytes(f"{Scripted.HEADER}{content}{content[-1] * 100_000}".encode(), content[-1].encode())
    budget = Budget(0, 5_000)

    def spend(units: float) -> None:
        if not budget.spend(units):
            raise LinkError("flood")

    parsed = iterparse(Inflow(source, spend), (b"end", b"start"))
    with pytest.raises(LinkError, match="flood"):
        list(parsed)
    assert source.reads < 1_000


def test_an_answer_in_single_bytes_is_seen_at_its_last_one() -> None:
    """Expat must not put the end of its last tag off until more comes."""
    answer = stanza('{"message_type":"ack","message_id":"m1"}').encode()
    fed = iter([Scripted.HEADER.encode(), *(bytes([byte]) for byte in answer)])
    read: list[bytes] = []

    class Answer:
        def receive(self) -> bytes:
            read.append(next(fed, b""))
            return read[-1]

    parsed = iterparse(Inflow(Answer(), lambda _: None), (b"end", b"start"))
    ended = [(element.tag, b"".join(read[1:])) for event, element in parsed if event == b"end"]
    assert ended[-1] == ("{jabber:client}message", answer)


def test_answers_that_came_before_a_write_failed_count(scripted: Scripted) -> None:
    """The writer fails while the reader has given way in the middle of what it has read."""
    acks = 700

    def serve(socket: Any) -> None:
        scripted.login(socket, say)
        say(socket, stanza('{"message_type":"ack","message_id":"m1"}') * acks)
        scripted.rest(socket)

    scripted.serve = serve
    owner = Owner(scripted.port, scripted.ca_file)
    link = owner.link()

    def first(message: Json) -> None:
        owner.messages.append(message)
        if len(owner.messages) == 1:
            assert link._socket is not None
            link._socket.send = broken  # type: ignore[assignment,method-assign]
            link.write(b" ")

    link._on_message = first
    link.open(owner.tls())
    assert owner.down() == "the connection failed: Broken pipe"
    assert len(owner.messages) == acks


def broken(_data: bytes) -> None:
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Forgetful(list[Json]):
    """A list that keeps nothing: whoever floods fills no memory of ours."""

    def append(self, item: Json) -> None:
        pass


def test_what_answers_something_is_no_flood(simulator: GcmSimulator, owner: Owner) -> None:
    link = owner.opened()
    for number in range(20_000):
        push(link, f"m{number}")
    wait_until(lambda: len(owner.messages) == 20_000)
    assert link.up
    link.close()


# --- what stays -------------------------------------------------------------------------------------------------------
def test_dead_links_leave_nothing_behind(simulator: GcmSimulator, owner: Owner) -> None:
    for _ in range(20):
        owner.opened().close()
    owner.downs.clear()
    gevent.sleep(0)
    gc.collect()
    assert not any(isinstance(thing, Engine) for thing in gc.get_objects())
    wait_until(lambda: not simulator.links)


def test_a_dead_link_keeps_no_tls_context_until_garbage_is_collected(simulator: GcmSimulator, owner: Owner) -> None:
    """It is most of what a link weighs."""
    gc.collect()
    gc.disable()
    try:
        # one of its own: those of `TlsTrust` are kept
        tls = ssl.create_default_context(cafile=owner.ca_file)
        link = owner.link()
        link.open(tls)
        alive = weakref.ref(tls)
        del tls
        link.close()
        wait_until(lambda: alive() is None)
    finally:
        gc.enable()


def test_passwords_and_tokens_are_not_logged(
    simulator: GcmSimulator, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", "sleekxmpp")
    link = owner.opened()
    push(link, "m1", to="secret-token")
    wait_until(lambda: owner.messages)
    simulator.command("broken-xml")
    owner.down()
    assert "ADEyMwBrZXk" not in caplog.text
    assert "secret-token" not in caplog.text
