"""What every provider's service must do with a push, whatever the provider does to it: finish it exactly once.

One row of ``PROVIDERS`` a provider: its simulator, the settings of an app "game" served through it, a message, and how
its simulator plays each case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gevent.pool import Group

from lab.processes import wait_until
from pusher import config
from pusher.providers.open_lane import OpenLane
from pusher.providers.provider import provider as provider_of
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane
from pusher.push.outcome import Kind, Outcome
from pusher.push.pipeline import Pipeline
from pusher.sim.apns import ApnsSimulator
from pusher.sim.apns_rules import AppleRules
from pusher.sim.certificate import make_p8
from pusher.sim.fcm import FcmSimulator
from pusher.sim.gcm import GcmSimulator
from pusher.telemetry.stats import Stats
from tests.faults.driver import nested
from tests.publisher import StoringPublisher
from tests.records import record, tracker

PUSHES = 200


@dataclass(frozen=True)
class Provider:
    """One row."""

    name: str
    platform: str
    #: (faults, directory) -> simulator and settings, the keys with their dots.
    open: Callable[[Sequence[str], Path], tuple[Any, dict[str, Any]]]
    #: number -> push request.
    message: Callable[[int], dict[str, Any]]
    #: The feedback's member that tells which push it belongs to.
    id: str
    #: case -> its faults.
    cases: dict[str, tuple[str, ...]]


def open_apns(faults: Sequence[str], directory: Path) -> tuple[Any, dict[str, Any]]:
    simulator = ApnsSimulator(AppleRules(any_token=True), faults, tls_dir=str(directory))
    (directory / "key.p8").write_bytes(make_p8())
    simulator.start()
    certs = {
        "authKeyPath": str(directory / "key.p8"),
        "keyID": "ABC123DEFG",
        "teamID": "DEF123GHIJ",
        "topic": "com.game",
    }
    return simulator, {
        "apns.apps": "game",
        "apns.host": "localhost",
        "apns.port": simulator.port,
        "apns.caFile": simulator.ca_file,
        "apns.certs.game": certs,
        "apns.concurrentWorkers": 50,
        "apns.requestTimeout": "300ms",
        "apns.retry.interval": "10ms",
        # the same pushes may be in flight at each of three cuts
        "apns.retry.maxAttempts": 5,
        "apns.reconnect.interval": "10ms",
        "apns.reconnect.maxInterval": "50ms",
    }


def open_fcm(faults: Sequence[str], directory: Path) -> tuple[Any, dict[str, Any]]:
    account = directory / "account.json"
    simulator = FcmSimulator(faults, tls_dir=str(directory), write_credentials=("project", str(account)))
    simulator.start()
    return simulator, {
        "gcm.apps": "game",
        "gcm.firebaseCredentials.game": str(account),
        "gcm.fcm.endpoint": f"https://localhost:{simulator.port}",
        "gcm.fcm.caFile": simulator.ca_file,
        "gcm.concurrentWorkers": 50,
        "gcm.fcm.requestTimeout": "300ms",
        "gcm.fcm.retry.interval": "10ms",
    }


def open_xmpp(faults: Sequence[str], directory: Path) -> tuple[Any, dict[str, Any]]:
    simulator = GcmSimulator({"123": "key"}, faults, tls_dir=str(directory))
    simulator.start()
    return simulator, {
        "gcm.apps": "game",
        "gcm.certs.game": {"apiKey": "key", "senderID": "123"},
        "gcm.xmpp.host": "localhost",
        "gcm.xmpp.port": simulator.port,
        "gcm.xmpp.caFile": simulator.ca_file,
        "gcm.ackTimeout": "300ms",
        "gcm.retry.interval": "10ms",
    }


_HTTP2 = {
    "answer": (),
    "429": ("429:1/5,retry-after=0,once",),
    "503": ("503:1/5,retry-after=0,once",),
    "reset": ("reset REFUSED_STREAM:1/7,once", "reset CANCEL:1/11,once"),
    "goaway": ("goaway:1/41,times=3", "goaway:1/53,unprocessed,times=3", "drain:1/97,times=1"),
    "cut link": ("cut:1/61,times=3",),
    "silence": ("silence:1/29,once",),
    "late answer": ("ok:1/29,delay=450,once",),
}
PROVIDERS = (
    Provider(
        "apns",
        "apns",
        open_apns,
        lambda number: {"DeviceToken": f"{number:064x}", "Payload": {"aps": {"alert": "hello"}}},
        "DeviceToken",
        _HTTP2 | {"reject": ("410 Unregistered",)},
    ),
    Provider(
        "fcm",
        "gcm",
        open_fcm,
        lambda number: {"to": f"token{number}", "data": {"id": str(number)}},
        "from",
        _HTTP2 | {"reject": ("404 UNREGISTERED",)},
    ),
    Provider(
        "xmpp",
        "gcm",
        open_xmpp,
        lambda number: {"to": f"token{number}", "data": {"id": str(number)}},
        "from",
        {
            "answer": (),
            "reject": ("nack DEVICE_UNREGISTERED",),
            "429": ("nack DEVICE_MESSAGE_RATE_EXCEEDED:1/5,once",),
            "503": ("nack SERVICE_UNAVAILABLE:1/5,once",),
            "reset": ("stanza-error service-unavailable:1/11,once",),
            "goaway": ("drain:1/41,times=1", "end:1/61,times=1"),
            "cut link": ("cut:1/61,times=3",),
            "silence": ("silence:1/29,once",),
            "late answer": ("ack:1/29,delay=450,once",),
        },
    ),
)
CASES = ("answer", "reject", "429", "503", "reset", "goaway", "cut link", "silence", "late answer")


class Bed:
    """The app "game" of a provider in a pipeline, its way composed as the command does it."""

    def __init__(self, provider: Provider, settings: dict[str, Any]) -> None:
        found = config.parse(yaml.safe_dump(nested(settings | {"feedback.reporters": ["kafka"]})), {})
        self.publisher = StoringPublisher()
        stats = Stats("test")
        open_lane = OpenLane("game", provider.platform, "pod-1", [FeedbackTopics(self.publisher)], stats, found)
        self.service: Any = provider_of(provider.platform).build(found, "game", open_lane)
        self.lane: Lane[Any] = self.service.lane
        #: How often each push came to an end that counted.
        self.finishes: Counter[int] = Counter()
        self._finish = self.lane.finish
        self.lane.finish = self._count  # type: ignore[method-assign]
        self.pipeline = Pipeline(provider.platform, ("game",), lambda: self.publisher, stats, "")
        self.pipeline.lanes["game"] = self.lane
        self.topic = f"push-game_{provider.platform}-single"
        self.tracker = tracker(self.topic)
        self._message = provider.message

    def submit(self, count: int) -> None:
        records = [record(self._message(number), number, self.topic) for number in range(count)]
        self.pipeline.submit(self.tracker, self.tracker.admit(records))

    def _count(self, push: Any, outcome: Outcome) -> None:
        if not push.finished:
            self.finishes[push.offset] += 1
        self._finish(push, outcome)


@contextmanager
def bed(provider: Provider, case: str, directory: Path) -> Iterator[Bed]:
    simulator, settings = provider.open(provider.cases[case], directory)
    loops = Group()
    try:
        under_test = Bed(provider, settings)
        for loop in under_test.service.loops().values():
            loops.spawn(loop)
        under_test.service.start()
        try:
            yield under_test
        finally:
            under_test.service.close(0.0)
            loops.kill()
    finally:
        simulator.close()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_every_push_finishes_exactly_once(provider: Provider, case: str, tmp_path: Path) -> None:
    with bed(provider, case, tmp_path) as under_test:
        under_test.submit(PUSHES)
        wait_until(lambda: under_test.lane.in_hand == 0, lambda: str(under_test.lane.totals))
    expected = Kind.REJECTED if case == "reject" else Kind.DELIVERED
    outcomes = {kind: count for kind, count in under_test.lane.totals.outcomes.items() if count}
    assert outcomes == {expected: PUSHES}
    assert under_test.finishes == Counter(range(PUSHES))
    assert under_test.tracker.low == PUSHES
    assert under_test.service.in_flight == 0
    tokens = Counter(feedback[provider.id] for feedback in under_test.publisher.feedbacks)
    assert len(tokens) == PUSHES
    assert set(tokens.values()) == {1}
