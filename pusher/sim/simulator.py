"""What the simulated services have in common: certificates, beginning and end, and the ledger of those over HTTP/2."""

import shutil
import ssl
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pusher.sim.admin import Order
from pusher.sim.certificate import server_context, tls_files
from pusher.sim.faults import Fault, Faults, play
from pusher.sim.http2_link import Reply, Request
from pusher.sim.http2_server import Http2Server
from pusher.sim.ledger import Ledger, Received


class Simulator(ABC):
    """A service with a certificate of its own, in `tls_dir` or in a directory that goes with it.

    Start it with start() or `with`; `port` is known from then on. `names` are host names for the certificate besides
    loopback's.
    """

    def __init__(self, name: str, tls_dir: str | None, names: Sequence[str], ledger_limit: int) -> None:
        directory = tls_dir or tempfile.mkdtemp(prefix=f"{name}-")
        self._remove_directory = None if tls_dir else weakref.finalize(self, shutil.rmtree, directory)
        self._files = tls_files(directory, names)
        self._contexts: list[ssl.SSLContext] = []
        self.ca_file = self._files.ca
        self.ledger = Ledger(ledger_limit)

    def _context(self, client_ca: str | None = None) -> ssl.SSLContext:
        """For one more server of the service."""
        context = server_context(self._files, client_ca)
        self._contexts.append(context)
        return context

    @property
    @abstractmethod
    def port(self) -> int:
        """Where it listens."""

    @abstractmethod
    def start(self) -> None:
        """Listens; may follow stop(), on the same port. Raises OSError when the port is taken."""

    @abstractmethod
    def stop(self) -> None:
        """Drops all connections and stops listening; waits some milliseconds."""

    def close(self) -> None:
        """Stops for good, and removes the certificates unless tls_dir was given."""
        self.stop()
        if self._remove_directory is not None:
            self._remove_directory()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def orders(self) -> Mapping[str, Order]:
        """What it can be told to do while it runs."""

    def read_certificate(self) -> None:
        """Reads the certificate's files again, for new connections. Raises OSError."""
        for context in self._contexts:
            context.load_cert_chain(self._files.certificate, self._files.key)

    @property
    def received(self) -> list[Received]:
        """The requests so far, in order, as the ledger keeps them."""
        return self.ledger.received

    @abstractmethod
    def counts(self) -> dict[str, Any]:
        """The ledger's counts, and what happened beside the requests."""

    def report(self) -> dict[str, Any]:
        """counts() and the list of requests, [id, token, status, reason]."""
        return self.counts() | {"received": self.received}


class Http2Simulator(Simulator):
    """A service over HTTP/2, which answers after `latency_s` and plays `faults`.

    `server.links` are the connections, to cut or freeze.
    """

    server: Http2Server

    def __init__(
        self,
        name: str,
        faults: Sequence[str],
        *,
        tls_dir: str | None,
        names: Sequence[str],
        seed: int,
        latency_ms: float,
        ledger_limit: int,
    ) -> None:
        super().__init__(name, tls_dir, names, ledger_limit)
        self.faults = Faults(faults, seed)
        self.latency_s = latency_ms / 1000
        self._seed = seed

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    def set_faults(self, script: Sequence[str]) -> None:
        """Replaces the script of faults. Raises FaultSyntaxError."""
        self.faults = Faults(script, self._seed)

    def orders(self) -> Mapping[str, Order]:
        """What it can be told to do while it runs."""
        return {
            "faults": self.set_faults,
            "cut": lambda _: self.server.cut(),
            "certificate": lambda _: self.read_certificate(),
        }

    def counts(self) -> dict[str, Any]:
        """The ledger's counts, and what happened below the requests."""
        return self.ledger.counts() | {
            "transport": dict(self.server.counts),
            "open_connections": len(self.server.links),
            "protocol_errors": list(self.server.protocol_errors),
        }

    def _answer(self, request: Request, answer: Reply, fault: Fault | None) -> None:
        """Answers, or plays the fault, when it is time."""
        if fault is None:
            self._later(request.link.respond, request.stream_id, answer)
        elif fault.unprocessed:
            play(fault, request, answer, self.server.schedule)
        else:
            self._later(play, fault, request, answer, self.server.schedule)

    def _note(
        self, request: Request, request_id: str, target: str, status: int, reason: str, fault: Fault | None
    ) -> None:
        """Writes the ledger."""
        if fault is not None:
            self.ledger.faults[fault.text] += 1
            if not fault.answers(request) and not fault.delivered:
                status, reason = 0, fault.action
        self.ledger.record(request_id, target, status, reason)

    def _later(self, function: Callable[..., object], *args: Any) -> None:
        if self.latency_s:
            self.server.schedule.after(self.latency_s, function, *args)
        else:
            function(*args)
