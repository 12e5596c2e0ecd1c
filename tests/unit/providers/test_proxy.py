"""The way out through a proxy: Debian's tinyproxy, and proxies that are odd or hostile."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from lab.processes import wait_until
from pusher.config.effective import effective
from pusher.config.loader import parse
from pusher.config.schema import ConfigError
from pusher.errors import StartError
from pusher.providers.apns.provider import apns_proxy
from pusher.providers.google.provider import fcm_origin, google_proxy
from pusher.providers.google.xmpp.link import Link, LinkError, LinkSettings
from pusher.providers.http1 import Client, ExchangeFailed, Request, exchange
from pusher.providers.http2.transport import ConnectFailed, Origin, connect
from pusher.providers.proxy import Proxy, always, of_environment, read
from pusher.providers.tls import TlsTrust
from pusher.sim.fcm import FcmSimulator
from pusher.sim.gcm import GcmSimulator

TINYPROXY = shutil.which("tinyproxy")


@pytest.fixture(scope="module")
def provider() -> Iterator[FcmSimulator]:
    simulator = FcmSimulator()
    simulator.start()
    yield simulator
    simulator.close()


def through(proxy: Proxy | None, provider: FcmSimulator, timeout_s: float = 20.0) -> None:
    origin = Origin("localhost", provider.port, proxy=proxy)
    connect(origin, TlsTrust(provider.ca_file).context(alpn="h2"), timeout_s).close()


# ---- a real one


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts one; returns its port."""
    assert TINYPROXY is not None, "tinyproxy is missing: run scripts/services install"
    program = TINYPROXY
    started: list[subprocess.Popen[bytes]] = []

    def start(*lines: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        settings = tmp_path / "tinyproxy.conf"
        settings.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", "Timeout 60", *lines, ""]))
        started.append(subprocess.Popen([program, "-d", "-c", settings], stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                assert started[-1].poll() is None
                assert time.monotonic() < deadline
                gevent.sleep(0.02)
            else:
                return port

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def test_http2_and_token_endpoints_through_a_real_proxy(tinyproxy: Callable[..., int], provider: FcmSimulator) -> None:
    url = f"http://127.0.0.1:{tinyproxy()}"
    through(read(url, "it"), provider)
    client = Client(TlsTrust(provider.ca_file).context, always(url))
    assert exchange(Request("GET", f"https://localhost:{provider.oauth.port}/x"), client, 20).status == 404


@pytest.mark.parametrize("login", ["", "me:secret@"])
def test_messages_over_xmpp_through_a_real_proxy(tinyproxy: Callable[..., int], login: str) -> None:
    """The link to Google, with its login, a message and the answer."""
    port = tinyproxy(*(["BasicAuth me secret"] if login else []))
    with GcmSimulator({"123": "key"}) as google:
        answers: list[dict[str, Any]] = []
        proxy = read(f"http://{login}127.0.0.1:{port}", "it")
        settings = LinkSettings(
            "localhost", google.port, "123", "key", ping_interval_s=60, ping_timeout_s=60, proxy=proxy
        )
        link = Link(settings, on_message=answers.append, on_stanza_error=_unexpected, on_down=_unexpected)
        link.open(TlsTrust(google.ca_file).context())
        link.send("m1", b'{"to":"token","message_id":"m1","data":{"k":"v"}}')
        wait_until(lambda: answers)
        assert [(one["message_type"], one["message_id"]) for one in answers] == [("ack", "m1")]
        assert [received[:2] for received in google.received] == [("m1", "token")]
        link.close()


def test_xmpp_finds_no_way_past_a_proxy_that_wants_a_password(tinyproxy: Callable[..., int]) -> None:
    port = tinyproxy("BasicAuth me secret")
    with GcmSimulator({"123": "key"}) as google:
        proxy = read(f"http://me:hush@127.0.0.1:{port}", "it")
        settings = LinkSettings(
            "localhost", google.port, "123", "key", ping_interval_s=60, ping_timeout_s=60, proxy=proxy
        )
        link = Link(settings, on_message=_unexpected, on_stanza_error=_unexpected, on_down=_unexpected)
        with pytest.raises(LinkError, match=r"refuses a connection to localhost:[0-9]+: HTTP 40[17]") as caught:
            link.open(TlsTrust(google.ca_file).context())
        assert "hush" not in str(caught.value)
        assert google.events["logins"] == 0


def _unexpected(*_: object) -> None:
    """Nothing is asserted where it is called: a link may go down at its end."""


def test_user_and_password_at_a_real_proxy(tinyproxy: Callable[..., int], provider: FcmSimulator) -> None:
    port = tinyproxy("BasicAuth me secret")
    through(read(f"http://me:sec%72et@127.0.0.1:{port}", "it"), provider)
    for login in ("", "me:hush@"):
        with pytest.raises(ConnectFailed, match=r"refuses a connection to localhost:[0-9]+: HTTP 40[17]") as caught:
            through(read(f"http://{login}127.0.0.1:{port}", "it"), provider)
        assert "hush" not in str(caught.value)


def test_a_port_that_a_real_proxy_does_not_allow(tinyproxy: Callable[..., int], provider: FcmSimulator) -> None:
    port = tinyproxy("ConnectPort 443")
    with pytest.raises(ConnectFailed, match="HTTP 403"):
        through(read(f"http://127.0.0.1:{port}", "it"), provider)


# ---- odd and hostile ones


@pytest.fixture
def scripted() -> Iterator[Callable[..., Proxy]]:
    """A proxy that answers with the same octets; ``forever``: again and again."""
    servers: list[StreamServer] = []

    def start(octets: bytes, *, forever: bool = False) -> Proxy:
        def serve(sock: Any, _address: object) -> None:
            try:
                sock.recv(65_536)
                sock.sendall(octets)
                while forever:
                    sock.sendall(octets)
                    gevent.sleep(0)
            except OSError:
                pass  # we have closed: that is what is tested
            sock.close()

        server = StreamServer(("127.0.0.1", 0), serve)
        server.start()
        servers.append(server)
        return Proxy("127.0.0.1", int(server.socket.getsockname()[1]))

    yield start
    for server in servers:
        server.stop(timeout=0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection|does not speak HTTP"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP"),
        (b"\x16\x03\x01" * 10, "does not speak HTTP"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", "HTTP 502 Bad Gateway"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP 407"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "sends data after its answer"),
        (b"HTTP/1.1 200 OK\r\nA", "closed the connection|does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "closed the connection|TLS|reset"),
    ],
)
def test_a_proxy_that_opens_no_way(
    scripted: Callable[..., Proxy], provider: FcmSimulator, answer: bytes, words: str
) -> None:
    with pytest.raises(ConnectFailed, match=words) as caught:
        through(scripted(answer), provider)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"HTTP/1.1 200 " + b"O" * 5_000,
        b"\r\n" * 500,
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
    ],
)
def test_a_proxy_that_answers_without_end(
    scripted: Callable[..., Proxy], provider: FcmSimulator, octets: bytes
) -> None:
    with pytest.raises(ConnectFailed):
        through(scripted(octets, forever=True), provider)


