"""A small HTTP endpoint beside a simulator, for tests and people in other processes.

GET /counts     what happened so far, in numbers (JSON)
GET /ledger     the same plus every request: [id, token, status, reason]
POST /ORDER     does what the body's lines say; each simulator lists its orders in its --help, all have these:
    faults          replaces the script of faults, one a line; an empty body ends them
    cut             resets all connections
    certificate     reads the server's certificate again from --tls-dir, for connections from now on
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from gevent.pywsgi import WSGIServer

#: Takes the lines of an order. Raises ValueError.
Order = Callable[[Sequence[str]], object]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Controlled(Protocol):
    """What the endpoint asks of a simulator."""

    def counts(self) -> dict[str, Any]:
        """Numbers."""

    def report(self) -> dict[str, Any]:
        """Numbers and requests."""

    def orders(self) -> Mapping[str, Order]:
        """What it can be told to do, by name."""


class Admin:
    """Serves one simulator's numbers on its own port."""

    def __init__(self, simulator: Controlled, host: str, port: int) -> None:
        self._simulator = simulator
        self._server = WSGIServer((host, port), self._application, log=None)

    def start(self) -> int:
        """Listens; returns the port. Raises OSError."""
        self._server.start()
        return int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """Stops listening."""
        self._server.stop(timeout=0)

    def _application(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, body = self._respond(environ)
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _respond(self, environ: dict[str, Any]) -> tuple[str, bytes]:
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case "GET", "/counts":
                return "200 OK", json.dumps(self._simulator.counts()).encode()
            case "GET", "/ledger":
                return "200 OK", json.dumps(self._simulator.report()).encode()
            case "POST", path:
                order = self._simulator.orders().get(path.removeprefix("/"))
                if order is not None:
                    return _obey(order, environ["wsgi.input"].read().decode())
        return "404 Not Found", b"{}"


def _obey(order: Order, text: str) -> tuple[str, bytes]:
    try:
        order([line for line in text.splitlines() if line.strip()])
    except (ValueError, OSError) as error:
        return "400 Bad Request", json.dumps({"error": str(error)}).encode()
    return "200 OK", b"{}"
