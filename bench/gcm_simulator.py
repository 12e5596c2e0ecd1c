"""`pusher simulate gcm` as the provider, a process of its own: nobody else speaks Google's XMPP."""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class GcmSimulator:
    """The simulator on a free port, known once start() has returned. It answers after latency_ms."""

    def __init__(self, directory: Path, *, latency_ms: int = 0) -> None:
        directory.mkdir(parents=True)
        self.certificate = directory / "ca.pem"
        self.port = 0
        self._directory = directory
        self._latency_ms = latency_ms
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process; ValueError when it was not started."""
        if self._process is None:
            raise ValueError("the simulator is not running")
        return self._process.pid

    def start(self, timeout_s: float = 20) -> None:
        """Start it and wait until it listens."""
        log = self._directory / "log"
        command = [sys.executable, "pusher.py", "simulate", "gcm", "--port", "0", "--tls-dir", str(self._directory)]
        command += ["--ledger-limit", "0", "--ack-delay-ms", str(self._latency_ms)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], cwd=ROOT, stdout=output, stderr=output
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
