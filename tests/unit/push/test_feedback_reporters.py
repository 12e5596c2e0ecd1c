"""Feedback reporters behind their doors: several at once, one in trouble, one that cannot be loaded."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from pusher import config
from pusher.broker.interface import Done, Publisher, PublishError, RecordTooLarge
from pusher.config import doors
from pusher.config.kafka import BrokerSettings
from pusher.daemon.greenlets import Greenlets
from pusher.daemon.publishers import Publishers
from pusher.daemon.reporters import FeedbackReporters
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.push.contained import Contained
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane, LaneSettings
from pusher.push.outcome import DELIVERED
from pusher.push.pipeline import Pipeline
from pusher.push.reporter import Around, FeedbackReporter, Report
from pusher.push.retry import RetryPolicy
from pusher.push.storing import Reported, Storing
from pusher.push.topics import TopicName
from pusher.telemetry.stats import Stats
from tests.publisher import Clock, ListPublisher
from tests.records import record, tracker

TOPIC = "push-game_apns-single"
NAME = TopicName("game", "apns")


def fail(error: BaseException) -> None:
    raise error


def no_publisher(at: BrokerSettings) -> Publisher:
    raise AssertionError(at)


class Plugged:
    """A reporter in the hands of a test."""

    def __init__(self, error: Exception | None = None) -> None:
        self.reported: list[tuple[TopicName, bytes, Done]] = []
        self.error = error
        self.full = False

    def for_app(self, name: TopicName) -> Report:
        return partial(self.report, name)

    def report(self, name: TopicName, value: bytes, done: Done) -> None:
        if self.error is not None:
            raise self.error
        self.reported.append((name, value, done))

    def check(self) -> str:
        return "fine"

    def settle(self, error: PublishError | None = None) -> None:
        reported, self.reported = self.reported, []
        for _, _, done in reported:
            done(error)


class App:
    """A lane with its reporters, and a push that has ended."""

    def __init__(self, *reporters: FeedbackReporter) -> None:
        self.clock = Clock(100.0)
        settings = LaneSettings("game", "apns", "apns", "pod-1", RetryPolicy(1.0, 3))
        self.stats = Stats("test")
        self.lane: Lane[ApnsPush] = Lane(
            settings, ApnsParser("com.game"), apns_feedback, reporters, self.stats, clock=self.clock
        )
        self.pipeline = Pipeline("apns", ("game",), pytest.fail, self.stats, "")
        self.pipeline.lanes["game"] = self.lane
        self.tracker, self.offset = tracker(TOPIC), 0

    def end_a_push(self) -> None:
        value = {"DeviceToken": "ab12", "Payload": {"aps": {"alert": "hi"}}, "metadata": {"big": "x" * 99}}
        self.pipeline.submit(self.tracker, self.tracker.admit([record(value, self.offset, TOPIC)]))
        (push,) = self.lane.take(9, 0.0)
        self.lane.handed_over([push])
        self.lane.finish(push, DELIVERED)


def contained(plugged: FeedbackReporter) -> Contained:
    return Contained("hook (pusher-hook 1.0)", plugged, fail)


def test_a_push_is_finished_when_every_reporter_has_stored_its_outcome() -> None:
    kafka, hook = ListPublisher(), Plugged()
    app = App(FeedbackTopics(kafka), contained(hook))
    app.end_a_push()
    ((topic, value, _, _),) = kafka.records
    assert (topic, hook.reported[0][:2]) == ("push-game-apns-feedbacks", (NAME, value))
    kafka.settle(None)
    assert app.tracker.low == 0
    hook.settle()
    assert app.tracker.low == 1


def test_one_that_cannot_store_holds_up_the_offset_and_is_named_until_it_can() -> None:
    kafka, hook = ListPublisher(), Plugged()
    app = App(FeedbackTopics(kafka), contained(hook))
    app.end_a_push()
    kafka.settle(None)
    hook.settle(PublishError("503 from https://example"))
    assert (app.tracker.low, app.lane.full) == (0, True)
    assert app.lane.blocked == "feedbacks cannot be stored: hook (pusher-hook 1.0): 503 from https://example"
    app.clock.now += 20
    app.lane.tick()
    assert kafka.records == []
    hook.settle()
    assert (app.tracker.low, app.lane.blocked) == (1, "")


def test_its_waits_grow() -> None:
    hook = Plugged()
    app = App(contained(hook))
    app.end_a_push()
    hook.settle(PublishError("away"))
    for wait_s in (5, 10, 20):
        app.clock.now += wait_s / 2 - 0.01
        app.lane.tick()
        assert hook.reported == []
        app.clock.now += wait_s / 2 + 0.01
        app.lane.tick()
        hook.settle(PublishError("away"))


def test_one_that_raises_holds_up_its_app_and_not_the_process() -> None:
    hook = Plugged(RuntimeError("no disk\nwith a second line"))
    app = App(contained(hook))
    app.end_a_push()
    assert app.lane.blocked == "feedbacks cannot be stored: hook (pusher-hook 1.0): RuntimeError: no disk"
    hook.error = None
    app.clock.now += 20
    app.lane.tick()
    hook.settle()
    assert app.tracker.low == 1


def test_what_is_answered_twice_counts_once() -> None:
    kafka, hook = ListPublisher(), Plugged()
    app = App(FeedbackTopics(kafka), contained(hook))
    app.end_a_push()
    done = hook.reported[0][2]
    done(None)
    done(None)
    assert app.tracker.low == 0
    kafka.settle(None)
    assert app.tracker.low == 1


def test_what_is_too_large_is_told_again_without_the_producers_metadata() -> None:
    hook = Plugged()
    app = App(contained(hook))
    app.end_a_push()
    hook.settle(RecordTooLarge("100 bytes are allowed"))
    assert b"big" not in hook.reported[0][1]
    hook.settle()
    assert app.tracker.low == 1


def test_what_answers_no_push_is_stored_when_every_reporter_has_it() -> None:
    kafka, hook = ListPublisher(), Plugged()
    app = App(FeedbackTopics(kafka), contained(hook))
    stored: list[bool] = []
    app.lane.publish(lambda _, now_s: b"{}", lambda: stored.append(True))
    hook.settle()
    assert not stored
    kafka.settle(None)
    assert stored == [True]


def test_one_that_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, hook = Clock(0.0), Plugged()
    one = Contained("hook", hook, fail, clock)
    assert one.health().ready
    one.for_app(NAME)(b"{}", lambda _: None)
    clock.now += 61
    assert one.health() == (False, "has stored nothing for 61 s")
    hook.settle()
    assert one.health().ready


def test_one_that_keeps_its_callers_waiting_is_named(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(0.0)

    class Slow(Plugged):
        def report(self, name: TopicName, value: bytes, done: Done) -> None:
            clock.now += 3
            done(None)

    Contained("hook (pusher-hook 1.0)", Slow(), fail, clock).for_app(NAME)(b"{}", lambda _: None)
    (line,) = caplog.records
    assert line.__dict__["fields"] == {"plug_in": "hook (pusher-hook 1.0)", "took_s": 3}


# --- a function that waits


class Store:
    """A function of a plug-in."""

    def __init__(self) -> None:
        self.stored: list[Reported] = []
        self.error: Exception | None = None
        self.blocks_s = 0.0

    def __call__(self, feedbacks: Sequence[Reported]) -> None:
        if self.blocks_s:
            end = time.monotonic() + self.blocks_s
            while time.monotonic() < end:
                pass
        if self.error is not None:
            raise self.error
        self.stored += feedbacks


class Running:
    """``Storing`` in a greenlet, as a daemon runs it."""

    def __init__(self) -> None:
        self.store, self.answers = Store(), list[PublishError | None]()
        self._greenlets = Greenlets(lambda: None)
        self.reporter = Storing(self._around(), "hook", self.store, lambda: "fine", most=2)

    def _around(self) -> Around:
        return Around(config.parse(""), Stats("h"), no_publisher, self._greenlets.spawn)

    def report(self, number: int) -> None:
        before = len(self.answers)
        for _ in range(number):
            self.reporter.for_app(NAME)(b"{}", self.answers.append)
        with gevent.Timeout(5):
            while len(self.answers) < before + number:
                gevent.sleep(0.001)

    def stop(self) -> None:
        self._greenlets.may_end = True
        self._greenlets.stop(1)


@pytest.fixture
def running() -> Iterator[Running]:
    found = Running()
    yield found
    found.stop()


def test_a_function_gets_all_outcomes_and_what_it_raises_is_the_answer_to_its_part(running: Running) -> None:
    running.report(5)
    assert running.store.stored == [Reported("game", "apns", b"{}")] * 5
    running.store.error = OSError("no route")
    running.report(1)
    running.store.error = None
    running.report(1)
    assert [str(answer) for answer in running.answers] == [*["None"] * 5, "OSError: no route", "None"]


def test_a_function_that_lets_nothing_else_run_is_named(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pusher.telemetry.watch.LIMIT_S", 0.1)
    running.store.blocks_s = 0.2
    running.report(1)
    (line,) = [line for line in caplog.records if "blocks all other greenlets" in line.message]
    assert line.__dict__["fields"]["reporter"] == "hook"


# --- doors of other packages

HOOK = """
from pusher.push.storing import Storing

