"""An app served through APNs, against the simulated service: what becomes of its credentials and links."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.pool import Group

from lab.processes import wait_until
from pusher.providers.apns.credentials import Credentials, ProviderToken, shared
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.providers.apns.service import ApnsService, ApnsSettings, TeamHold
from pusher.providers.tls import TlsTrust
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane, LaneSettings
from pusher.push.outcome import Kind
from pusher.push.pipeline import Pipeline
from pusher.push.retry import RetryPolicy, RetryQueue
from pusher.sim.apns import ApnsSimulator
from pusher.sim.apns_rules import AppleRules, ConnectionMemory, PushRequest, SimulatedApple
from pusher.sim.certificate import load_verification_key, make_p8
from pusher.telemetry.stats import Stats
from tests.publisher import Clock, ListPublisher
from tests.records import record, tracker

MINUTE_S = 60


class Bed:
    """A simulator with a clock of its own, and the service of the app "game" in a pipeline."""

    def __init__(self, directory: Path, *faults: str, interval_s: float = 0.01, **options: Any) -> None:
        full_hour = time.time() // 3600 * 3600
        self.ours, self.apples = Clock(full_hour), Clock(full_hour)
        self.elapsed = Clock(0.0)
        self.apple = ApnsSimulator(
            AppleRules(any_token=True), faults, tls_dir=str(directory), now=self.apples, **options
        )
        self.apple.start()
        (directory / "key.p8").write_bytes(make_p8())
        self.publisher = ListPublisher()
        stats = Stats("test")
        self.lane: Lane[ApnsPush] = Lane(
            LaneSettings("game", "apns", "apns", "pod-1", RetryPolicy(0.01, 3)),
            ApnsParser("com.game"),
            apns_feedback,
            [FeedbackTopics(self.publisher)],
            stats,
        )
        self.pipeline = Pipeline("apns", ("game",), lambda: self.publisher, stats, "")
        self.pipeline.lanes["game"] = self.lane
        self.tracker = tracker()
        self.service = ApnsService(
            self.lane,
            ApnsSettings("localhost", self.apple.port, outage=RetryPolicy(interval_s, max_wait_s=1.0, counted=False)),
            self.credentials(directory / "key.p8"),
        )
        self._submitted = 0

    def credentials(self, key: Path) -> Credentials:
        token = ProviderToken.load(str(key), "ABC123DEFG", "DEF123GHIJ", clock=self.ours, elapsed=self.elapsed)
        return Credentials(TlsTrust(self.apple.ca_file, ""), token=token)

    def send(self, count: int, **fields: object) -> dict[Kind, int]:
        """So many pushes; waits for their ends. All outcomes so far."""
        numbers = range(self._submitted, self._submitted + count)
        self._submitted += count
        message = {"DeviceToken": "ab" * 32, "Payload": {"aps": {"alert": "x"}}} | fields
        self.pipeline.submit(self.tracker, self.tracker.admit([record(message, number) for number in numbers]))
        wait_until(lambda: self.lane.in_hand == 0, lambda: f"{self.lane.totals}, {self.service.health()}")
        return {kind: n for kind, n in self.lane.totals.outcomes.items() if n}

    @property
    def connections(self) -> int:
        return int(self.apple.counts()["transport"]["connections"])


@contextmanager
def opened(directory: Path, *faults: str, interval_s: float = 0.01, **options: Any) -> Iterator[Bed]:
    bed = Bed(directory, *faults, interval_s=interval_s, **options)
    loops = Group()
    try:
        for loop in bed.service.loops().values():
            loops.spawn(loop)
        bed.service.start()
        yield bed
    finally:
        bed.service.close(0.0)
        loops.kill()
        bed.apple.close()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with opened(tmp_path) as bed:
        yield bed


@pytest.mark.parametrize(("fault", "kind"), [((), Kind.DELIVERED), (("400 BadDeviceToken",), Kind.REJECTED)])
@pytest.mark.parametrize("development", [True, False])
def test_the_sandboxs_own_id_of_a_push_is_fed_back(
    tmp_path: Path, fault: tuple[str, ...], kind: Kind, development: bool
) -> None:
    """Apple, "Handling notification responses from APNs": the header is there in the development environment alone."""
    with opened(tmp_path, *fault, development=development) as bed:
        assert bed.send(2) == {kind: 2}
        found = [json.loads(value)["metadata"].get("apnsUniqueId", "") for _, value, *_ in bed.publisher.records]
    assert [len(unique_id) for unique_id in found] == [36 * development] * 2
    assert len(set(found)) == 1 + development


def test_an_expired_token_is_renewed_on_a_new_link_and_nothing_is_lost(bed: Bed) -> None:
    assert bed.send(10) == {Kind.DELIVERED: 10}
    assert bed.connections == 1
    # Apple's clock is 40 minutes ahead of ours: our token, 25 minutes old, has expired there.
    for clock in (bed.ours, bed.elapsed):
        clock.now += 25 * MINUTE_S
    bed.apples.now += 65 * MINUTE_S
    assert bed.send(50) == {Kind.DELIVERED: 60}
    assert bed.connections == 2
    assert bed.apple.counts()["answers"]["403 ExpiredProviderToken"] >= 1


def test_a_token_that_expires_too_early_is_not_renewed_every_minute(bed: Bed) -> None:
    bed.send(1)
    for clock in (bed.ours, bed.elapsed):
        clock.now += 10 * MINUTE_S
    bed.apples.now += 65 * MINUTE_S
    assert bed.send(1) == {Kind.DELIVERED: 1, Kind.REJECTED: 1}


def test_a_token_is_renewed_in_time_on_the_same_link(bed: Bed) -> None:
    bed.send(1)
    for clock in (bed.ours, bed.elapsed, bed.apples):
        clock.now += 51 * MINUTE_S
    bed.send(1)
    for clock in (bed.ours, bed.elapsed, bed.apples):
        clock.now += 30 * MINUTE_S
    assert bed.send(1) == {Kind.DELIVERED: 3}
    assert bed.connections == 1


@pytest.mark.parametrize("minutes", [60, -60, 600, -600])
def test_a_token_that_apple_takes_stays_in_use_when_the_wall_clock_is_set_wrongly(bed: Bed, minutes: int) -> None:
    bed.send(1)
    bed.ours.now += minutes * MINUTE_S
    assert bed.send(50) == {Kind.DELIVERED: 51}
    assert bed.connections == 1


@pytest.mark.parametrize("minutes", [120, -120])
def test_a_token_that_a_wrong_clock_has_dated_is_replaced_once_the_clock_is_right(bed: Bed, minutes: int) -> None:
    bed.ours.now += minutes * MINUTE_S
    assert bed.send(1) == {Kind.REJECTED: 1}
    bed.ours.now -= minutes * MINUTE_S
    assert bed.send(50) == {Kind.REJECTED: 1, Kind.DELIVERED: 50}


def test_new_credentials_use_a_new_link_while_the_old_one_finishes(bed: Bed, tmp_path: Path) -> None:
    bed.send(10)
    for clock in (bed.ours, bed.elapsed, bed.apples):
        clock.now += 21 * MINUTE_S
    (tmp_path / "new.p8").write_bytes(make_p8())
    bed.service.reload(bed.credentials(tmp_path / "new.p8"))
    assert bed.send(10) == {Kind.DELIVERED: 20}
    assert bed.connections == 2


def test_a_new_key_that_comes_too_soon_for_the_team_waits_and_loses_nothing(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pusher.providers.apns.service._SHORTEST_HOLD_S", 0.3)
    bed.send(10)
    (tmp_path / "new.p8").write_bytes(make_p8())
    bed.service.reload(bed.credentials(tmp_path / "new.p8"))
    waiting = gevent.spawn(bed.send, 10)
    wait_until(lambda: not bed.service.health().ready)
    bed.apples.now += 21 * MINUTE_S
    assert waiting.get() == {Kind.DELIVERED: 20}


def test_refused_credentials_hold_the_app_after_twenty_answers(tmp_path: Path) -> None:
    with opened(tmp_path, "403 InvalidProviderToken:1,times=20") as bed:
        assert bed.send(20) == {Kind.REJECTED: 20}
        health = bed.service.health()
        assert not health.ready
        assert "credentials" in health.reason
        # The next one is a probe, a minute later; new credentials end the waiting at once.
        bed.service.reload(bed.credentials(tmp_path / "key.p8"))
        assert bed.send(5) == {Kind.REJECTED: 20, Kind.DELIVERED: 5}
        assert bed.service.health().ready


def test_apps_with_the_same_key_share_one_token(tmp_path: Path) -> None:
    key, other = make_p8().decode(), make_p8().decode()
    tokens = [shared(ProviderToken.load(key, "KEY1234567", team)) for team in ("A", "A", "B")]
    assert tokens[0] is tokens[1] is not tokens[2]
    assert shared(ProviderToken.load(other, "KEY1234567", "A")) is not tokens[0]


def test_processes_with_one_key_show_apple_one_token() -> None:
    """Apple counts by team: PyAPNs2#85 and gorush#512 are of two pods and of six with one key."""
    key = make_p8()
    apple = SimulatedApple(AppleRules(verification_key=load_verification_key(key)))
    half_hour, clock, elapsed = 1.8e9 // 1800 * 1800, Clock(0.0), Clock(0.0)

    def process() -> ProviderToken:
        return ProviderToken.load(key.decode(), "KEY1234567", "TEAM123456", clock=clock, elapsed=elapsed)

    def shown(minute: float, *tokens: ProviderToken) -> set[str]:
        clock.now, elapsed.now = half_hour + minute * MINUTE_S, minute * MINUTE_S
        for token in tokens:
            headers = {b"authorization": f"bearer {token.current()}".encode(), b"apns-topic": b"com.x"}
            push = PushRequest(b"POST", b"/3/device/ab", headers, (), b"{}")
            assert apple.refusal(push, ConnectionMemory(), clock.now) == "", minute
        return {token.current() for token in tokens}

    first, second, third = process(), process(), process()
    before = shown(1, first) | shown(12, second) | shown(29, first, second, third)
    assert len(before) == 1
    # the others took it into use less than 20 minutes ago
    assert shown(31, second, third) == before
    after = shown(33, first, second)
    assert len(after) == 1
    assert after != before
    assert shown(50, first, second, third, process()) == after
    assert len(shown(61, first, second, third, process()) - after) == 1


