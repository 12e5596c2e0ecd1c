"""A small HTTP endpoint beside a simulator, for tests and people in other processes.

GET /counts     what happened so far, in numbers (JSON)
GET /ledger     the same plus every request: [id, token, status, reason]
POST /faults    replaces the script of faults, one a line; an empty body ends them
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from gevent.pywsgi import WSGIServer

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Simulator(Protocol):
    """What the endpoint asks of a simulator."""

    def counts(self) -> dict[str, Any]:
        """Numbers."""

    def report(self) -> dict[str, Any]:
        """Numbers and requests."""

    def set_faults(self, script: Sequence[str]) -> None:
        """Replaces the faults. Raises ValueError."""


class Admin:
    """Serves one simulator's numbers on its own port."""

    def __init__(self, simulator: Simulator, host: str, port: int) -> None:
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
            case "POST", "/faults":
                return self._set_faults(environ["wsgi.input"].read().decode())
        return "404 Not Found", b"{}"

    def _set_faults(self, script: str) -> tuple[str, bytes]:
        try:
            self._simulator.set_faults([line for line in script.splitlines() if line.strip()])
        except ValueError as error:
            return "400 Bad Request", json.dumps({"error": str(error)}).encode()
        return "200 OK", b"{}"
