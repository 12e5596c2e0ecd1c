"""A daemon's admin port, and requests to it over a socket of their own."""

from __future__ import annotations

import socket

from lab.kafka.server import free_port
from pusher import config
from pusher.daemon.admin.port import AdminPort, Watched
from pusher.daemon.admin.server import AdminServer
from pusher.telemetry.stats import Sample, Stats

DEADLINE_S = 10.0


class Process:
    """What a daemon tells the admin port."""

    def __init__(self) -> None:
        self.stats = Stats("host")
        self.figures: list[Sample] = []
        self.reasons: list[str] = []
        self.apps: dict[str, list[str]] = {}
        self.failure = ""

    def port(self, port: int | None = None, **settings: str) -> AdminPort:
        watched = Watched("apns", self.samples, lambda: self.reasons, lambda: self.apps, lambda: self.failure)
        given = {"port": str(free_port() if port is None else port)} | settings
        return AdminPort(config.parse("".join(f"admin.{name}: {value}\n" for name, value in given.items())), watched)

    def samples(self) -> list[Sample]:
        return self.stats.snapshot() + self.figures


def no_greenlet(_name: str, _run: object) -> None:
    """The history is looked at by the tests themselves."""


def ask(
    admin: AdminPort | AdminServer,
    target: str,
    method: str = "GET",
    host: str = "localhost",
    authorization: str = "",
) -> tuple[int, dict[str, str], bytes]:
    """A request over a socket of its own; status, headers, body."""
    more = f"Authorization: {authorization}\r\n" if authorization else ""
    server = admin.server if isinstance(admin, AdminPort) else admin
    with socket.create_connection(("127.0.0.1", server.port or 0), timeout=DEADLINE_S) as connection:
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in rest}, body
