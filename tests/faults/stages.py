"""Many faults of a provider, one after another, over one daemon: each has pushes of its own, and is judged alone.

A stage sets a script of faults, produces its pushes, ends an outage after a while where it is one, and waits until all
are settled. What the provider saw of each push is compared at the end: how often it came, and whether always with the
same id.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lab.processes import Simulator
from tests.faults.driver import Driver
from tests.faults.ledger import DELIVERED, token_of


def nothing() -> None:
    """No outage, or nothing to end."""


class Group(NamedTuple):
    """Pushes of a stage whose tokens begin alike."""

    size: int
    prefix: str = "0000"
    expected: str = DELIVERED
    #: Requests that each of them may cost.
    requests: int = 1
    #: Reason that the feedbacks of failures give; "": any.
    reason: str = ""


@dataclass(frozen=True)
class Stage:
    """One fault."""

    name: str
    pushes: Sequence[Group]
    #: The provider's script.
    script: Sequence[str] = ()
    #: Begins an outage, and ends it after so many seconds.
    begin: Callable[[], object] = nothing
    end: Callable[[], object] = nothing
    lasts_s: float = 0.0
    #: Most connections that may be opened.
    connections: int = 3
    #: Of failures, the most; None: what the groups expect is all that counts.
    failures: int | None = None
    timeout_s: float = 90.0


@dataclass
class Outcome:
    """What a stage has shown."""

    stage: Stage
    numbers: list[tuple[Group, range]] = field(default_factory=list)
    took_s: float = 0.0
    #: From the end of an outage to the first push that is settled after it.
    recovery_s: float | None = None
    played: int = 0
    connections: int = 0
    #: Whatever is wrong.
    complaints: list[str] = field(default_factory=list)


class Course:
    """Runs stages on a driver, whose daemon runs already, and a provider."""

    def __init__(self, driver: Driver, provider: Simulator, topic: str, connections: Callable[[dict[str, Any]], int]):
        self.driver, self.provider, self.topic = driver, provider, topic
        self._connections = connections
        self.outcomes: list[Outcome] = []

    def run(self, stages: Sequence[Stage]) -> None:
        """One after another."""
        for stage in stages:
            self._run(stage)

    def _run(self, stage: Stage) -> None:
        driver, outcome = self.driver, Outcome(stage)
        self.outcomes.append(outcome)
        before = self.provider.counts()
        self.provider.set_faults(*stage.script)
        stage.begin()
        began = time.monotonic()
        for group in stage.pushes:
            first = len(driver.ledger.messages)
            driver.produce(self.topic, group.size, group.prefix, group.expected)
            outcome.numbers.append((group, range(first, first + group.size)))
        self._settle(stage, outcome)
        outcome.took_s = time.monotonic() - began
        after = self.provider.counts()
        outcome.connections = self._connections(after) - self._connections(before)
        outcome.played = sum(after["faults"].get(line, 0) - before["faults"].get(line, 0) for line in stage.script)
        self._judge(stage, outcome)
        driver.note(describe(outcome))

    def _settle(self, stage: Stage, outcome: Outcome) -> None:
        if stage.lasts_s:
            until = time.monotonic() + stage.lasts_s
            while time.monotonic() < until:
                self.driver.read()
            stage.end()
            self.provider.set_faults()
            settled, healed_at = self.driver.ledger.settled, time.monotonic()
            self.driver.run_until(
                lambda: self.driver.ledger.settled > settled or not self.driver.ledger.waiting,
                f"{stage.name}: no recovery",
                stage.timeout_s,
            )
            outcome.recovery_s = time.monotonic() - healed_at
        self.driver.run(timeout_s=stage.timeout_s)

    def _judge(self, stage: Stage, outcome: Outcome) -> None:
        messages = self.driver.ledger.messages
        complain = outcome.complaints.append
        failed = 0
        for group, numbers in outcome.numbers:
            for number in numbers:
                wrong = messages[number].complaint()
                if wrong:
                    complain(f"message {number}: {wrong} {messages[number].feedbacks}")
                for feedback in messages[number].feedbacks:
                    failed += feedback.kind != DELIVERED
                    if feedback.kind != DELIVERED and group.reason not in feedback.reason:
                        complain(f"message {number}: {feedback}")
        if stage.failures is not None and failed > stage.failures:
            complain(f"{failed} failures, {stage.failures} are allowed")
        if stage.script and not outcome.played:
            complain("the fault was never played")
        if outcome.connections > stage.connections:
            complain(f"{outcome.connections} connections, {stage.connections} are allowed")

    def audit(self, requests: Sequence[tuple[str, str, int, str]]) -> list[str]:
        """All complaints, those of the provider's ledger among them."""
        seen: dict[str, list[str]] = defaultdict(list)
        for request_id, token, _, _ in requests:
            seen[token].append(request_id)
        for outcome in self.outcomes:
            for group, numbers in outcome.numbers:
                found = {number: seen[group.prefix + token_of(number)] for number in numbers}
                most = max(found, key=lambda number: len(found[number]))
                if len(found[most]) > group.requests:
                    outcome.complaints.append(f"message {most} came {len(found[most])} times, {group.requests} allowed")
                many = [number for number, ids in found.items() if len(set(ids)) > 1]
                if many:
                    outcome.complaints.append(f"{len(many)} messages with several ids, the first is {many[0]}")
        return [
            f"{outcome.stage.name}: {complaint}" for outcome in self.outcomes for complaint in outcome.complaints[:3]
        ]

    @property
    def recovery_s(self) -> float:
        """The longest of all outages."""
        return max((outcome.recovery_s or 0.0 for outcome in self.outcomes), default=0.0)


def describe(outcome: Outcome) -> str:
    """One line."""
    recovery = "" if outcome.recovery_s is None else f", recovered in {outcome.recovery_s:.1f} s"
    pushes = sum(group.size for group in outcome.stage.pushes)
    return (
        f"{outcome.stage.name}: {pushes:,} pushes, {outcome.played:,} faults, {outcome.connections} connections, "
        f"{outcome.took_s:.1f} s{recovery}"
    )


def order(provider: Simulator, name: str, *lines: str) -> None:
    """Tells a simulator to do something."""
    endpoint = re.search(r"admin on (http://\S+)", provider.log())
    assert endpoint, provider.log()
    request = urllib.request.Request(f"{endpoint[1]}/{name}", "\n".join(lines).encode(), method="POST")
    urllib.request.urlopen(request, timeout=60).close()
