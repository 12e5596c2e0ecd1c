"""What FCM, its token endpoint and the way to both may do wrong, each alone and mixed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from lab.processes import Simulator
from tests.faults.driver import nested
from tests.faults.fcm_runs import TOPIC, FcmDriver
from tests.faults.ledger import FED_BACK
from tests.faults.provider_runs import (
    ANY,
    AT_ONCE,
    RECONNECT,
    REFUSALS,
    SESSION_TIMEOUT_MS,
    TIMEOUT_S,
    answer_stages,
    chosen,
    conclude,
    http2_connections,
    mixed,
    outage_stages,
    transport_stages,
)
from tests.faults.result import Result
from tests.faults.runs import kafka
from tests.faults.stages import Course, Group, Stage, order
from tests.faults.surroundings import NAME, Surroundings

#: A token that is refused while it is younger is not asked for anew.
_YOUNG_S = 0.5
#: A minute between probes, and until a young token is believed to have been refused, is too long to watch.
_CONSTANTS = {
    "pusher.providers.dispatch._PROBE_EVERY_S": 1.0,
    "pusher.providers.google.fcm.access_token.RENEW_AT_MOST_EVERY_S": _YOUNG_S,
    "pusher.providers.google.fcm.service.QUOTA_WAIT_S": 0.5,
    "pusher.providers.google.fcm.pace.PROBE_EVERY_S": 0.1,
}
#: The first, one after each revocation, and those that are tried while all are answered 401.
TOKENS = 1 + 4 + 10
#: Sends of a push in all, by default.
ATTEMPTS = 5


def token_stages(provider: Simulator, pushes: int) -> list[Stage]:
    """What the token endpoint does; each begins with an access token that is good no more."""

    def revoked(name: str, *faults: str, lasts_s: float = 0.0) -> Stage:
        def begin() -> None:
            # the stage before may have ended with a new token
            time.sleep(_YOUNG_S)
            order(provider, "oauth-faults", *faults)
            order(provider, "revoke")

        end = partial(order, provider, "oauth-faults")
        return Stage(name, [Group(pushes, requests=ANY)], (), begin, end, lasts_s, connections=0)

    return [
        revoked("access token revoked, 401"),
        revoked("token endpoint answers 503 for 3 s", "503", lasts_s=3.0),
        revoked("token endpoint answers 500 with a page for 3 s", "500,body=<html>oops</html>", lasts_s=3.0),
        revoked("token endpoint takes 2 s", "ok,delay=2000"),
        Stage(
            "401 for every access token for 4 s",
            [Group(pushes, expected=FED_BACK, requests=ANY)],
            ["401 UNAUTHENTICATED"],
            lasts_s=4.0,
            failures=REFUSALS + AT_ONCE + 6,
            connections=0,
        ),
    ]


def fcm_provider(directory: Path, seed: int, pushes: int = 1_000, only: Collection[str] = ()) -> Result:
    """FCM: every fault of HTTP/2, of answers, of reaching Google and of access tokens, then all of them mixed."""
    with (
        kafka(directory) as server,
        FcmDriver(directory, server.brokers) as driver,
        Surroundings(directory, _CONSTANTS) as around,
    ):
        provider = driver.simulator("--seed", str(seed), "--latency-ms", "20", "--name", NAME)
        driver.create_topics(TOPIC)
        settings = driver.settings(provider.port, provider.ca_file)
        settings["gcm"]["reconnect"] = RECONNECT
        settings["queue"]["sessionTimeout"] = SESSION_TIMEOUT_MS
        settings["gcm"]["fcm"] |= nested(
            {
                "endpoint": f"https://{NAME}:{provider.port}",
                "requestTimeout": f"{TIMEOUT_S}s",
                "retry": {"interval": "200ms", "maxAttempts": ATTEMPTS},
            }
        )
        driver.daemon(settings, program=around.program)
        stages = [
            *transport_stages(pushes, ATTEMPTS),
            *answer_stages(pushes, ATTEMPTS),
            *outage_stages(provider, around, pushes),
            *token_stages(provider, pushes),
            mixed(seed, pushes * 3),
        ]
        return conclude(Course(driver, provider, TOPIC, http2_connections), chosen(stages, only), TOKENS)


RUNS: dict[str, Callable[[Path, int], Result]] = {"fcm-provider": fcm_provider}
