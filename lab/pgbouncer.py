"""A pgbouncer in transaction mode, from Debian's package: its clients share connections between their transactions."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from lab.kafka.server import free_port

_DEADLINE_S = 10.0


class PgBouncer:
    """Between clients at ``port`` and the server at ``server_port`` of localhost, with ``size`` connections to it."""

    def __init__(self, server_port: int, database: str, user: str, size: int = 1) -> None:
        if shutil.which("pgbouncer") is None:
            raise RuntimeError("pgbouncer is not installed: run `scripts/services install`")
        self.port = free_port()
        self._database, self._user, self._size = database, user, size
        # readable for the account that runs it: it refuses to run as root
        self._directory = Path(tempfile.mkdtemp(prefix="pusher-pgbouncer-", dir="/var/tmp"))
        self._directory.chmod(0o755)
        self._configure(server_port)
        self._process = self._started()

    def switch(self, server_port: int) -> None:
        """New connections go to another server; those that are open end."""
        self._configure(server_port)
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Cuts all connections."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory)

    def _configure(self, server_port: int) -> None:
        (self._directory / "pgbouncer.ini").write_text(
            f"[databases]\n{self._database} = host=127.0.0.1 port={server_port} dbname={self._database} "
            f"user={self._user}\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {self._size}\n"
            "unix_socket_dir =\nserver_login_retry = 1\n"
        )

    def _started(self) -> subprocess.Popen[bytes]:
        account = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        with (self._directory / "log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *account, "pgbouncer", str(self._directory / "pgbouncer.ini")],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _DEADLINE_S
        while not self._listens():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer does not start: {(self._directory / 'log').read_text()}")
            time.sleep(0.05)
        return process

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
