"""The settings of the rate limit and of duplicates: where Redis is, and which pushes are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pusher.config.schema import AppSetting, Bool, Choice, Host, Int, Path, Secret, Setting, Text, Unused, ValueKind


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
        Setting(f"{prefix}.redis.host", Host(empty=False), "localhost", f"Host of the Redis {text}."),
        Setting(f"{prefix}.redis.port", Int(1, 65_535), 6379, "Its port."),
        Setting(f"{prefix}.redis.user", Text(), "", "User of Redis' access control lists; empty: the default user."),
        Setting(f"{prefix}.redis.password", Secret(), "", "Password of that user; empty: none."),
        Setting(
            f"{prefix}.redis.cluster",
            Bool(),
            default=False,
            text="It is a node of a Redis cluster (Redis 7 or newer): the others are learned from it.",
        ),
        Setting(
            f"{prefix}.tls.disabled",
            Bool(),
            default=False,
            text="Connect without TLS. With it the certificate is always verified.",
        ),
        Setting(f"{prefix}.tls.caFile", Path(), "", "PEM certificates trusted besides the system's."),
    )


RATE_LIMITER = _redis("rateLimiter", "that counts the pushes of each device")
DEDUP = _redis("dedup", "that remembers pushes, to find duplicates")
DEDUP_GAMES: Setting[Mapping[str, int]] = Setting(
    "dedup.games",
    Percentages(),
    {},
    'Games whose pushes are compared, with the percentage of their devices: `{"mygame": 100}`; empty: none.',
)
DEDUP_ACTION = Setting(
    "dedup.action",
    Choice("count", "drop"),
    "count",
    "What happens to a push that the device was sent within `<platform>.dedup.ttl`: counted and sent, or dropped.",
)

#: Keys of earlier files that have no meaning here.
UNUSED = (
    AppSetting("dedup.games.<app>.percentage", Unused(), "", "Accepted, no effect: write `dedup.games` as JSON."),
)
