import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from pusher.errors import StartError
from pusher.telemetry import sentry


class Sentry:
    """Takes events, as soon as it is let."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.may_answer = Event()
        self.may_answer.set()
        self.status = "200 OK"
        self.server = WSGIServer(("127.0.0.1", 0), self._serve, log=None)

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        body = environ["wsgi.input"].read()
        self.requests.append(environ)
        self.may_answer.wait()
        # an envelope is lines: its header, an item's header, the item
        event = body.split(b"\n")[2] if environ["PATH_INFO"].endswith("/envelope/") else zlib.decompress(body)
        self.events.append(json.loads(event))
        start_response(self.status, [])
        return [b"{}"]

    @property
    def dsn(self) -> str:
        return f"http://key:word@127.0.0.1:{self.server.server_port}/42"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sentry]:
    for name in ("SENTRY_DSN", "SENTRY_RELEASE", "SENTRY_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    found = Sentry()
    found.server.start()
    yield found
    found.may_answer.set()
    sentry.flush(5)
    sentry.setup("", command="")
    found.server.stop()


@pytest.fixture(params=sentry.LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_message_with_its_tags(library: str, server: Sentry) -> None:
    sentry.setup(server.dsn, command="apns", library=library)
    sentry.report("no app can be served", extension="kafka-consumer")
    assert sentry.flush(5)
    (event,) = server.events
    assert event["message"] == "no app can be served"
    assert dict(event["tags"]) == {"version": "3.6.1", "cmd": "apns", "extension": "kafka-consumer"}
    endpoint = {"raven": "store", "sentry-sdk": "envelope"}[library]
    assert server.requests[0]["PATH_INFO"] == f"/api/42/{endpoint}/"
    assert "sentry_key=key" in server.requests[0]["HTTP_X_SENTRY_AUTH"]


def test_an_exception_with_its_trace_but_without_its_variables(library: str, server: Sentry) -> None:
    sentry.setup(server.dsn, command="apns", library=library)
    token = "a device's token"
    try:
        raise ValueError(len(token))
    except ValueError:
        sentry.report_exception(handler="invalidToken")
    assert sentry.flush(5)
    (event,) = server.events
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "16")
    assert exception["stacktrace"]["frames"][-1]["function"].startswith("test_an_exception")
    assert dict(event["tags"])["handler"] == "invalidToken"
    assert token not in json.dumps([{**frame, "pre_context": [], "context_line": ""} for frame in frames(event)])
    assert not any("vars" in frame for frame in frames(event))
    assert "sys.argv" not in event.get("extra", {})


def frames(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [frame for value in event["exception"]["values"] for frame in value["stacktrace"]["frames"]]


def test_the_exception_of_a_greenlet(library: str, server: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> None:
        raise KeyError("gone")

    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)  # its trace is not wanted on stderr
    greenlet = gevent.spawn(die)
    greenlet.join()
    sentry.setup(server.dsn, command="apns", library=library)
    sentry.report_exception(greenlet.exc_info, greenlet="consuming")
    assert sentry.flush(5)
    assert server.events[0]["exception"]["values"][0]["type"] == "KeyError"


def test_reporting_waits_for_nobody_and_cannot_pile_up(
    library: str, server: Sentry, caplog: pytest.LogCaptureFixture
) -> None:
    sentry.setup(server.dsn, command="apns", library=library)
    server.may_answer.clear()
    for number in range(80):
        sentry.report(f"message {number}")
    assert not sentry.flush(0.01)
    assert "too many Sentry events at once, some are dropped" in caplog.messages
    server.may_answer.set()
    assert sentry.flush(5)
    assert {event["message"] for event in server.events} == {f"message {number}" for number in range(50)}


def test_an_absent_sentry_is_a_warning(library: str, server: Sentry, caplog: pytest.LogCaptureFixture) -> None:
    dsn = server.dsn
    server.server.stop()
    sentry.setup(dsn, command="apns", library=library)
    sentry.report("lost")
    assert sentry.flush(5)
    assert caplog.messages == ["Sentry cannot be reached"]


def test_the_variables_of_sentry(library: str, server: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", server.dsn)
    monkeypatch.setenv("SENTRY_RELEASE", "r1")
    monkeypatch.setenv("SENTRY_ENVIRONMENT", "staging")
    sentry.setup("", command="gcm", library=library)
    sentry.report("hello")
    assert sentry.flush(5)
    assert (server.events[0]["release"], server.events[0]["environment"]) == ("r1", "staging")


def test_without_a_dsn_nothing_happens(library: str, server: Sentry) -> None:
    sentry.setup("", command="apns", library=library)
    sentry.report("nobody hears")
    sentry.report_exception(None)
    assert sentry.flush(1)
    assert server.requests == []


@pytest.mark.parametrize(
    "dsn", ["nonsense", "https://host/1", "https://key@nohost", "ftp://key@host/1", "https://key@:x/1"]
)
def test_a_bad_dsn_is_a_configuration_error_that_does_not_show_it(library: str, server: Sentry, dsn: str) -> None:
    with pytest.raises(StartError) as raised:
        sentry.setup(dsn, command="apns", library=library)
    assert str(raised.value).startswith("sentry.url: not a Sentry DSN; give one such as")
    assert dsn not in str(raised.value)
