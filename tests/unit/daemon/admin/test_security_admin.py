"""What neighbours on the network and web pages may try with the admin port."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from lab.admin_client import DEADLINE_S, Process, ask
from lab.kafka.server import free_port
from pusher import config
from pusher.broker.sqlite.store import Store
from pusher.config import settings
from pusher.daemon.admin.page import PAGE
from pusher.daemon.admin.port import AdminPort
from pusher.daemon.admin.server import PATIENCE_S, TEXT, AdminServer, Page
from pusher.telemetry import metrics

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\n\\"


def test_it_is_open_to_this_machine_alone_and_shows_no_stacks_unless_asked_to() -> None:
    found = config.parse("")
    assert found[settings.ADMIN_HOST] == "127.0.0.1"
    assert not found[settings.ADMIN_DEBUG]


@pytest.mark.parametrize("host", ["localhost", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "10.0.0.7", ""])
def test_names_that_nobody_else_gives_out_are_answered(admin: AdminPort, host: str) -> None:
    assert ask(admin, "/healthz", host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8081", "127.0.0.1.evil.example", "[", "a b"])
def test_a_name_that_was_made_to_lead_here_is_not_answered(admin: AdminPort, host: str) -> None:
    for path in ("/", "/status.json", "/metrics", "/healthz"):
        assert ask(admin, path, host=host)[0] == 421


def test_a_port_that_others_may_reach_is_asked_by_any_name() -> None:
    server = AdminServer("0.0.0.0", free_port(), {"/": lambda _: Page(200, TEXT, b"ok")})
    server.start()
    assert ask(server, "/", host="pusher.example")[0] == 200
    server.stop()


@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics", "/nothing"])
def test_headers_that_keep_browsers_from_harm(admin: AdminPort, path: str) -> None:
    _, headers, _ = ask(admin, path)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_the_page_runs_its_own_script_only_and_in_no_frame(admin: AdminPort) -> None:
    policy = ask(admin, "/")[1]["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_takes_no_text_for_markup() -> None:
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|DOMParser|srcdoc", PAGE)


def test_hostile_names_stay_data(admin: AdminPort, process: Process) -> None:
    process.stats.counter(metrics.FAILED, "gcm", HOSTILE, HOSTILE).add()
    admin.history.look()
    status, headers, body = ask(admin, "/status.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    exposed = ask(admin, "/metrics")[2]
    (line,) = [line for line in exposed.splitlines() if b"onerror" in line]
    assert line.startswith(b"pusher_failed_total{")
    assert line.endswith(b"} 1.0")
    assert b"\n\\" not in body


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 5_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"GET /%ff%00%0d%0aX:y HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00" * 1_000,
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ],
    ids=["post", "trace", "connect", "long path", "huge header", "many headers", "odd path", "tls", "chunks"],
)
def test_what_is_no_proper_request_gets_no_page_and_harms_nobody(
    admin: AdminPort, request_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = b""
    with socket.create_connection(("127.0.0.1", admin.server.port or 0), timeout=DEADLINE_S + PATIENCE_S) as one:
        try:
            one.sendall(request_bytes)
            answer = b"".join(iter(lambda: one.recv(65_536), b""))
        except OSError:
            pass  # it was cut off before it had said all
    assert b"\r\nX:y" not in answer
    assert b"<script>" not in answer or request_bytes.startswith(b"GET / ")
    assert ask(admin, "/healthz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_the_file_of_the_embedded_broker_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    store = Store(f"sqlite:///{path}")
    store.run(lambda connection: connection.execute("SELECT 1"))
    store.run(lambda connection: connection.execute("PRAGMA wal_checkpoint"))
    files = list(tmp_path.iterdir())
    assert path in files
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == dict.fromkeys(
        (file.name for file in files), "0o600"
    )
    store.close()


def slow_head(client: socket.socket) -> None:
    """A header line now and then, without end; comes again when it is cut."""
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
    while True:
        gevent.sleep(0.05)
        client.sendall(b"X-More: 1\r\n")


def silent(client: socket.socket) -> None:
    gevent.sleep(60)


def unread(client: socket.socket) -> None:
    """Asks for the page again and again and reads nothing."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
    gevent.sleep(60)


def reset(client: socket.socket) -> None:
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Half")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("behave", [slow_head, silent, unread, reset])
def test_slow_clients_however_many_delay_nobody(
    admin: AdminPort, behave: Callable[[socket.socket], None], capfd: pytest.CaptureFixture[str]
) -> None:
    port = admin.server.port
    assert port is not None

    def client() -> None:
        while True:
            gevent.sleep(0.05)  # they share this test's thread with the server
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                behave(connection)

    clients = [gevent.spawn(client) for _ in range(200)]
    gevent.sleep(0.5)
    for _ in range(20):
        with gevent.Timeout(1.0):
            assert ask(admin, "/healthz")[0] == 200
        gevent.sleep(0.02)
    gevent.killall(clients)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "status"),
    [("", 401), ("Bearer secret-token", 200), ("bearer secret-token", 200), ("Bearer other", 401), ("Basic x", 401)],
)
def test_a_token_opens_what_health_does_not_need(given: str, status: int) -> None:
    routes = {path: lambda _: Page(200, TEXT, b"ok") for path in ("/", "/metrics", "/healthz", "/readyz")}
    server = AdminServer("127.0.0.1", free_port(), routes, token="secret-token")
    server.start()
    for path in ("/", "/metrics"):
        found, headers, body = ask(server, path, authorization=given)
        assert found == status
        assert "secret-token" not in f"{headers}{body!r}"
    for path in ("/healthz", "/readyz"):
        assert ask(server, path, authorization=given)[0] == 200
    server.stop()


def test_a_port_that_others_may_reach_without_a_token_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    for host, token, lines in (("0.0.0.0", "", 1), ("0.0.0.0", "t", 0), ("127.0.0.1", "", 0)):
        caplog.clear()
        server = AdminServer(host, free_port(), {}, token=token)
        server.start()
        server.stop()
        assert caplog.text.count("admin.token") == lines
