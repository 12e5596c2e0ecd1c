"""`pusher simulate gcm` as the provider, a process of its own: nobody else speaks Google's XMPP."""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class GcmSimulator:
    """The simulator on a free port, known once start() has returned."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.certificate = directory / "ca.pem"
        self.port = 0
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 20) -> None:
        """Start it and wait until it listens."""
        log = self._directory / "log"
        command = [sys.executable, "pusher.py", "simulate", "gcm", "--port", "0", "--tls-dir", str(self._directory)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, "--ledger-limit", "0"],
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + timeout_s
        while not (listening := re.search(r"listening on [^:]+:(\d+)", log.read_text())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the simulator does not listen:\n{log.read_text()}")
            time.sleep(0.05)
        self.port = int(listening[1])

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