def test_a_process_that_starts_again_just_after_the_half_hour_goes_on_with_the_token_that_apple_knows() -> None:
    key = make_p8()
    apple = SimulatedApple(AppleRules(verification_key=load_verification_key(key)))
    half_hour, clock, elapsed = 1.8e9 // 1800 * 1800, Clock(0.0), Clock(0.0)

    def answer(minute: float, token: ProviderToken) -> str:
        clock.now, elapsed.now = half_hour + minute * MINUTE_S, minute * MINUTE_S
        headers = {b"authorization": f"bearer {token.current()}".encode(), b"apns-topic": b"com.x"}
        return apple.refusal(PushRequest(b"POST", b"/3/device/ab", headers, (), b"{}"), ConnectionMemory(), clock.now)

    before, after = (
        ProviderToken.load(key.decode(), "KEY1234567", "TEAM123456", clock=clock, elapsed=elapsed) for _ in range(2)
    )
    assert answer(29.9, before) == ""
    known = before.current()
    assert answer(30.1, after) == "TooManyProviderTokenUpdates"
    refused = after.current()
    for _app in range(2):  # of the team, in one process
        after.change(refused)
    assert [answer(minute, after) for minute in (30.2, 40, 49.8)] == ["", "", ""]
    assert after.current() == known
    assert answer(50, after) == ""
    assert after.current() != known
    present = after.current()
    after.change(present)
    assert after.current() == present, "the one before is too old"


