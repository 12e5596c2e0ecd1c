"""The address of a database, and the parameters of its connections."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from pusher.config.values import Config
from pusher.listener.stores.postgres import settings


@dataclass(frozen=True)
class Address:
    """Where the database is and how it is spoken to. Times in seconds."""

    #: One host, or several with commas; a path is a directory of sockets; "" is libpq's default.
    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_mode: str
    ssl_root_cert: str
    statement_timeout_s: float

    @classmethod
    def from_config(cls, config: Config) -> Address:
        """From the settings."""
        return cls(
            host=config[settings.HOST],
            port=config[settings.PORT],
            user=config[settings.USER],
            password=config[settings.PASSWORD],
            database=config[settings.DATABASE],
            ssl_mode=config[settings.SSL_MODE],
            ssl_root_cert=config[settings.SSL_ROOT_CERT],
            statement_timeout_s=config[settings.STATEMENT_TIMEOUT],
        )

    def __str__(self) -> str:
        return f"{self.host or 'localhost'}:{self.port}/{self.database}"

    def parameters(self) -> dict[str, Any]:
        """The parameters for libpq; resolves the hosts. Waits for that; raises ``OSError``."""
        found: dict[str, Any] = {
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "sslmode": self.ssl_mode,
            "sslrootcert": self.ssl_root_cert,
            "application_name": "pusher",
            "client_encoding": "UTF8",
            "keepalives_idle": 30,
            # Rows can be deleted on a primary only.
            "target_session_attrs": "read-write",
        }
        hosts = [pair for host in self.host.split(",") if host for pair in _resolved(host.strip(), self.port)]
        if hosts:
            found["host"] = ",".join(host for host, _ in hosts)
            found["hostaddr"] = ",".join(address for _, address in hosts)
        return {key: value for key, value in found.items() if value != ""}


def _resolved(host: str, port: int) -> list[tuple[str, str]]:
    """The addresses of a host, each with its name, against which the certificate is checked."""
    if host.startswith(("/", "@")):
        return [(host, "")]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(host, address) for address in dict.fromkeys(str(entry[4][0]) for entry in found)]
