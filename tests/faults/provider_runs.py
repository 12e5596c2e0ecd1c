"""What Apple and the way to Apple may do wrong, each alone and mixed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lab.processes import Simulator
from tests.faults.driver import Driver
from tests.faults.ledger import FAILED, FED_BACK
from tests.faults.result import Result, judged
from tests.faults.runs import TOPIC, kafka, timed
from tests.faults.stages import Course, Group, Stage, order
from tests.faults.surroundings import NAME, Surroundings, freeze, thaw

#: Sends of a push in all, by default.
ATTEMPTS = 3
#: What the driver sets for Apple too.
RECONNECT = {"interval": "100ms", "maxInterval": "1s"}
#: Not what is tested here: a busy machine must not lose its membership in the group.
SESSION_TIMEOUT_MS = 30_000
#: Requests at one time.
AT_ONCE = 300
TIMEOUT_S = 8
#: Answers in a row that refuse the credentials until only probes go out.
REFUSALS = 20
#: A minute between probes and 20 minutes between tokens are too long to watch.
_CONSTANTS = {
    "pusher.providers.dispatch._PROBE_EVERY_S": 1.0,
    "pusher.providers.apns.credentials.RENEW_AT_MOST_EVERY_S": 2.0,
}
ANY = 1000


def transport_stages(pushes: int, attempts: int) -> list[Stage]:
    """What HTTP/2 knows."""
    every = pushes // 8
    lost = Group(pushes, expected=FED_BACK, requests=ANY, reason="ConnectionError")
    codes = [(f"rst{code:x}", f"prefix=rst{code:x}:reset {code},once") for code in range(14) if code != _REFUSED_STREAM]
    return [
        Stage("GOAWAY, what is open is answered", [Group(pushes)], [f"goaway:1/{every}"], connections=9),
        Stage(
            "GOAWAY, what is open is refused",
            [Group(pushes, requests=9)],
            [f"goaway:1/{every},unprocessed"],
            connections=9,
        ),
        Stage("GOAWAY in two steps", [Group(pushes)], [f"drain:1/{every},ms=50"], connections=9),
        Stage("cut before answers", [lost], [f"cut:1/{every}"], connections=8 * attempts + 1),
        Stage("cut in the middle of a frame", [lost], [f"cut:1/{every},octets=5"], connections=8 * attempts + 1),
        Stage("frozen in the middle of a frame for 2 s", [Group(pushes)], [f"freeze 2:1/{every},times=2,octets=12"]),
        Stage(
            "RST_STREAM of every code",
            [Group(pushes // 20, prefix, requests=2) for prefix, _ in codes],
            [line for _, line in codes],
        ),
        Stage(
            "RST_STREAM again and again",
            [Group(pushes // 20, "dead", FAILED, ANY, "ConnectionError")],
            ["prefix=dead:reset CANCEL"],
        ),
        Stage("REFUSED_STREAM for every other", [Group(pushes // 4, requests=ANY)], ["reset REFUSED_STREAM:0.5"]),
        Stage(
            "one stream at a time and back",
            [Group(pushes)],
            ["settings MAX_CONCURRENT_STREAMS 1:1/200,ms=1000,times=2"],
        ),
    ]


_REFUSED_STREAM = 7


def answer_stages(pushes: int, attempts: int) -> list[Stage]:
    """Answers that are late, missing, or ask for another try."""
    storm = Group(pushes, expected=FED_BACK, requests=attempts)
    outage = Group(pushes, expected=FED_BACK, requests=ANY)
    return [
        Stage(
            "no answer",
            [Group(100, "mute", FAILED, ANY, "Timeout"), Group(100, "once", requests=2), Group(pushes)],
            ["prefix=mute:silence", "prefix=once:silence,once"],
        ),
        Stage("answers after 5 s", [Group(200, "slow"), Group(pushes)], ["prefix=slow:ok,delay=5000"]),
        Stage("storm of 429, Retry-After in seconds", [storm], ["429:0.3,retry-after=1"]),
        Stage("storm of 503, Retry-After as a date", [outage], [f"503:0.3,retry-after={_DATE}"]),
        Stage("storm of 500", [outage], ["500:0.3"]),
    ]


#: In the past: at once.
_DATE = "06 Nov 1994 08:49:37 GMT"


def outage_stages(provider: Simulator, around: Surroundings, pushes: int) -> list[Stage]:
    """What makes the provider unreachable for a while."""

    def outage(
        name: str, begin: Callable[[], object], end: Callable[[], object], lasts_s: float = 3.0, connections: int = 20
    ) -> Stage:
        return Stage(name, [Group(pushes, requests=2)], (), begin, end, lasts_s, connections)

    back = around.moved_back
    return [
        outage("process frozen for 4 s", partial(freeze, provider), partial(thaw, provider), 4.0),
        outage("new certificate", partial(around.new_certificate, provider), lambda: None, 0.5),
        outage(
            "certificate of a stranger for 3 s",
            partial(around.foreign_certificate, provider),
            partial(around.new_certificate, provider),
        ),
        outage("name leads to a dead address for 3 s", partial(around.moved_to_nobody, provider), back),
        outage("a mute address before the right one", partial(around.mute_address_first, provider), back, 6.0),
    ]


def credential_stages(provider: Simulator, pushes: int) -> list[Stage]:
    """Provider tokens that Apple refuses."""
    refused = Group(pushes, expected=FED_BACK, reason="InvalidProviderToken")
    return [
        Stage(
            "provider token expired",
            [Group(pushes, requests=ANY)],
            begin=partial(order, provider, "expire-tokens"),
            connections=2,
        ),
        Stage(
            "provider token refused for 4 s",
            [refused],
            ["403 InvalidProviderToken"],
            lasts_s=4.0,
            # what was under way when the 20th came, and the probes
            failures=REFUSALS + AT_ONCE + 6,
            connections=0,
        ),
    ]


def mixed(seed: int, pushes: int) -> Stage:
    """A bit of everything, how much is drawn."""
    draw = random.Random(seed)
    faults = {
        f"goaway:1/{draw.randint(300, 900)}": "",
        f"goaway:1/{draw.randint(300, 900)},unprocessed": "",
        f"cut:1/{draw.randint(900, 1800)}": "",
        f"cut:1/{draw.randint(900, 1800)},octets={draw.randint(1, 30)}": "",
        f"reset {draw.randint(0, 13)}:{draw.uniform(0, 0.02):.4f}": "",
        f"429:{draw.uniform(0, 0.02):.4f},retry-after=1": "",
        f"500:{draw.uniform(0, 0.02):.4f}": "",
        f"503:{draw.uniform(0, 0.02):.4f}": "",
        f"silence:{draw.uniform(0, 0.005):.4f},once": "",
        f"ok:{draw.uniform(0, 0.02):.4f},delay={draw.randint(100, 3000)}": "",
        f"settings MAX_CONCURRENT_STREAMS {draw.randint(1, 20)}:1/{draw.randint(500, 1000)},ms=300": "",
    }
    lines = list(faults)
    draw.shuffle(lines)
    return Stage("mixed", [Group(pushes, expected=FED_BACK, requests=ANY)], lines, connections=pushes // 50)


def apns_provider(directory: Path, seed: int, pushes: int = 1_000, only: Collection[str] = ()) -> Result:
    """APNs: every fault of HTTP/2, of answers, of reaching Apple and of provider tokens, then all of them mixed."""
    with (
        kafka(directory) as server,
        Driver(directory, server.brokers) as driver,
        Surroundings(directory, _CONSTANTS) as around,
    ):
        provider = driver.simulator("--seed", str(seed), "--latency-ms", "20", "--name", NAME)
        driver.create_topics(TOPIC)
        settings = driver.settings(provider.port, provider.ca_file, **APNS_CHANGES)
        driver.daemon(settings, program=around.program)
        stages = [
            *transport_stages(pushes, ATTEMPTS),
            *answer_stages(pushes, ATTEMPTS),
            *outage_stages(provider, around, pushes),
            *credential_stages(provider, pushes),
            mixed(seed, pushes * 3),
        ]
        return conclude(Course(driver, provider, TOPIC, http2_connections), chosen(stages, only), tokens=2)


APNS_CHANGES: dict[str, Any] = {
    "apns.host": NAME,
    "queue.sessionTimeout": SESSION_TIMEOUT_MS,
    "apns.concurrentWorkers": AT_ONCE,
    "apns.requestTimeout": f"{TIMEOUT_S}s",
    "apns.connectTimeout": "4s",
    "apns.retry.interval": "200ms",
    "apns.retry.maxElapsed": "10s",
}


def chosen(stages: Sequence[Stage], names: Collection[str]) -> list[Stage]:
    """Those of these names; without names all. Raises ValueError where there is no such stage."""
    missing = set(names) - {stage.name for stage in stages}
    if missing:
        raise ValueError(f"no such stages: {missing}")
    return [stage for stage in stages if not names or stage.name in names]


def http2_connections(counts: dict[str, Any]) -> int:
    """How many were tried, those whose handshake failed among them."""
    transport = counts["transport"]
    return int(transport.get("connections", 0) + transport.get("tls_failures", 0))


def conclude(course: Course, stages: Sequence[Stage], tokens: int = 0) -> Result:
    """Runs the stages, and settles the account; no more than so many provider or access tokens may have been used."""
    driver, provider = course.driver, course.provider
    driver.daemons[0].wait_for('msg="connected"', 60)
    took_s = timed(lambda: course.run(stages))
    counts, requests = provider.counts(), provider.received()
    verdict = driver.verdict(requests)
    complaints = course.audit(requests)
    status = driver.daemons[0].stop()
    used = counts.get("provider_tokens", counts.get("oauth", {}).get("200 OK", 0))
    complaints += [f"{used} tokens, {tokens} are allowed"] if used > tokens else []
    errors = [error for error in counts.get("protocol_errors", []) if not error.startswith("TLS:")]
    line = (
        f"{verdict}; {len(stages)} stages, {sum(counts['faults'].values()):,} faults, "
        f"{sum(outcome.connections for outcome in course.outcomes)} connections, "
        f"{used} tokens, recovered in {course.recovery_s:.1f} s at most, "
        f"exit status {status}, {took_s:.0f} s"
    )
    good = not complaints and not errors and status == 0
    return judged(driver, verdict, good, "\n".join([line, *complaints, *errors[:5]]))


RUNS: dict[str, Callable[[Path, int], Result]] = {"apns-provider": apns_provider}
