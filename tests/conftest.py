"""Every test runs as the daemon does: under gevent, patched before anything else is imported."""

from gevent import monkey

monkey.patch_all()

import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator

import gevent
import pytest

from lab.admin_client import Process, no_greenlet
from pusher.daemon.admin.port import AdminPort


#: In a worker of pytest-xdist, a thread that was started before the patches tells which test is next. The hub does not
#: know of it and would give up waiting ("would block forever") without a watcher of its own.
NEXT_TEST = gevent.get_hub().loop.async_()
if "PYTEST_XDIST_WORKER" in os.environ:
    NEXT_TEST.start(lambda: None)

#: A run in the background (`make test &`, nohup) ignores these, and so would every process that a test starts.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)

#: where `make services` listens, and config/default.yaml points
KAFKA_BROKERS = os.environ.get("PUSHER_TEST_KAFKA_BROKERS", "localhost:9941")
POSTGRES_DSN = os.environ.get(
    "PUSHER_TEST_POSTGRES_DSN", "host=localhost port=8585 user=pusher_user dbname=push connect_timeout=5"
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What tests have logged is sent from the workers to the terminal as UTF-8, which has no lone surrogates."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def kafka_brokers() -> str:
    """Address of the shared Kafka. Tests use topic and group names of their own and leave no consumer behind."""
    require_listener("Kafka", KAFKA_BROKERS.split(",")[0])
    return KAFKA_BROKERS


@pytest.fixture(scope="session")
def postgres_dsn() -> str:
    """libpq connection string of the shared PostgreSQL, database push."""
    fields = dict(field.split("=", 1) for field in POSTGRES_DSN.split())
    require_listener("PostgreSQL", f"{fields.get('host', 'localhost')}:{fields.get('port', '5432')}")
    return POSTGRES_DSN


def require_listener(service: str, address: str) -> None:
    """Fail the test with one line when nothing listens at address (host:port); waits at most 5 s."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        pytest.fail(f"{service} does not answer at {address} ({error}): run `make services` first", pytrace=False)


@pytest.fixture(autouse=True)
def hooks() -> Iterator[None]:
    """What tells of exceptions that nobody caught is as it was, after a test that has set up the log."""
    kept = threading.excepthook, sys.unraisablehook
    yield
    vars(gevent.get_hub()).pop("print_exception", None)
    threading.excepthook, sys.unraisablehook = kept


@pytest.fixture
def process() -> Process:
    """What the admin port of a daemon is about."""
    return Process()


@pytest.fixture
def admin(process: Process) -> Iterator[AdminPort]:
    """The admin port of `process`, at a free port."""
    port = process.port()
    port.start(no_greenlet)
    yield port
    port.stop(1.0)
