"""New credentials under load: each push finishes once, and delivered, whichever of old and new the provider takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gevent.pool import Group

from lab.processes import ROOT, wait_until
from pusher import config
from pusher.errors import CredentialError, StartError
from pusher.providers.open_lane import OpenLane
from pusher.providers.provider import provider
from pusher.providers.rotation import Rotation
from pusher.push.lane import Lane
from pusher.push.outcome import Kind
from pusher.push.pipeline import Pipeline
from pusher.sim.apns import ApnsSimulator
from pusher.sim.apns_rules import AppleRules, SimulatedApple
from pusher.sim.certificate import make_p8
from pusher.sim.fcm import FcmSimulator
from pusher.sim.gcm import GcmSimulator
from pusher.telemetry.stats import Stats
from tests.faults.driver import nested
from tests.records import record, tracker

OLD, NEW = "OLDKEY1234", "NEWKEY1234"
#: As when the key is changed more than 20 minutes after the team's last new token: a link counts for itself.
RULES = AppleRules(any_token=True, key_ids=frozenset({OLD, NEW}), renewal_scope="connection")


class App:
    """The app "game" served as the command does it, and pushes for it."""

    def __init__(self, platform: str, message: Callable[[int], dict[str, Any]], settings: dict[str, Any]) -> None:
        self.platform, self._message, self.settings = platform, message, settings
        found = self.config()
        stats = Stats("test")
        self.service: Any = provider(platform).build(found, "game", OpenLane("game", platform, "h", [], stats, found))
        self.lane: Lane[Any] = self.service.lane
        self.pipeline = Pipeline(platform, ("game",), pytest.fail, stats, "")
        self.pipeline.lanes["game"] = self.lane
        self._topic = f"push-game_{platform}-single"
        self._tracker = tracker(self._topic)
        self._submitted = 0
        self._loops = Group()
        for loop in self.service.loops().values():
            self._loops.spawn(loop)
        self.service.start()

    def config(self, **changes: Any) -> config.Config:
        flat = self.settings | {"feedback.reporters": []} | {key.replace("__", "."): v for key, v in changes.items()}
        return config.parse(yaml.safe_dump(nested(flat)), {})

    def send(self, count: int) -> None:
        """Hands in more pushes. Does not wait for them."""
        numbers = range(self._submitted, self._submitted + count)
        self._submitted += count
        records = [record(self._message(number), number, self._topic) for number in numbers]
        self.pipeline.submit(self._tracker, self._tracker.admit(records))

    def delivered(self) -> int:
        return self.lane.totals.outcomes[Kind.DELIVERED]

    def wait(self) -> None:
        """Until every push has an outcome: all of them delivered."""
        wait_until(lambda: self.lane.in_hand == 0, lambda: str(self.lane.totals))
        assert self.lane.totals.outcomes[Kind.DELIVERED] == self._submitted, self.lane.totals

    def close(self) -> None:
        self.service.close(0.0)
        self._loops.kill()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


# --- APNs


@dataclass
class Apple:
    simulator: ApnsSimulator
    app: App
    directory: Path

    def accept(self, *key_ids: str) -> None:
        """Refuses all other keys from now on."""
        self.simulator._provider = SimulatedApple(AppleRules(any_token=True, key_ids=frozenset(key_ids)))

    def reload(self, key_id: str, key: str = "new.p8") -> bool:
        certs = {"authKeyPath": str(self.directory / key), "keyID": key_id, "teamID": "TEAM123456", "topic": "com.game"}
        return provider(self.app.platform).reload(self.app.service, self.app.config(apns__certs__game=certs), "game")


def apns_settings(simulator: ApnsSimulator, directory: Path) -> dict[str, Any]:
    for name in ("old.p8", "new.p8"):
        (directory / name).write_bytes(make_p8())
    return {
        "apns.apps": "game",
        "apns.host": "localhost",
        "apns.port": simulator.port,
        "apns.caFile": simulator.ca_file,
        "apns.certs.game": {
            "authKeyPath": str(directory / "old.p8"),
            "keyID": OLD,
            "teamID": "TEAM123456",
            "topic": "com.game",
        },
        "apns.concurrentWorkers": 50,
        "apns.retry.maxAttempts": 1,
        "apns.reconnect.interval": "10ms",
    }


@pytest.fixture
def apple(stack: ExitStack, tmp_path: Path) -> Apple:
    simulator = stack.enter_context(ApnsSimulator(RULES, ["ok,delay=20"], tls_dir=str(tmp_path)))
    message = lambda number: {"DeviceToken": f"device-{number}", "Payload": {"aps": {"alert": "x"}}}  # noqa: E731
    app = App("apns", message, apns_settings(simulator, tmp_path))
    stack.callback(app.close)
    return Apple(simulator, app, tmp_path)


def test_a_new_key_under_load_and_then_only_it(apple: Apple) -> None:
    apple.app.send(1_000)
    wait_until(lambda: apple.app.delivered() > 100, "pushes with the old key")
    assert apple.reload(NEW)
    apple.app.send(500)
    wait_until(lambda: apple.app.delivered() > 600, "pushes with the new key")
    apple.accept(NEW)
    apple.app.send(500)
    apple.app.wait()
    assert not apple.simulator.server.protocol_errors


def test_the_old_key_is_refused_while_its_pushes_are_under_way(apple: Apple) -> None:
    apple.app.send(500)
    wait_until(lambda: apple.app.delivered() > 100, "pushes with the old key")
    apple.accept(NEW)
    assert apple.reload(NEW)
    apple.app.send(300)
    apple.app.wait()


def test_a_key_that_apple_refuses_gives_way_to_the_old_one(apple: Apple, caplog: pytest.LogCaptureFixture) -> None:
    apple.accept(OLD)
    apple.app.send(500)
    wait_until(lambda: apple.app.delivered() > 100, "pushes with the old key")
    assert apple.reload(NEW)
    apple.app.send(500)
    apple.app.wait()
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in errors] == [
        "Apple refuses the new credentials, the old ones are used again"
    ]
    assert apple.app.service.health().ready


def test_a_key_that_cannot_be_read_changes_nothing(apple: Apple) -> None:
    (apple.directory / "new.p8").write_bytes(b"-----BEGIN NONSENSE-----")
    with pytest.raises(CredentialError, match="not a PKCS#8"):
        apple.reload(NEW)
    with pytest.raises(CredentialError, match="cannot read"):
        apple.reload(NEW, "missing.p8")
    apple.accept(OLD)
    apple.app.send(100)
    apple.app.wait()


def test_the_same_key_is_not_signed_with_anew(apple: Apple) -> None:
    apple.app.send(1)
    apple.app.wait()
    token = apple.app.service.credentials.token
    assert not apple.reload(OLD, "old.p8")
    assert apple.app.service.credentials.token is token


# --- FCM and XMPP


def google_message(number: int) -> dict[str, Any]:
    return {"to": f"device-{number}", "message_id": f"id-{number}", "notification": {"title": "x"}}


def test_a_new_service_account_under_load_and_then_only_it(stack: ExitStack, tmp_path: Path) -> None:
    simulator = stack.enter_context(FcmSimulator(["ok,delay=20"], tls_dir=str(tmp_path)))
    old, new = (simulator.oauth.new_account(project) for project in ("project-a", "project-b"))
    app = App(
        "gcm",
        google_message,
        {
            "gcm.apps": "game",
            "gcm.firebaseCredentials.game": json.dumps(old),
            "gcm.fcm.endpoint": f"https://localhost:{simulator.port}",
            "gcm.fcm.caFile": simulator.ca_file,
        },
    )
    stack.callback(app.close)
    app.send(300)
    wait_until(lambda: app.delivered() > 50, "pushes of the old account")
    changed = app.config(gcm__firebaseCredentials__game=json.dumps(new))
    assert provider(app.platform).reload(app.service, changed, "game")
    wait_until(lambda: not app.lane.in_hand, "the old account's pushes")
    simulator.oauth.remove_account(old["client_email"])
    app.send(300)
    app.wait()
    unknown = json.dumps(new | {"client_email": "nobody@example.com"})
    with pytest.raises(CredentialError, match="refuses to issue an access token"):
        provider(app.platform).reload(app.service, app.config(gcm__firebaseCredentials__game=unknown), "game")
    app.send(50)
    app.wait()


def test_a_new_server_key_under_load_and_one_that_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    simulator = GcmSimulator({"123": "old"}, tls_dir=str(tmp_path))
    simulator.start()
    stack.callback(simulator.close)
    app = App(
        "gcm",
        google_message,
        {
            "gcm.apps": "game",
            "gcm.certs.game": {"apiKey": "old", "senderID": "123"},
            "gcm.xmpp.host": "localhost",
            "gcm.xmpp.port": simulator.port,
            "gcm.xmpp.caFile": simulator.ca_file,
        },
    )
    stack.callback(app.close)
    app.send(300)
    wait_until(lambda: app.delivered() > 50, "pushes with the old key")
    changed = app.config(gcm__certs__game={"apiKey": "new", "senderID": "123"})
    with pytest.raises(StartError, match=r"check gcm\.certs\.game"):
        provider(app.platform).reload(app.service, changed, "game")
    simulator.accounts = {"123": "new"}
    assert provider(app.platform).reload(app.service, changed, "game")
    app.send(300)
    app.wait()
    assert not simulator.violations
    assert not provider(app.platform).reload(app.service, changed, "game")


# --- the signals


def test_signals_to_the_process(stack: ExitStack, tmp_path: Path) -> None:
    simulator = stack.enter_context(ApnsSimulator(RULES, tls_dir=str(tmp_path)))
    settings = apns_settings(simulator, tmp_path) | {
        "queue.brokers": f"sqlite:///{tmp_path}/queue.db",
        "feedback.kafka.brokers": f"sqlite:///{tmp_path}/queue.db",
        "stats.reporters": [],
        "admin.port": 0,
    }
    file, log = tmp_path / "c.yaml", tmp_path / "log"
    file.write_text(yaml.safe_dump(nested(settings)))
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "pusher.py", "apns", "--config", str(file)], cwd=ROOT, stderr=stderr
        )
    stack.callback(process.wait)
    stack.callback(process.terminate)

    def says(text: str) -> None:
        wait_until(lambda: text in log.read_text(), lambda: f"{text!r} in {log.read_text()}")

    says("sender started")
    process.send_signal(signal.SIGUSR1)
    says("game sender")
    process.send_signal(signal.SIGHUP)
    says("configuration reloaded")
    settings["apns.certs.game"] |= {"keyID": NEW, "authKeyPath": str(tmp_path / "new.p8")}
    file.write_text(yaml.safe_dump(nested(settings)))
    process.send_signal(signal.SIGHUP)
    says("new credentials in use")
    file.write_text("apns: [")
    process.send_signal(signal.SIGHUP)
    says("the configuration cannot be read")
    assert process.poll() is None


# --- going back


def test_going_back_once_and_only_while_on_trial() -> None:
    rotation = Rotation("a")
    assert not rotation.go_back()
    rotation.change("b")
    rotation.change("c")
    assert (rotation.current, rotation.on_trial) == ("c", True)
    assert rotation.go_back()
    assert (rotation.current, rotation.on_trial, rotation.go_back()) == ("a", False, False)
    rotation.change("b")
    rotation.accepted()
    assert (rotation.current, rotation.go_back()) == ("b", False)
