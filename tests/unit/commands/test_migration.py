"""What ``migrate-check`` says of configurations of the Go program."""

from __future__ import annotations

from pathlib import Path

import pytest

from pusher.commands import cli
from pusher.commands.migration.differences import DIFFERENCES

EARLIER = """
apns:
  apps: game
  retry: {interval: 1000000000}
gcm:
  apps: game,my_game
  certs: {game: {apiKey: k, senderID: "1"}}
queue:
  topics: ['^push-[^-_]+_(apns|gcm)[_-](single|massive)']
feedback.cache.requestTimeout: 1800000
feedbackListeners.invalidToken.pg: {host: db, maxRetries: 3}
"""
NEWEST = """
log: {level: info}
apns: {apps: game, dedup: {ttl: 0s}}
gcm: {apps: game, firebaseCredentials: {game: "{}"}, rateLimit: {rpm: 20}}
rateLimiter: {redis: {host: redis}, tls: {disabled: false}}
dedup: {redis: {host: redis}, tls: {disabled: true}, games: '{"game": 100}'}
pprof: {enabled: true}
"""


def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int = 0, **variables: str) -> str:
    file = tmp_path / "go.yaml"
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"PUSHER_{name}", value)
        assert cli.main(["migrate-check", str(file)]) == code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        "of the earlier version",
        "Configuration: apns.retry.interval is 1000000000 (line 4)",
        "Google: game has no gcm.firebaseCredentials, my_game has no gcm.firebaseCredentials",
        "Topics: my_game",
        "Topics: queue.topics is '^push",
        "feedback.cache.requestTimeout (line 10)",
        "pg.maxRetries (line 11)",
    ],
)
def test_the_earlier_version(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert words in said(tmp_path, capsys, EARLIER)


@pytest.mark.parametrize(
    "words",
    [
        "of the newest version",
        "Rate limit: apns.rateLimit.rpm is missing or 0",
        "Rate limit: gcm.rateLimit.rpm (line 4)",
        "Rate limit: rateLimiter connects with TLS\n",
        "Duplicates: dedup.games (line 6)",
        "Duplicates: apns.dedup.ttl is 0 (line 3)",
        "Feedback: feedback.successes is not given",
        "Configuration: pprof.enabled (line 7)",
    ],
)
def test_the_newest_version(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert words in said(tmp_path, capsys, NEWEST)


def test_variables_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(tmp_path, capsys, "apns.apps: game\n", APNS_CERTS_GAME="/certs/a.pem", APNS_RATELIMIT_RPM="5")
    assert "Configuration: PUSHER_APNS_CERTS_GAME" in found
    assert "of the newest version" in found
    assert "apns.rateLimit.rpm is missing" not in found


def test_what_would_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not start: " in said(tmp_path, capsys, "apns.port: lots\n", code=2)


def test_a_secret_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = NEWEST + "sentry.url: https://hush@sentry.example/1\nrateLimiter.redis.password: hush\n"
    assert "hush" not in said(tmp_path, capsys, text)


def test_every_difference_has_its_reason() -> None:
    assert len(DIFFERENCES) > 40
    assert all(all(one[:4]) for one in DIFFERENCES)
