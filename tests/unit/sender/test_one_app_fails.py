"""A fault of ours in one app costs that app: it is said, shown, tried again, and the others do not notice."""

from __future__ import annotations

import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import faulty_sender
from lab.kafka.server import free_port
from lab.processes import Daemon, Simulator, wait_until
from pusher.broker.sqlite import SqlitePublisher
from pusher.sim.certificate import make_p8

PROGRAM = Path(faulty_sender.__file__)
#: Faults of which the app is not ready while they last. One at the stop is over before anybody could look.
LASTING = [fault for fault in faulty_sender.FAULTS if fault != "stop"]


class Stage:
    """The apps `bad` and `good` at a simulated Apple, and the fault's file."""

    def __init__(self, folder: Path, stack: ExitStack, fault: str) -> None:
        self.file, self.port = folder / "fault", free_port()
        self._sent = 0
        self.apple = Simulator(folder, "--any-token")
        stack.callback(self.apple.end)
        self.apple.start()
        broker = f"sqlite:///{folder}/queue.db"
        self._publisher = SqlitePublisher(broker)
        stack.callback(self._publisher.close)
        (folder / "key.p8").write_bytes(make_p8())
        app = {"authKeyPath": str(folder / "key.p8"), "keyID": "ABC123DEFG", "teamID": "DEF123GHIJ", "topic": "com.app"}
        settings = {
            "apns": {
                "apps": "bad,good",
                "certs": {"bad": app, "good": app},
                "host": "localhost",
                "port": self.apple.port,
                "caFile": self.apple.ca_file,
            },
            "queue": {"brokers": broker, "offsetResetStrategy": "earliest", "topics": ["^push-.*_apns-single"]},
            "feedback": {"reporters": []},
            "admin": {"port": self.port},
        }
        program = (sys.executable, str(PROGRAM), fault, str(self.file))
        self.sender = Daemon(folder, "sender", settings, program=program)
        stack.callback(self.sender.end)

    def send(self, app: str, count: int) -> None:
        """Waits until they are in the topic."""
        for _ in range(count):
            self._sent += 1
            push = {"DeviceToken": f"{self._sent:064x}", "Payload": {"aps": {"alert": app}}}
            self._publisher.publish(f"push-{app}_apns-single", json.dumps(push).encode(), lambda _: None)
        self._publisher.flush(10.0)

    def sends(self, app: str) -> None:
        """Pushes of this app are delivered."""
        before = self.apple.counts()["delivered"]
        self.send(app, 20)
        wait_until(lambda: self.apple.counts()["delivered"] == before + 20, self.sender.log)

    def ask(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read(), "utf-8")
        except urllib.error.HTTPError as error:
            return str(error.read(), "utf-8")

    def unready(self) -> list[str]:
        reasons: list[str] = json.loads(self.ask("/readyz"))["reasons"]
        return reasons


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def is_ready(metrics: str) -> dict[str, float]:
    """By app."""
    lines = [line for line in metrics.splitlines() if line.startswith("pusher_app_ready{")]
    return {app: float(line.split()[-1]) for line in lines for app in ("bad", "good") if f'game="{app}"' in line}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_in_one_app_costs_that_app(tmp_path: Path, stack: ExitStack, fault: str) -> None:
    stage = Stage(tmp_path, stack, fault)
    if fault != "reload":
        stage.file.touch()
    stage.sender.start()
    stage.sender.wait_until_started()
    stage.sends("good")
    if fault == "reload":
        stage.file.touch()
        stage.sender.signal(signal.SIGHUP)
        stage.sender.wait_for("configuration reloaded")
    wait_until(lambda: any("a fault of ours" in reason for reason in stage.unready()), lambda: str(stage.unready()))
    assert all(reason.startswith("bad: ") for reason in stage.unready())
    assert is_ready(stage.ask("/metrics")) == {"bad": 0, "good": 1}
    stage.sends("good")
    stage.file.unlink()
    wait_until(lambda: not stage.unready(), lambda: str(stage.unready()))
    assert is_ready(stage.ask("/metrics")) == {"bad": 1, "good": 1}
    stage.sends("bad")
    assert stage.sender.stop() == 0, stage.sender.log()
    faults = [line for line in stage.sender.log().splitlines() if "level=error" in line]
    assert faults
    assert all("game=bad" in line for line in faults)


def test_a_fault_in_one_app_leaves_the_stop_in_order(tmp_path: Path, stack: ExitStack) -> None:
    stage = Stage(tmp_path, stack, "stop")
    stage.file.touch()
    stage.sender.start()
    stage.sender.wait_until_started()
    stage.sends("good")
    assert stage.sender.stop() == 0
    log = stage.sender.log()
    assert "a step of the shutdown failed" not in log
    assert "stopped gracefully" in log


def test_an_app_may_be_set_up_while_the_upkeep_of_another_waits(tmp_path: Path, stack: ExitStack) -> None:
    stage = Stage(tmp_path, stack, faulty_sender.LATE)
    stage.sender.start()
    wait_until(stage.file.exists, stage.sender.log)
    stage.sends("bad")
    stage.sends("good")
    wait_until(lambda: not stage.unready(), lambda: str(stage.unready()))
    assert stage.sender.stop() == 0
