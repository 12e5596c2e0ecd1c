"""What a provider's stages break besides its answers: the process, its certificate, the name it is found by."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.processes import ROOT, Simulator
from pusher.sim.certificate import LOOPBACK_NAMES, Certificate, make_ca, make_server_certificate, read_certificate
from tests.faults.stages import order

#: The provider's name, which only our resolver knows.
NAME = "push.test"
_NOBODY = "127.0.0.9"
MUTE = "127.0.0.8"


class Surroundings:
    """Of one provider that listens at 127.0.0.1. `program` is pusher with its resolver and these constants."""

    def __init__(self, directory: Path, constants: Mapping[str, float]) -> None:
        self._directory = directory
        self._hosts = directory / "hosts"
        self._hosts.write_text(f"127.0.0.1 {NAME}\n")
        changes = directory / "changes.json"
        changes.write_text(json.dumps({"hosts": str(self._hosts), "constants": dict(constants)}))
        self.program = (sys.executable, str(ROOT / "tests/faults/altered.py"), str(changes))
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def moved_to_nobody(self, provider: Simulator) -> None:
        """The name leads to an address where nobody listens, and the open connections end."""
        self._resolve(_NOBODY)
        cut(provider)

    def mute_address_first(self, provider: Simulator) -> None:
        """The name has a second address, before the right one, that drops whatever comes."""
        self._held.enter_context(mute(provider.port))
        self._resolve(MUTE, "127.0.0.1")
        cut(provider)

    def moved_back(self) -> None:
        """The name leads to the provider alone."""
        self._resolve("127.0.0.1")

    def new_certificate(self, provider: Simulator) -> None:
        """The provider has another certificate of the same authority; the open connections end."""
        self._certify(provider, read_certificate(self._directory, "ca"))

    def foreign_certificate(self, provider: Simulator) -> None:
        """The provider has a certificate of an authority that nobody knows; the open connections end."""
        self._certify(provider, make_ca("Somebody else"))

    def _certify(self, provider: Simulator, authority: Certificate) -> None:
        make_server_certificate(authority, (*LOOPBACK_NAMES, NAME)).write(self._directory, "server")
        order(provider, "certificate")
        cut(provider)

    def _resolve(self, *addresses: str) -> None:
        partial = self._hosts.with_suffix(".partial")
        partial.write_text("".join(f"{address} {NAME}\n" for address in addresses))
        partial.rename(self._hosts)


@contextmanager
def mute(port: int) -> Iterator[None]:
    """At MUTE and this port nothing is ever answered, not even by TCP."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind((MUTE, port))
        listener.listen(0)
        for _ in range(2):  # more than the queue holds is dropped
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((MUTE, port))
        yield


def cut(provider: Simulator) -> None:
    """Resets all connections."""
    order(provider, "cut")


def freeze(provider: Simulator) -> None:
    """The process stands still."""
    provider.signal(signal.SIGSTOP)


def thaw(provider: Simulator) -> None:
    """It goes on."""
    provider.signal(signal.SIGCONT)
