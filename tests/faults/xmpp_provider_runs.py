"""What Google's XMPP service and the way to it may do wrong, each alone and mixed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from lab.processes import Simulator
from tests.faults.ledger import FAILED, FED_BACK
from tests.faults.provider_runs import ANY, RECONNECT, SESSION_TIMEOUT_MS, chosen, conclude, outage_stages
from tests.faults.result import Result
from tests.faults.runs import kafka
from tests.faults.stages import Course, Group, Stage, order
from tests.faults.surroundings import NAME, Surroundings
from tests.faults.xmpp_runs import TOPIC, WINDOW, XmppDriver

ATTEMPTS = 5
ACK_TIMEOUT = "3s"


def stream_stages(provider: Simulator, pushes: int) -> list[Stage]:
    """What befalls a connection."""
    every = pushes // 5
    lost = Group(pushes, requests=ATTEMPTS)
    drained = Group(pushes, requests=ATTEMPTS)
    return [
        Stage("CONNECTION_DRAINING", [drained], [f"drain:1/{every},times=4"], connections=5),
        Stage("CONNECTION_DRAINING, closed after 50 ms", [drained], [f"drain:1/{every},ms=50,times=4"], connections=5),
        Stage("cut", [lost], [f"cut:1/{every},times=1"], connections=5),
        Stage("stream ended", [lost], [f"end:1/{every},times=1"], connections=5),
        Stage("stream error", [lost], [f"stream-error:1/{every},times=1"], connections=5),
        Stage("broken XML", [lost], [f"broken-xml:1/{every},times=1"], connections=5),
        Stage("frozen for 2 s", [Group(pushes)], [f"freeze 2:1/{every},times=2"], connections=0),
        Stage(
            "login refused for a while",
            [lost],
            begin=partial(refuse, provider),
            end=partial(order, provider, "refuse-logins"),
            lasts_s=3.0,
            connections=15,
        ),
    ]


def refuse(provider: Simulator) -> None:
    """The connections end, and nobody can log in."""
    order(provider, "refuse-logins", "temporary-auth-failure")
    order(provider, "cut")


def message_stages(pushes: int) -> list[Stage]:
    """What becomes of messages."""
    failing = "prefix=dead:nack SERVICE_UNAVAILABLE"
    return [
        Stage(
            "storm of nacks",
            [Group(pushes, expected=FED_BACK, requests=ATTEMPTS), Group(50, "dead", FAILED, ATTEMPTS)],
            [
                failing,
                "nack SERVICE_UNAVAILABLE:0.2",
                "nack DEVICE_MESSAGE_RATE_EXCEEDED:0.1",
                "nack INTERNAL_SERVER_ERROR:0.1",
            ],
            connections=0,
        ),
        Stage(
            "no answer",
            [Group(30, "mute", FAILED, ATTEMPTS, "Timeout"), Group(30, "once", requests=2), Group(pushes)],
            ["prefix=mute:silence", "prefix=once:silence,once"],
            connections=0,
        ),
        Stage("answers of others, doubled, broken", [Group(pushes)], ["twice:0.2", "wrong-id:0.2", "garbage:0.2"]),
        Stage("answers after 2 s", [Group(100, "slow"), Group(pushes)], ["prefix=slow:ack,delay=2000"], connections=0),
    ]


def mixed(seed: int, pushes: int) -> Stage:
    """A bit of everything, how much is drawn."""
    draw = random.Random(seed)
    lines = [
        f"drain:1/{draw.randint(300, 900)}",
        *(f"{action}:1/{draw.randint(300, 900)},times=1" for action in ("cut", "end", "stream-error", "broken-xml")),
        f"drain:1/{draw.randint(300, 900)},ms={draw.randint(1, 100)}",
        *(f"nack {error}:{draw.uniform(0, 0.02):.4f}" for error in ("SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR")),
        f"silence:{draw.uniform(0, 0.005):.4f},once",
        f"freeze {draw.uniform(0.1, 1):.1f}:1/{draw.randint(900, 1800)}",
        f"twice:{draw.uniform(0, 0.02):.4f}",
        f"garbage:{draw.uniform(0, 0.02):.4f}",
        f"ack:{draw.uniform(0, 0.02):.4f},delay={draw.randint(100, 2000)}",
    ]
    draw.shuffle(lines)
    return Stage("mixed", [Group(pushes, expected=FED_BACK, requests=ANY)], lines, connections=pushes // 50)


def xmpp_provider(directory: Path, seed: int, pushes: int = 1_000, only: Collection[str] = ()) -> Result:
    """XMPP: every fault of the stream, of answers and of reaching Google, then all of them mixed."""
    with (
        kafka(directory) as server,
        XmppDriver(directory, server.brokers) as driver,
        Surroundings(directory, {}) as around,
    ):
        provider = driver.simulator("--seed", str(seed), "--ack-delay-ms", "20", "--name", NAME)
        driver.create_topics(TOPIC)
        changes = {
            "gcm.xmpp": {"host": NAME, "port": provider.port, "caFile": provider.ca_file},
            "gcm.reconnect": RECONNECT,
            "gcm.ackTimeout": ACK_TIMEOUT,
            "gcm.retry": {"interval": "200ms", "maxAttempts": ATTEMPTS},
            "gcm.maxPendingMessages": WINDOW,
        }
        settings = driver.settings(provider.port, provider.ca_file, **changes)
        settings["queue"]["sessionTimeout"] = SESSION_TIMEOUT_MS
        driver.daemon(settings, program=around.program)
        stages = [
            *stream_stages(provider, pushes),
            *message_stages(pushes),
            *outage_stages(provider, around, pushes),
            mixed(seed, pushes * 3),
        ]
        return conclude(Course(driver, provider, TOPIC, xmpp_connections), chosen(stages, only))


def xmpp_connections(counts: dict[str, Any]) -> int:
    """How many were tried."""
    return int(counts["events"].get("connections", 0))


RUNS: dict[str, Callable[[Path, int], Result]] = {"xmpp-provider": xmpp_provider}
