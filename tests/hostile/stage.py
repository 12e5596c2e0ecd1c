"""A sender with a good app and a bad one beside it, and what may not happen to the good one whatever the bad one meets.

The sender is the real program on the embedded broker, with the admin port; the good app's provider is the simulated
FCM or APNs. Latenesses are the sender's own, from its histograms.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import gevent
import pytest

from lab.http2_server import make_files
from lab.kafka.server import free_port
from lab.processes import PUSHER, Daemon, Process, Simulator, wait_until
from pusher.broker.sqlite import SqlitePublisher
from pusher.sim.certificate import make_p8
from tests.faults.ledger import token_of

GRACE_S = 2
#: How long the good app is looked at, and its pushes a second.
WATCHED_S, RATE = 5.0, 20
MAX_START_S = 10.0
#: As the bound of a bucket is written: seconds.
BOUND = "1.0"
TIMINGS = ("queue_latency", "send_notification_latency")
MAX_HEALTH_S = 1.0
MAX_MEMORY_MB = 150.0
MAX_LINES_A_SECOND, MAX_LINE_CHARACTERS = 50, 2_000


def scenarios(names: Iterable[str], short: Collection[str]) -> pytest.MarkDecorator:
    """The parameter ``name``: every run of the tests plays ``short``, `make hostile` all of them."""
    marked = [name if name in short else pytest.param(name, marks=pytest.mark.hostile) for name in names]
    return pytest.mark.parametrize("name", marked)


class Stage:
    """Set up by ``with``; ``play`` runs the sender once and returns what was wrong."""

    def __init__(self, directory: Path, platform: str = "gcm") -> None:
        self.directory = directory
        self.platform = platform
        self._cleanup = ExitStack()
        self._broker = f"sqlite:///{directory}/queue.db"
        self.admin_port = free_port()
        self._worst_health_s = 0.0

    def __enter__(self) -> Self:
        account = ("--write-credentials", str(self.directory / "good.json"), "--oauth-port", "0")
        simulated = ("fcm", account) if self.platform == "gcm" else ("apns", ())
        self.good = Simulator(self.directory, *simulated[1], platform=simulated[0])
        self._cleanup.callback(self.good.end)
        self.good.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def peer(self, program: Path, name: str, *arguments: object) -> int:
        """Starts a peer that misbehaves, as the process ``program DIRECTORY NAME ARGUMENTS``; its port."""
        command = (sys.executable, str(program), str(self.directory), name, *map(str, arguments))
        peer = Process(self.directory, "peer", command)
        self._cleanup.callback(peer.end)
        peer.start()
        peer.wait_for("port ")
        found = re.search(r"port (\d+)", peer.log())
        assert found
        return int(found[1])

    def account_at(self, port: int) -> str:
        """The file of an account whose token endpoint is at this port."""
        account = json.loads((self.directory / "good.json").read_text())
        account |= {"client_email": "bad@example.com", "token_uri": f"https://localhost:{port}/token"}
        file = self.directory / "bad.json"
        file.write_text(json.dumps(account))
        return str(file)

    def xmpp_at(self, port: int) -> dict[str, Any]:
        """The settings with which ``bad`` is served by an XMPP server at this port."""
        return {
            "certs": {"bad": {"senderID": "1", "apiKey": "key"}},
            "xmpp": {"host": "localhost", "port": port, "caFile": self.good.ca_file},
        }

    def certificate(self) -> Path:
        """A client certificate for ``bad``, with its key; in the folder ``bad``, beside what signed it."""
        (self.directory / "bad").mkdir()
        files = make_files(self.directory / "bad", "com.bad", 30)
        both = self.directory / "bad" / "both.pem"
        both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
        return both

    def play(
        self,
        *,
        records: Sequence[bytes] = (),
        meanwhile: Callable[[], object] = lambda: None,
        output: str = "",
        redis_port: int = 0,
        **bad: Any,
    ) -> list[str]:
        """Runs a sender whose app ``bad`` has these settings; what was not right, one line each.

        With ``redis_port`` the pushes of both apps are limited, by what is there.

        ``records`` come to ``bad`` instead of pushes; ``meanwhile`` runs beside it in a greenlet while the good app is
        looked at. ``output`` is a shell's redirection of it, and then the sender writes all that it can.
        """
        publisher = SqlitePublisher(self._broker)
        self._cleanup.callback(publisher.close)
        settings = self._settings(**bad) | ({"log": {"level": "debug"}} if output else {})
        if redis_port:
            settings[self.platform]["rateLimit"] = {"rpm": 1_000}
            settings["rateLimiter"] = {"redis": {"host": "127.0.0.1", "port": redis_port}, "tls": {"disabled": True}}
        program = ("sh", "-c", f'exec "$@" {output}', "sh", *PUSHER)
        sender = Daemon(self.directory, "sender", settings, self.platform, program)
        self._cleanup.callback(sender.end)
        began = time.monotonic()
        sender.start()
        self._publish(publisher, "good", self._push("good", 0))
        for record in records or [self._push("bad", number) for number in range(50)]:
            self._publish(publisher, "bad", record)
        wait_until(lambda: self.good.counts()["delivered"] == 1, lambda: f"nothing goes:\n{sender.log()[-2000:]}")
        started_s = time.monotonic() - began
        before = self._metrics(1)
        beside: list[Any] = [gevent.spawn(self._watch_health), gevent.spawn(meanwhile)]
        sent = self._beat(publisher)
        wait_until(lambda: self.good.counts()["delivered"] >= sent, "pushes of the good app are missing")
        gevent.killall(beside)
        wrong = [] if started_s < MAX_START_S else [f"the first push of the good app went after {started_s:.0f} s"]
        return wrong + self._judge(sent, started_s, before, sender) + self._stop(sender)

    def _settings(self, **bad: Any) -> dict[str, Any]:
        provider = self._google(**bad) if self.platform == "gcm" else self._apple(**bad)
        return {
            "gracefulShutdownTimeout": GRACE_S,
            self.platform: {"apps": "bad,good", **provider},
            "queue": {
                "brokers": self._broker,
                "offsetResetStrategy": "earliest",
                "topics": [f"^push-.*_{self.platform}-single"],
            },
            "feedback": {"reporters": ["kafka"], "kafka": {"brokers": self._broker}},
            "admin": {"port": self.admin_port},
        }

    def _google(self, **bad: Any) -> dict[str, Any]:
        accounts = {"good": str(self.directory / "good.json")}
        if "account" in bad:
            accounts["bad"] = bad.pop("account")
        fcm = {"endpoint": f"https://localhost:{self.good.port}", "caFile": self.good.ca_file, "maxRate": 0}
        return {"firebaseCredentials": accounts, "fcm": fcm, **bad}

    def _apple(self, port: int, certificate: Path) -> dict[str, Any]:
        key = self.directory / "good.p8"
        key.write_bytes(make_p8())
        good = {"authKeyPath": str(key), "keyID": "ABC123DEFG", "teamID": "DEF123GHIJ", "topic": "com.good"}
        certs = {"good": good, "bad": {"certPath": str(certificate), "topic": "com.bad"}}
        return {"certs": certs, "host": "localhost", "port": port, "caFile": self.good.ca_file}

    # --- pushes

    def _push(self, app: str, number: int) -> bytes:
        if self.platform == "apns":
            return json.dumps({"DeviceToken": "0000" + token_of(number), "Payload": {"aps": {"alert": app}}}).encode()
        push = {"to": f"{app}{number}", "data": {"id": f"{app}{number}"}, "notification": {"title": "hello"}}
        return json.dumps(push).encode()

    def _publish(self, publisher: SqlitePublisher, app: str, record: bytes) -> None:
        publisher.publish(f"push-{app}_{self.platform}-single", record, lambda _: None)

    def _beat(self, publisher: SqlitePublisher) -> int:
        """Pushes of the good app at an even pace; how many there are with the first one."""
        count = 1 + int(WATCHED_S * RATE)
        for number in range(1, count):
            self._publish(publisher, "good", self._push("good", number))
            gevent.sleep(1 / RATE)
        publisher.flush(10.0)
        return count

    # --- what is looked at

    def _is_healthy(self) -> bool:
        began = time.monotonic()
        try:
            self._ask("/healthz")
        except OSError:
            return False
        finally:
            self._worst_health_s = max(self._worst_health_s, time.monotonic() - began)
        return True

    def _watch_health(self) -> None:
        self._worst_health_s = 0.0
        while True:
            self._is_healthy()
            gevent.sleep(0.2)

    def _ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def _metrics(self, pushes: int) -> str:
        """When they tell of so many pushes of the good app, which takes up to a second."""
        found = [""]

        def complete() -> bool:
            found[0] = self._ask("/metrics")
            return min(_sum(found[0], name, "count{") for name in TIMINGS) >= pushes

        wait_until(complete, "the metrics do not tell of all pushes")
        return found[0]

    def _judge(self, sent: int, started_s: float, before: str, sender: Daemon) -> list[str]:
        counts, metrics, lines = self.good.counts(), self._metrics(sent), sender.log().splitlines()
        passed_s = started_s + WATCHED_S
        rules = [
            (counts["delivered"] == sent, f"{counts['delivered']} of {sent} pushes of the good app were delivered"),
            (counts["duplicates"] == 0, f"{counts['duplicates']} were delivered twice"),
            *(
                (_within(before, metrics, name) >= 0.99, f"{name} of the good app has a p99 above 1 s")
                for name in TIMINGS
            ),
            (self._worst_health_s < MAX_HEALTH_S, f"/healthz took {self._worst_health_s:.1f} s"),
            (sender.memory_mb("VmHWM") < MAX_MEMORY_MB, f"memory reached {sender.memory_mb('VmHWM'):.0f} MB"),
            (len(lines) < MAX_LINES_A_SECOND * passed_s, f"{len(lines)} log lines in {passed_s:.0f} s"),
            (max(map(len, lines), default=0) < MAX_LINE_CHARACTERS, "a log line is too long"),
            (not any("Traceback" in line for line in lines), "there is a traceback in the log"),
        ]
        return [wrong for good, wrong in rules if not good]

    def _stop(self, sender: Daemon) -> list[str]:
        began = time.monotonic()
        status = sender.stop(30)
        took_s = time.monotonic() - began
        wrong = [] if status == 0 else [f"exit status {status}"]
        return wrong + ([f"SIGTERM took {took_s:.1f} s"] if took_s > GRACE_S + 2 else [])


def _within(before: str, after: str, name: str) -> float:
    """The share of a histogram's durations since then, of the good app, that are within a second."""
    inside, total = (
        _sum(after, name, part) - _sum(before, name, part) for part in (rf'bucket{{.*le="{BOUND}"', "count{")
    )
    return inside / total if total else 0.0


def _sum(metrics: str, name: str, part: str) -> float:
    found = re.compile(rf"pusher_{name}_seconds_{part}")
    lines = [line for line in metrics.splitlines() if 'game="good"' in line and found.match(line)]
    return sum(float(line.split()[-1]) for line in lines)