def open_reporter(around):
    return Storing(around, "hook", print, lambda: "the hook answers")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with doors, as far as Python can tell."""
    metadata = tmp_path / "pusher_hook-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pusher-hook\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[pusher.feedback]\nhook = pusher_hook:open_reporter\nbroken = pusher_hook_broken:open_reporter\n"
    )
    (tmp_path / "pusher_hook.py").write_text(HOOK)
    (tmp_path / "pusher_hook_broken.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    doors.installed.cache_clear()
    yield tmp_path
    doors.installed.cache_clear()
    for name in ("pusher_hook", "pusher_hook_broken"):
        sys.modules.pop(name, None)


def opened(text: str) -> FeedbackReporters:
    found = config.parse(text)
    greenlets = Greenlets(pytest.fail)
    return FeedbackReporters(found, Stats("h"), Publishers(found, fail), greenlets)


def test_another_packages_reporter_is_used_by_its_name(package: Path) -> None:
    reporters = opened("feedback.reporters: [hook]")
    (hook,) = reporters.all
    assert isinstance(hook, Contained)
    assert (hook.label, hook.check()) == ("hook (pusher-hook 1.0)", "the hook answers")
    assert (reporters.full, reporters.unready()) == (False, [])


def test_one_that_cannot_be_imported_is_named_and_nothing_is_consumed(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reporters = opened("feedback.reporters: [broken]")
    assert reporters.full
    (reason,) = reporters.unready()
    assert reason.startswith("pusher.feedback broken (pusher-hook 1.0): cannot be imported: ModuleNotFoundError: ")
    assert len(caplog.records) == 1


def test_an_unknown_name_is_refused_with_those_that_are_installed(package: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"\(kafka, hook, broken\); 'rabbit' is not"):
        config.parse("feedback.reporters: rabbit")


def test_check_lists_the_doors_and_asks_the_reporters(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pusher.commands.check import check_sender

    text = f"queue.brokers: sqlite:///{tmp_path}/q.db\nfeedback.reporters: [hook]"
    assert check_sender("apns", config.parse(text)) == 0
    lines: Any = capsys.readouterr().out.splitlines()
    assert "door    pusher.feedback hook (pusher-hook 1.0)" in lines
    assert "ok      feedback.reporters hook: the hook answers" in lines
    assert any(
        line.startswith("door    pusher.feedback broken (pusher-hook 1.0): cannot be imported") for line in lines
    )
    assert any(line.startswith("door    pusher.brokers sqlite (pusherd ") for line in lines)


def test_a_package_that_cannot_be_imported_costs_no_other_its_settings(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pusher.config import settings
    from pusher.providers.provider import providers

    broken = "pusher_hook_broken"
    entries = package / "pusher_hook-1.0.dist-info/entry_points.txt"
    entries.write_text(f"[pusher.settings]\nhook = {broken}\n[pusher.providers]\nhook = {broken}:PROVIDER\n")
    caches: list[Any] = [doors.installed, settings.declared, settings._plugged_in, providers]
    for one in caches:
        one.cache_clear()
    try:
        found = config.parse("apns.apps: [game]")
        assert [line.partition(": ")[0] for line in found.warnings] == ["pusher.settings hook (pusher-hook 1.0)"]
        assert list(providers()) == ["apns", "gcm"]
    finally:
        for one in caches:
            one.cache_clear()
