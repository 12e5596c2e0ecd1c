"""Security of connections to Kafka: TLS and the login of clients."""

from __future__ import annotations

import base64
import json
import shlex
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from pusher.errors import StartError

if TYPE_CHECKING:
    from pusher.config.kafka import KafkaSettings
    from pusher.config.values import Config

#: A token is asked for again this long before it expires; one whose expiry cannot be read is kept no longer than this.
_EARLY_S = 30.0
#: How long the command that prints a token may take. The client's other connections wait meanwhile.
_COMMAND_S = 4.0


class TokenError(Exception):
    """There is no token to log in with; the text says why."""


class KafkaTokens(Protocol):
    """Where the tokens of OAUTHBEARER come from."""

    def token(self) -> str:
        """A token for a login that begins now. May wait some seconds; raises ``TokenError``."""
        ...


@dataclass(frozen=True)
class Access:
    """The settings of ``kafka.*`` as values; see docs/configuration.md."""

    client: str = "kafka-python"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "none"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    sasl_token_file: str = ""
    sasl_token_command: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password: str = field(default="", repr=False)
    client_id: str = "pusher"
    rack: str = ""
    group_instance_id: str = ""
    group_protocol: str = "classic"
    isolation_level: str = "read_committed"

    @classmethod
    def from_config(cls, config: Config, common: KafkaSettings, own: KafkaSettings) -> Access:
        """The settings of one role: its own values, else the values for all roles."""
        values = {}
        for name in (found.name for found in fields(cls)):
            setting = getattr(own, name)
            values[name] = config[setting if config.where(setting) != "default" else getattr(common, name)]
        values["client_id"] = values["client_id"] or "-".join(filter(None, ("pusher", config.command)))
        return cls(**values)

    @property
    def encrypted(self) -> bool:
        """Whether connections speak TLS."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def logs_in(self) -> bool:
        """Whether connections begin with a login."""
        return self.security_protocol.startswith("SASL_")

    def login(self) -> KafkaTokens | None:
        """The source of the tokens for OAUTHBEARER, if it is used; verifies the settings of the login.

        Raises ``StartError`` with one line where they do not go together.
        """
        if not self.logs_in:
            if self.sasl_mechanism != "none":
                raise StartError(
                    f"kafka.saslMechanism is {self.sasl_mechanism}, but kafka.securityProtocol is "
                    f"{self.security_protocol}: set SASL_SSL, or SASL_PLAINTEXT where the network is trusted"
                )
            return None
        if self.sasl_mechanism == "none":
            raise StartError(f"kafka.saslMechanism: {self.security_protocol} needs one, SCRAM-SHA-512 for example")
        if self.sasl_mechanism == "OAUTHBEARER":
            return self._tokens()
        if not (self.sasl_username and self.sasl_password):
            raise StartError(f"kafka.saslUsername and kafka.saslPassword: {self.sasl_mechanism} needs both")
        return None

    def _tokens(self) -> KafkaTokens:
        if bool(self.sasl_token_file) == bool(self.sasl_token_command):
            raise StartError("OAUTHBEARER needs one of kafka.saslTokenFile and kafka.saslTokenCommand")
        return FileToken(self.sasl_token_file) if self.sasl_token_file else CommandToken(self.sasl_token_command)

    def tls(self) -> ssl.SSLContext:
        """How connections are encrypted. Reads the files; raises ``StartError`` with one line."""
        context = ssl.create_default_context(cafile=None) if not self.ca_file else _trusting(self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file:
            try:
                # A function, because without a password OpenSSL would ask for it on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file or None, lambda: self.key_password)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) if isinstance(error, FileNotFoundError) else None
                raise StartError(
                    f"kafka.certFile, kafka.keyFile, kafka.keyPassword: {self.cert_file} cannot be used: "
                    f"{reason or 'no PEM certificate with its key, or a wrong password'}"
                ) from None
        elif self.key_file:
            raise StartError("kafka.keyFile: kafka.certFile is missing")
        return context


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise StartError(f"kafka.caFile: {ca_file} holds no PEM certificate") from None
    except OSError as error:
        raise StartError(f"kafka.caFile: cannot read {ca_file}: {error.strerror}") from None


class FileToken:
    """The token in a file, which another program keeps current."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def token(self) -> str:
        """Read for each login. Raises TokenError."""
        try:
            return _checked(self._path.read_text(), f"kafka.saslTokenFile: {self._path}")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"kafka.saslTokenFile: cannot read {self._path}: {error}") from None


class CommandToken:
    """The token that a command prints, kept until shortly before it expires."""

    def __init__(self, command: str, clock: Callable[[], float] = time.time) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise StartError(f"kafka.saslTokenCommand: {error}") from None
        self._clock = clock
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        """May wait some seconds for the command. Raises TokenError."""
        if self._clock() >= self._until:
            self._token = _checked(self._run(), f"kafka.saslTokenCommand: {self._command[0]}")
            expires = expiry(self._token)
            self._until = self._clock() + _EARLY_S if expires is None else expires - _EARLY_S
        return self._token

    def _run(self) -> str:
        try:
            done = subprocess.run(  # noqa: S603  # the operator's own command
                self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_S, check=True, text=True
            )
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
            reason = (
                f"exited with status {error.returncode}"
                if isinstance(error, subprocess.CalledProcessError)
                else "fails"
            )
            if isinstance(error, subprocess.TimeoutExpired):
                reason = f"takes longer than {_COMMAND_S:g} s"
            elif isinstance(error, OSError):
                reason = error.strerror or "cannot be run"
            raise TokenError(f"kafka.saslTokenCommand: {self._command[0]} {reason}") from None
        return done.stdout


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError(f"{where} contains no token")
    return token


def expiry(token: str) -> float | None:
    """When a JWT expires (RFC 7519, "exp", seconds since the epoch); None where it does not say so."""
    parts = token.split(".")
    if len(parts) != 3:  # RFC 7515, "JWS Compact Serialization"
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None


class KafkaClient(Protocol):
    """A consumer or a producer."""

    def use(self, settings: dict[str, Any]) -> None:
        """Makes new connections use these settings; existing connections continue."""
        ...


class Login:
    """The access that is in use, for clients that may live longer than its secrets.

    ``settings_of`` makes an access the settings of one library; it reads files and raises ``StartError``.
    """

    def __init__(self, access: Access, settings_of: Callable[[Access], dict[str, Any]]) -> None:
        self.access = access
        self.settings = settings_of(access)
        self._settings_of = settings_of
        self._clients: WeakSet[Any] = WeakSet()

    def attach(self, client: KafkaClient) -> None:
        """A client that uses what ``reload`` returns."""
        self._clients.add(client)

    def reload(self, access: Access) -> bool:
        """Lets new connections use what has changed, in files too; whether other settings are given. ``StartError``."""
        access = replace(access, client_id=self.access.client_id)
        settings = self._settings_of(access)
        changed, self.access, self.settings = access != self.access, access, settings
        for client in list(self._clients):
            client.use(settings)
        return changed
