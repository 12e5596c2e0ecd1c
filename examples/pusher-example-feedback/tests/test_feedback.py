"""The reporter ``webhook``, beside Kafka's, in a process of ``pusher``'s own and in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from pusher import config
from pusher.broker.interface import PublishError
from pusher.daemon.greenlets import Greenlets
from pusher.daemon.publishers import Publishers
from pusher.daemon.reporters import FeedbackReporters
from pusher.push.topics import TopicName
from pusher.telemetry.stats import Stats

NAME = TopicName("game", "apns")


class Hook:
    """A server that stores, unless it is told to fail."""

    def __init__(self) -> None:
        self.stored: list[object] = []
        self.tokens: list[str] = []
        self.status = "204 No Content"
        self._server = WSGIServer(("127.0.0.1", 0), self._serve, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/outcomes"

    def stop(self) -> None:
        self._server.stop()

    def _serve(self, environ: dict, start_response) -> list[bytes]:  # type: ignore[no-untyped-def, type-arg]
        self.tokens.append(environ.get("HTTP_AUTHORIZATION", ""))
        lines = environ["wsgi.input"].read().splitlines()
        if self.status.startswith("2"):
            self.stored += [json.loads(line) for line in lines]
        start_response(self.status, [])
        return [b""]


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.stop()


def fail(error: BaseException) -> None:
    raise error


def test_what_is_reported_is_stored_or_the_reporter_is_named(hook: Hook) -> None:
    found = config.parse(
        f"feedback.reporters: [webhook]\nfeedback.webhook.url: {hook.url}\nfeedback.webhook.token: secret"
    )
    greenlets, stats = Greenlets(lambda: None), Stats("here")
    reporters = FeedbackReporters(found, stats, Publishers(found, fail), greenlets)
    report = reporters.all[0].for_app(NAME)
    answers: list[PublishError | None] = []
    for number in range(3):
        report(b'{"number": %d}' % number, answers.append)
    assert reporters.flush(10) == ""
    assert (hook.stored, answers, hook.tokens[0]) == ([{"number": n} for n in range(3)], [None] * 3, "Bearer secret")
    hook.status = "503 Service Unavailable"
    report(b"{}", answers.append)
    with gevent.Timeout(10):
        while len(answers) < 4:
            gevent.sleep(0.01)
    expected = f"webhook (pusher-example-feedback 1.0): ExchangeFailed: {hook.url} answered 503"
    assert str(answers[3]) == expected
    greenlets.may_end = True
    greenlets.stop(1)
    assert [(sample.metric.name, sample.value) for sample in stats.snapshot()] == [("webhook_stored", 3)]


def check(hook: Hook, directory: Path) -> str:
    command = [sys.executable, "-m", "pusher", "apns", "--check", "--feedback.reporters=webhook"]
    flags = [f"--feedback.webhook.url={hook.url}", f"--queue.brokers=sqlite:///{directory}/q.db"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60, check=False, cwd=directory)
    return done.stdout


def test_check_asks_the_webhook(hook: Hook, tmp_path: Path) -> None:
    assert f"ok      feedback.reporters webhook: {hook.url} accepts outcomes" in check(hook, tmp_path)
    hook.status = "401 Unauthorized"
    assert f"failed  feedback.reporters webhook: {hook.url} answered 401" in check(hook, tmp_path)