def test_a_proxy_that_says_nothing(provider: FcmSimulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(ConnectFailed):
        through(Proxy("127.0.0.1", mute.getsockname()[1]), provider, 0.3)


def test_a_proxy_that_is_not_there(provider: FcmSimulator) -> None:
    with pytest.raises(ConnectFailed, match="refused"):
        through(Proxy("127.0.0.1", 1), provider)


def test_a_name_is_looked_up_by_the_proxy(scripted: Callable[..., Proxy]) -> None:
    origin = Origin("no.such.host.invalid", 443, proxy=scripted(b"HTTP/1.1 504 Gateway Timeout\r\n\r\n"))
    with pytest.raises(ConnectFailed, match=r"refuses a connection to no\.such\.host\.invalid:443: HTTP 504"):
        connect(origin, TlsTrust().context(), 20)


def test_the_certificate_is_that_of_the_provider(
    scripted: Callable[..., Proxy], tinyproxy: Callable[..., int], provider: FcmSimulator
) -> None:
    proxy = read(f"http://127.0.0.1:{tinyproxy()}", "it")
    with pytest.raises(ConnectFailed, match="certificate is refused"):
        connect(Origin("localhost", provider.port, proxy=proxy), TlsTrust().new_context(), 20)


def test_an_exchange_through_a_proxy_that_refuses(scripted: Callable[..., Proxy]) -> None:
    proxy = scripted(b"HTTP/1.1 403 Filtered\r\n\r\n")
    with pytest.raises(
        ExchangeFailed, match=r"example\.com: .*refuses a connection to example\.com:443: HTTP 403 Filtered"
    ):
        exchange(Request("GET", "https://example.com/"), Client(TlsTrust().context, lambda _: proxy), 20)


# ---- which one


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128)),
        ("http://proxy", Proxy("proxy", 80)),
        ("proxy:3128", Proxy("proxy", 3128)),
        ("http://[::1]:3128/", Proxy("::1", 3128)),
        ("http://me@proxy:1", Proxy("proxy", 1, "Basic bWU6")),
        ("http://me:a%40b@proxy:1", Proxy("proxy", 1, "Basic bWU6YUBi")),
    ],
)
def test_addresses_of_proxies(url: str, expected: Proxy) -> None:
    assert read(url, "it") == expected


@pytest.mark.parametrize(
    "url", ["socks5://hush@proxy:1", "https://me:hush@proxy", "http://", "http://hush:x:y", "http://[hush"]
)
def test_what_is_no_address_of_a_proxy(url: str) -> None:
    with pytest.raises(StartError, match="it is not http://") as caught:
        read(url, "it")
    assert "hush" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    proxy = read("http://me:hush@proxy:1", "it")
    assert str(proxy) == "the proxy proxy:1"
    assert "Basic" not in repr(proxy)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert of_environment("fcm.googleapis.com") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert of_environment("fcm.googleapis.com") == Proxy("proxy", 1)
    assert [of_environment(host) for host in ("localhost", "127.0.0.1", "::1", "a.localhost")] == [None] * 4
    monkeypatch.setenv("NO_PROXY", "example.com,.googleapis.com")
    assert of_environment("fcm.googleapis.com") is None
    assert of_environment("googleapis.org") == Proxy("proxy", 1)
    monkeypatch.setenv("NO_PROXY", "*")
    assert of_environment("googleapis.org") is None


def test_settings_of_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://environment:1")
    monkeypatch.setenv("NO_PROXY", "")
    found = parse("{}", {})
    assert apns_proxy(found) is None
    assert fcm_origin(found).proxy == Proxy("environment", 1)
    assert google_proxy(found)("oauth2.googleapis.com") == Proxy("environment", 1)
    found = parse("apns.proxy: http://one:1\ngcm.proxy: http://me:hush@two:2\n", {})
    assert apns_proxy(found) == Proxy("one", 1)
    assert fcm_origin(found).proxy == read("http://me:hush@two:2", "it")
    assert "hush" not in "\n".join(effective(found))


@pytest.mark.parametrize(
    "url", ["socks5://me:hush@proxy:1", "me:hush@proxy:1", "http://me:hush@proxy:x", "http://me:hush@"]
)
def test_a_setting_that_is_no_address_of_a_proxy_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"apns\.proxy expects") as caught:
        apns_proxy(parse(f"apns.proxy: '{url}'", {}))
    assert "hush" not in str(caught.value)
