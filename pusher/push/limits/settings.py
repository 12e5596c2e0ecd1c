"""The settings of the rate limit and of duplicates: where Redis is, and which pushes are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pusher.config.addresses import Host
from pusher.config.kinds import Bool, Choice, Int, Path, Secret, Text, Unused, ValueKind
from pusher.config.schema import AppSetting, Setting


class Percentages(ValueKind[Mapping[str, int]]):
    """A JSON object of names and whole numbers, such as ``{"mygame": 100}``; "" = none."""

    takes_mapping = True
    expects = 'a JSON object of games and percentages, such as {"mygame": 100}'

    def _value(self, text: str) -> Mapping[str, int]:
        try:
            value = json.loads(text) if text.strip() else {}
        except RecursionError:
            raise ValueError from None
        if not isinstance(value, dict):
            raise ValueError(self.expects)  # noqa: TRY004 - what a kind raises
        return {name: _percentage(number) for name, number in value.items()}

    def _shown(self, value: Mapping[str, int]) -> str:
        return json.dumps(value) if value else ""


def _percentage(number: object) -> int:
    # a mapping of the file brings its numbers as text
    if isinstance(number, str):
        return int(number)
    if type(number) is not int:
        raise ValueError
    return number


@dataclass(frozen=True)
class RedisSettings:
    """Where one of the two counts, and as whom."""

    host: Setting[str]
    port: Setting[int]
    user: Setting[str]
    password: Setting[str]
    cluster: Setting[bool]
    tls_disabled: Setting[bool]
    ca_file: Setting[str]


def _redis(prefix: str, text: str) -> RedisSettings:
    return RedisSettings(
        Setting(f"{prefix}.redis.host", Host(empty=False), "localhost", f"Host of the Redis server {text}."),
        Setting(f"{prefix}.redis.port", Int(1, 65_535), 6379, "Port of that Redis server."),
        Setting(f"{prefix}.redis.user", Text(), "", "Redis user (ACL); empty: the default user."),
        Setting(f"{prefix}.redis.password", Secret(), "", "Password of the Redis user; empty: no password."),
        Setting(
            f"{prefix}.redis.cluster",
            Bool(),
            default=False,
            text="The server is a node of a Redis cluster (Redis 7 or newer); pusher asks it for the other nodes.",
        ),
        Setting(
            f"{prefix}.tls.disabled",
            Bool(),
            default=False,
            text="Connect without TLS. With TLS the certificate is always verified.",
        ),
        Setting(
            f"{prefix}.tls.caFile", Path(), "", "File of PEM certificates that are trusted in addition to the system's."
        ),
    )


RATE_LIMITER = _redis("rateLimiter", "that counts the pushes of each device")
DEDUP = _redis("dedup", "that remembers pushes to find duplicates")
DEDUP_GAMES: Setting[Mapping[str, int]] = Setting(
    "dedup.games",
    Percentages(),
    {},
    "Games whose pushes are checked for duplicates, each with the percentage of its devices that are checked: "
    '`{"mygame": 100}`; empty: no game.',
)
DEDUP_ACTION = Setting(
    "dedup.action",
    Choice("count", "drop"),
    "count",
    "What to do with a push that the device already got within `<platform>.dedup.ttl`: `count` it and send it, or "
    "`drop` it.",
)

#: Keys of earlier files that have no meaning here.
UNUSED = (
    AppSetting("dedup.games.<app>.percentage", Unused(), "", "Accepted, no effect: write `dedup.games` as JSON."),
)
