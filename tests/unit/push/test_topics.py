"""The grammar of topic names, with games that contain its separators."""

import pytest

from pusher.push import topics


@pytest.mark.parametrize(
    ("topic", "apps", "expected"),
    [
        ("push-game_apns-single", (), ("game", "apns")),
        ("push-game_apns", (), ("game", "apns")),
        ("push-game-apns-feedbacks", (), ("game", "apns")),
        ("push-my_game_apns-single", (), ("my_game", "apns")),
        ("push-my-game_gcm-massive", (), ("my-game", "gcm")),
        ("push-a_gcm-b_apns-single", (), ("a", "gcm")),
        ("push-a_gcm-b_apns-single", ("a_gcm-b",), ("a_gcm-b", "apns")),
        ("push-a_gcm-b_apns-single", ("a", "a_gcm-b"), ("a_gcm-b", "apns")),
        ("push-a_gcm-b_apns-single", ("a",), ("a", "gcm")),
        ("push-game_gcmfoo", (), ("game", "gcm")),
        ("push-g.x_apns-single", (), ("g.x", "apns")),
        ("push-apns_apns-single", ("apns",), ("apns", "apns")),
        ("push-game_foo-single", (), None),
        ("xpush-game_apns", (), None),
        ("push-_apns", (), None),
        ("com.games.test", (), None),
        ("", (), None),
    ],
)
def test_parse(topic: str, apps: tuple[str, ...], expected: tuple[str, str] | None) -> None:
    assert topics.parse(topic, apps) == expected


@pytest.mark.parametrize("ending", ["-feedbacks", "-invalid", "-held"])
def test_what_pusher_writes(ending: str) -> None:
    assert topics.is_written_by_pusher("push-game-apns" + ending)
    assert not topics.is_written_by_pusher("push-game_apns-single")


def test_derived_topics_have_dashes() -> None:
    assert topics.feedback_topic("my_game", "apns") == "push-my_game-apns-feedbacks"
    assert topics.held_topic("my_game", "gcm") == "push-my_game-gcm-held"


def test_a_template_is_filled() -> None:
    name = topics.TopicName("my_game", "gcm")
    assert topics.fill("push-<game>-<platform>-invalid", name) == "push-my_game-gcm-invalid"
    assert topics.fill("fixed", name) == "fixed"
