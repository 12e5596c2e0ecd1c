"""A real Redis of a test's own, from Debian's package: with a password, users, TLS, little memory, a master, or broken.

`RedisServer(tmp_path / "redis").start()`; each has a directory and a port of its own and never outlives its process.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.kafka.server import free_port
from pusher.sim.certificate import make_ca, make_server_certificate

PROGRAM = "redis-server"
#: Nothing is written to the disk unless a test asks for it.
PROPERTIES: dict[str, str] = {
    "repl-diskless-sync-delay": "0",
    "save": "''",
    "appendonly": "no",
    "bind": "127.0.0.1",
    "databases": "16",
}


class RedisServer:
    """One server at 127.0.0.1. ``properties`` are lines of redis.conf beside or instead of ``PROPERTIES``.

    ``password`` is that of the default user, ``user`` one who may do no more than pusher needs, with ``user_password``.
    With ``tls`` it speaks nothing but TLS, with a certificate of ``ca_file``. ``replica_of`` is another server.
    """

    def __init__(
        self,
        directory: Path,
        *,
        password: str = "",
        user: str = "",
        user_password: str = "",
        tls: bool = False,
        maxmemory: str = "",
        replica_of: RedisServer | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.host = "127.0.0.1"
        self.ca_file = ""
        self._password = password
        lines = PROPERTIES | {"dir": str(directory)} | (self._tls_lines() if tls else {"port": str(self.port)})
        if password:
            lines |= {"requirepass": f'"{password}"', "masterauth": f'"{password}"'}
        if user:
            lines["user"] = f"{user} on >{user_password} ~* -@all +@connection +@scripting +@read +@write -@dangerous"
        if maxmemory:
            lines |= {"maxmemory": maxmemory, "maxmemory-policy": "noeviction"}
        if replica_of is not None:
            lines["replicaof"] = f"{replica_of.host} {replica_of.port}"
        self._file = directory / "redis.conf"
        self._file.write_text("".join(f"{name} {value}\n" for name, value in (lines | dict(properties or {})).items()))
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    def start(self) -> RedisServer:
        """Waits until it answers. Raises ``RuntimeError`` with the end of its log where it does not."""
        if shutil.which(PROGRAM) is None:
            raise RuntimeError(f"there is no {PROGRAM}: run `scripts/services install`")
        log = self.directory / "redis.log"
        with log.open("ab") as out:
            command = ["setpriv", "--pdeathsig", "KILL", PROGRAM, str(self._file)]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis does not answer at {self.address}:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        return self

    def client(self, db: int = 0) -> redis.Redis:
        """A client of its administrator. The caller closes it."""
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": self.ca_file} if self.ca_file else {}
        return redis.Redis(
            self.host,
            self.port,
            db,
            self._password or None,
            decode_responses=True,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
            **tls,
        )

    def all_keys(self, db: int = 0) -> list[str]:
        """All keys of a database, sorted."""
        with self.client(db) as client:
            return sorted(client.keys())

    def promote(self) -> None:
        """Makes a replica a master."""
        with self.client() as client:
            client.replicaof("NO", "ONE")

    def restart(self) -> None:
        """Ends it in order and starts it again, as fast as it can; it has what it keeps on the disk."""
        assert self._child is not None, f"{self.address} was never started"
        with self.client() as client:
            client.shutdown(now=True)
        self._child.wait(10)
        self.start()

    def stop(self) -> None:
        """Ends it in order; does nothing where it does not run."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
            self._child.wait(10)
            self._child = None

    def kill(self) -> None:
        """Kill -9."""
        assert self._child is not None, f"{self.address} was never started"
        self._child.kill()
        self._child.wait()
        self._child = None

    def freeze(self) -> None:
        """It accepts connections and answers nothing."""
        assert self._child is not None, f"{self.address} was never started"
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """After ``freeze``."""
        assert self._child is not None, f"{self.address} was never started"
        self._child.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError), self.client() as client:
            return bool(client.ping())
        return False

    def _tls_lines(self) -> dict[str, str]:
        ca = make_ca()
        self.ca_file, _ = ca.write(self.directory, "ca")
        certificate, key = make_server_certificate(ca).write(self.directory, "server")
        files = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": self.ca_file}
        return {"port": "0", "tls-port": str(self.port), "tls-auth-clients": "no", **files}
