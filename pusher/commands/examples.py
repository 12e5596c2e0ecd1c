"""Examples of each command, as its ``--help`` and the manual page show them: what it does, and what to type."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """One line to type."""

    text: str
    line: str


#: By the command's words.
EXAMPLES: dict[str, tuple[Example, ...]] = {
    "": (
        Example("write a first configuration", "pusher init apns"),
        Example("verify it", "pusher apns --check"),
        Example("send pushes to Apple, in production", "pusher apns --production"),
    ),
    "apns": (
        Example("send to Apple's sandbox", "pusher apns"),
        Example("send to production, with a configuration of its own", "pusher apns -p --config /etc/pusher/apns.yaml"),
        Example("another port, this time only", "pusher apns --apns.port=2197"),
        Example("is everything in place?", "pusher apns --check"),
    ),
    "gcm": (
        Example("send to Google", "pusher gcm -p --config /etc/pusher/gcm.yaml"),
        Example("is everything in place?", "pusher gcm --check"),
    ),
    "start-feedback-listener": (
        Example("delete dead tokens", "pusher start-feedback-listener --config /etc/pusher/listener.yaml"),
        Example("is everything in place?", "pusher start-feedback-listener --check"),
    ),
    "version": (Example("print the version", "pusher version"),),
    "init": (Example("be asked for everything", "pusher init apns"), Example("for Google", "pusher init fcm")),
    "init apns": (
        Example(
            "without questions",
            "pusher init apns --app game --key AuthKey_ABC123DEFG.p8 --key-id ABC123DEFG --team-id DEF123GHIJ "
            "--topic com.example.game",
        ),
        Example("print the lines for another game", "pusher init apns --app arena --output -"),
    ),
    "init fcm": (Example("without questions", "pusher init fcm --app game --credentials service-account.json"),),
    "settings": (
        Example("where does a value come from?", "pusher settings | grep brokers"),
        Example("of another file", "pusher settings --config /etc/pusher/apns.yaml"),
    ),
    "send": (
        Example("to a development build", "pusher send apns --app game --token 00fc13adff78 --title Hello"),
        Example("to an app from the store", "pusher send apns -p --app game --token 00fc13adff78 --title Hello"),
        Example("let Google check it only", "pusher send gcm --app game --token TOKEN --title Hello --dry-run"),
    ),
    "enqueue": (
        Example("one message a line, from a file", "pusher enqueue push-game_apns-single pushes.jsonl"),
        Example("from another program", "make-pushes | pusher enqueue push-game_apns-massive"),
    ),
    "tail": (
        Example("outcomes as they come", "pusher tail push-game-apns-feedbacks"),
        Example("the first ten, once there are any", "pusher tail push-game-apns-feedbacks --from-start --wait -n 10"),
    ),
    "replay": (
        Example(
            "what would be sent again of the last two hours?",
            "pusher replay --topic push-game_apns-single --from -2h --failed-only",
        ),
        Example("do it", "pusher replay --topic push-game_apns-single --from -2h --failed-only --yes"),
    ),
    "channels": (Example("of an app", "pusher channels list --app game"),),
    "restore": (
        Example("what would come back?", "pusher restore --game game --platform apns --since '2026-01-31 14:00+00'"),
        Example("bring it back", "pusher restore --game game --platform apns --since '2026-01-31 14:00+00' --yes"),
    ),
    "migrate-check": (Example("of the Go program's file", "pusher migrate-check /etc/pusher/default.yaml"),),
    "simulate": (Example("a simulated Apple", "pusher simulate apns --port 2197 --tls-dir tls"),),
    "simulate apns": (
        Example("with a key for it", "pusher simulate apns --tls-dir tls --write-key authkey.p8"),
        Example("one answer in twenty is 503", "pusher simulate apns --fault 503:0.05,once"),
    ),
    "simulate gcm": (Example("with an account", "pusher simulate gcm --account 1234567890:demo-key"),),
    "simulate fcm": (
        Example("with a service account for it", "pusher simulate fcm --tls-dir tls --write-credentials account.json"),
    ),
    "completion": (
        Example("bash", "pusher completion bash > ~/.local/share/bash-completion/completions/pusher"),
        Example("zsh, in a directory of $fpath", "pusher completion zsh > ~/.zfunc/_pusher"),
        Example("fish", "pusher completion fish > ~/.config/fish/completions/pusher.fish"),
    ),
}


def shown(words: str) -> str:
    """The examples of a command as the end of its ``--help``; "" for a command that has none."""
    found = EXAMPLES.get(words, ())
    if not found:
        return ""
    return "\nexamples:\n" + "".join(f"  # {example.text}\n  {example.line}\n" for example in found)