def test_a_sender_whose_new_token_apple_does_not_accept_shows_the_one_before(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pusher.providers.apns.service._SHORTEST_HOLD_S", 0.3)
    token = bed.service.credentials.token
    assert token is not None

    def pass_by(seconds: float) -> None:
        for clock in (bed.ours, bed.elapsed, bed.apples):
            clock.now += seconds

    pass_by(1795 - bed.ours.now % 1800)
    assert bed.send(10) == {Kind.DELIVERED: 10}
    known = token.current()
    pass_by(10)
    token.change(known)  # to what a process shows that starts now
    assert token.current() != known
    assert bed.send(10) == {Kind.DELIVERED: 20}
    assert token.current() == known


@pytest.mark.parametrize("behind", [20, 35, 45, 55])
def test_a_clock_that_is_behind_apples_by_less_than_an_hour_serves(bed: Bed, behind: int) -> None:
    """Tokens are dated back to the half hour: where Apple calls that too old, one of this second is made."""
    bed.ours.now += 29 * MINUTE_S
    bed.apples.now += (29 + behind) * MINUTE_S
    assert bed.send(30) == {Kind.DELIVERED: 30}
    for clock in (bed.ours, bed.elapsed, bed.apples):
        clock.now += 31 * MINUTE_S
    assert bed.send(30) == {Kind.DELIVERED: 60}


def test_too_many_provider_token_updates_say_nothing_of_the_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pusher.providers.apns.service._SHORTEST_HOLD_S", 0.3)
    with opened(tmp_path, "429 TooManyProviderTokenUpdates:1,times=2") as bed:
        assert bed.send(100) == {Kind.DELIVERED: 100}
        assert bed.connections >= 2
        assert bed.service.health().ready


def test_the_app_is_not_ready_while_apple_takes_no_new_token_of_the_team(tmp_path: Path) -> None:
    hold = TeamHold()
    assert hold.begin(sent_at=1.0, now=2.0)
    assert (hold.wait_s, hold.until) == (10.0, 12.0)
    assert not hold.begin(sent_at=1.9, now=2.1)
    assert [hold.begin(at, at) and hold.wait_s for at in (13.0, 40.0, 90.0, 200.0)] == [20.0, 40.0, 60.0, 60.0]
    hold.ended()
    assert hold.begin(300.0, 300.0)
    assert hold.wait_s == 10.0


ACTIVITY = {"Payload": {"aps": {"event": "update", "content-state": {}}}}


@pytest.mark.parametrize("chosen", [{}, {"push_type": "alert"}, {"topic": "com.game"}, {"push_type": "ALERT"}])
def test_the_apps_own_topic_is_held_although_others_are_accepted(tmp_path: Path, chosen: dict[str, str]) -> None:
    """A type or topic that the message names although it would have it anyhow is the app's own."""
    with opened(tmp_path, "prefix=bad:403 InvalidProviderToken") as bed:
        for _ in range(20):
            bed.send(1, DeviceToken="bad", **chosen)
            bed.send(1, topic="com.other")
        assert bed.lane.totals.outcomes[Kind.REJECTED] == bed.lane.totals.outcomes[Kind.DELIVERED] == 20
        assert not bed.service.health().ready


@pytest.mark.parametrize("chosen", [{"topic": "com.other"}, {"push_type": "voip"}, ACTIVITY])
def test_a_topic_or_type_that_the_message_chose_is_refused_without_holding_the_app(
    tmp_path: Path, chosen: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, "403 Forbidden:1,times=40") as bed:
        assert bed.send(40, **chosen) == {Kind.REJECTED: 40}
        assert bed.service.health().ready
        assert bed.send(10) == {Kind.REJECTED: 40, Kind.DELIVERED: 10}
    (line,) = [one for one in caplog.records if "refuses" in one.message]
    fields = vars(line)["fields"]
    assert (fields["topic"], fields["push_type"]) in (
        ("com.other", "alert"),
        ("com.game.voip", "voip"),
        ("com.game.push-type.liveactivity", "liveactivity"),
    )


def test_an_outage_ends_no_push_and_its_end_is_seen_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, "503 ServiceUnavailable:1,times=400", interval_s=0.05) as bed:
        assert bed.send(200) == {Kind.DELIVERED: 200}


def test_what_waits_for_the_end_of_an_outage_is_due_when_it_is_over() -> None:
    queue: RetryQueue[str] = RetryQueue()
    for due, item in ((50.0, "outage"), (40.0, "limited"), (5.0, "soon")):
        queue.push(due, item)
    queue.bring_forward(10.0, lambda item: item == "outage")
    assert queue.pop_due(10.0, 9) == ["soon", "outage"]
    assert queue.next_due == 40.0
