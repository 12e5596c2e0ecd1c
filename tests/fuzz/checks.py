"""``--check`` with random settings: a line for each finding, exit status 0 or 2, no trace, and no secret.

The command line runs in this process. What lies outside of it is left out: no name is resolved, and of the check of
Kafka only what needs no broker is run.
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn
from unittest import mock

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pusher.broker.kafka.reader import KafkaReader
from pusher.commands import check, cli
from pusher.config import settings
from pusher.config.schema import variable
from pusher.errors import StartError
from pusher.providers.provider import provider, words
from pusher.sim.certificate import make_p8
from pusher.telemetry import log
from tests.faults.driver import nested
from tests.fuzz.answers import KEY
from tests.fuzz.draw import Draw

KEYS = tuple(setting.key.replace("<app>", "game") for setting in settings.declared())
COMMANDS = (*(provider(word).word for word in words()), "start-feedback-listener")
#: How long is tried to connect: other values would only keep the fuzzer waiting.
PATIENCE = {"apns.connectTimeout": "1ms", "feedbackListeners.invalidToken.pg.connectionTimeout": "1ms"}
P8 = make_p8().decode()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
ACCOUNT = {"type": "service_account", "project_id": "project", "private_key": PEM, "client_email": "a@example.com"}
PASSWORD = "correct-horse-battery"
#: What is shown nowhere, wherever it was put.
SECRETS = (P8.splitlines()[1], PEM.splitlines()[1], PASSWORD)
#: What people put into settings by mistake, and what is a value for some.
VALUES = (
    P8,
    json.dumps(ACCOUNT),
    json.dumps({"private_key": PEM}),
    f"https://user:{PASSWORD}@host/",
    f"host:1,user:{PASSWORD}@host:2",
    f"http://user:{PASSWORD}@host:1",
    f"postgres://user:{PASSWORD}@host/name",
    "application-default",
    "SASL_SSL",
    "SSL",
    "SCRAM-SHA-512",
    "OAUTHBEARER",
    "host:1,[::1]:2",
    "sqlite:///queue.db",
    "^push-[.*",
    "/dev/null",
    ".",
    "a\r\nb: c",
    "\ta",
    "1",
    "0",
    "true",
    "none",
    "a, b",
    "https://host",
)
FCM = {"firebaseCredentials": {"game": json.dumps(ACCOUNT)}}
XMPP = {"certs": {"game": {"senderID": "1", "apiKey": "key"}}}
BASE = {
    "apns": {"apps": "game"},
    "apns.certs.game": {"authKeyPath": P8, "keyID": "ABC123DEFG", "teamID": "DEF123GHIJ", "topic": "com.game"},
    "queue.brokers": "sqlite:///queue.db",
    "feedback.kafka.brokers": "sqlite:///queue.db",
    "feedbackListeners.queue.brokers": "sqlite:///queue.db",
    **PATIENCE,
}


def command(data: bytes) -> None:
    """A command, and up to three settings with values of any kind, each in the file, a variable or a flag."""
    draw = Draw(data)
    name = draw.choice(COMMANDS)
    flat: dict[str, object] = {**BASE, "gcm": {"apps": "game", **(XMPP if draw.flag() else FCM)}}
    environ, flags = {}, []
    for _ in range(1 + draw.number(3)):
        key, place = draw.choice(KEYS), draw.number(3)
        value = draw.choice(VALUES) if draw.flag() else draw.short().decode("utf-8", "replace").replace("\0", "")
        if key in PATIENCE:
            continue
        if place == 0:
            flat[key] = value
        elif place == 1:
            environ[variable(key)] = value
        else:
            flags.append(f"--{key}={value}")
    _run(name, yaml.safe_dump(nested(flat)), environ, flags)


def _run(name: str, file: str, environ: Mapping[str, str], flags: Sequence[str]) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        out, err = stack.enter_context(_captured())
        logged = stack.enter_context(_logged())
        stack.enter_context(_apart(folder, environ))
        Path("config.yaml").write_text(file)
        status = cli.main([name, "--check", "--config", "config.yaml", *flags])
    findings, said = out.getvalue().splitlines(), err.getvalue().splitlines()
    assert status in (check.OK, check.CANNOT_START)
    assert all(line.startswith(("ok      ", "failed  ", "door    ")) for line in findings), (
        "a finding is more than a line"
    )
    assert (status == check.CANNOT_START) == (any(line.startswith("failed") for line in findings) or bool(said))
    assert [line[:8] for line in said] in ([], ["pusher: "]), "more than a line"
    for line in [*findings, *said, *(record.getMessage() for record in logged)]:
        assert len(line) < 4_000
        assert not any(secret in line for secret in SECRETS), "a secret is shown"
    assert not any(record.exc_info for record in logged)


@contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        yield out, err


@contextmanager
def _logged() -> Iterator[list[logging.LogRecord]]:
    """What is logged meanwhile. The command leaves the logging of this process as it is."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign,assignment]
    root, disabled = logging.getLogger(), logging.root.manager.disable
    logging.disable(logging.NOTSET)
    root.addHandler(handler)
    try:
        with mock.patch.object(log, "setup"):
            yield found
    finally:
        root.removeHandler(handler)
        logging.disable(disabled)


@contextmanager
def _apart(folder: str, environ: Mapping[str, str]) -> Iterator[None]:
    """In a folder of its own, with these variables, and without a network."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            mock.patch.dict(os.environ, environ, clear=True),
            mock.patch.object(socket, "getaddrinfo", _unknown),
            mock.patch.object(KafkaReader, "reach_brokers", _no_brokers),
        ):
            yield
    finally:
        os.chdir(before)


def _unknown(host: object, *_: object, **__: object) -> NoReturn:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _no_brokers(_: KafkaReader) -> NoReturn:
    raise StartError("no brokers here")
