"""``init``: writes a first configuration for one app, from questions or flags, after it has verified the values."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import yaml

from pusher import config
from pusher.config.kinds import is_path
from pusher.config.schema import Setting
from pusher.config.settings import FEEDBACK_BROKERS, FEEDBACK_REPORTERS, QUEUE, of_provider
from pusher.errors import StartError
from pusher.providers.provider import Guide, Question, provider, words
from pusher.push import topics

#: Makes the value of an answer; ValueError with what is expected.
Check = Callable[[str], str]

_OK = 0
_INDENT = "  "
_WIDTH = 116
#: Of the file: it holds secrets, or names the files that do.
_MODE = 0o600
_STDOUT = "-"
_NO_KAFKA = "sqlite:///queue.db"
#: What the app is called where nothing else is asked for.
_APP = "game"


class _Asked(NamedTuple):
    """A question of ``init`` itself."""

    flag: str
    setting: Setting[str]
    text: str
    default: str


_BROKERS = _Asked(
    "brokers",
    QUEUE.brokers,
    f"Kafka's bootstrap servers (host:port,...), or {_NO_KAFKA} to begin without Kafka",
    _NO_KAFKA,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A command below ``init`` for each guide of a provider, with a flag for each of its questions."""
    guides = parser.add_subparsers(dest="guide", metavar="PROVIDER", required=True, title="providers")
    for platform, guide in _guides():
        below = guides.add_parser(guide.name, help=guide.text, description=f"Sets up {guide.text}. {guide.note}")
        below.add_argument("--app", metavar="NAME", help="name of the app, as in the names of its topics")
        for question in guide.questions:
            below.add_argument(f"--{question.flag}", metavar="VALUE", help=question.text)
        below.add_argument(f"--{_BROKERS.flag}", metavar="ADDRESS", help=_BROKERS.text)
        below.add_argument(
            "--output",
            default=config.DEFAULT_PATH,
            metavar="FILE",
            help="file to write; - = standard output (default: %(default)s)",
        )
        below.add_argument("--force", action="store_true", help="overwrite an existing file")
        below.set_defaults(guided=(platform, guide))


def run(args: argparse.Namespace) -> int:
    """Writes the file. Raises ``StartError``, and writes nothing, when an answer is missing or cannot be used."""
    platform, guide = args.guided
    _refuse_existing(args)
    app = _answer(args, "app", "name of the app", _valid_app, _APP)
    answers = {question: _answer(args, question.flag, question.text, _valid(question)) for question in guide.questions}
    brokers = _answer(args, _BROKERS.flag, _BROKERS.text, _BROKERS.setting.kind.parse, _BROKERS.default)
    text = _file(platform, guide, app, answers, brokers)
    guide.check(config.parse(text, name=args.output), app)
    if args.output == _STDOUT:
        sys.stdout.write(text)
        return _OK
    _write(Path(args.output), text)
    sys.stdout.write("\n".join(_next_steps(args, platform, guide, app)) + "\n")
    return _OK


def _guides() -> Iterator[tuple[str, Guide]]:
    for word in words():
        for guide in provider(word).guides:
            yield word, guide


def _refuse_existing(args: argparse.Namespace) -> None:
    if args.output != _STDOUT and Path(args.output).exists() and not args.force:
        raise StartError(
            f"{args.output} exists: --output - prints the lines to add to it, --force overwrites it, "
            "--output FILE writes another file"
        )


def _valid_app(text: str) -> str:
    if not text or set(text) & set("<>:,=#.'\"{}[]\\/ \t"):
        raise ValueError("a name that is allowed in the name of a topic")
    return text


def _valid(question: Question) -> Check:
    def check(text: str) -> str:
        if not text.strip():
            raise ValueError("a value")
        value: str = question.setting.kind.parse(text)
        return str(Path(value).expanduser().absolute()) if question.is_path and is_path(value) else value

    return check


def _answer(args: argparse.Namespace, flag: str, text: str, check: Check, default: str = "") -> str:
    """The flag's value; where it is missing, what a person at the terminal answers, or else the default."""
    given = getattr(args, flag.replace("-", "_"))
    if given is None and not sys.stdin.isatty():
        if not default:
            raise StartError(f"--{flag} is missing ({text}); on a terminal, init asks for it")
        given = default
    if given is not None:
        try:
            return check(given)
        except ValueError as error:
            raise StartError(f"--{flag} expects {error}") from None
    return _ask(text, check, default)


def _ask(text: str, check: Check, default: str) -> str:
    """Asks until an answer can be used. KeyboardInterrupt and EOFError end it."""
    while True:
        sys.stderr.write(f"{text}{f' [{default}]' if default else ''}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise StartError("no answer")
        try:
            return check(line.strip() or default)
        except ValueError as error:
            sys.stderr.write(f"  expected: {error}\n")


class _Row(NamedTuple):
    """A line of the file."""

    key: str
    value: str
    comment: str


def _file(platform: str, guide: Guide, app: str, answers: Mapping[Question, str], brokers: str) -> str:
    """The configuration, as YAML with comments."""
    head = (
        f"# Written by `pusher init {guide.name}`. docs/configuration.md lists all settings, `pusher settings` prints",
        "# the effective ones; a variable PUSHER_<KEY WITH _ FOR .> overrides this file.",
        *(f"# {line}" for line in textwrap.wrap(guide.note, _WIDTH)),
    )
    rows = [
        _Row(of_provider(platform).apps.key, app, "separated by commas"),
        *(_Row(asked.setting.for_app(app).key, value, asked.text) for asked, value in answers.items()),
        _Row(QUEUE.brokers.key, brokers, "where push requests come from"),
        _Row(QUEUE.group.key, f"pusher-{platform}", "consumer group; processes of one group share the work"),
        _Row(QUEUE.offset_reset_strategy.key, "earliest", "a new group also sends waiting messages"),
        _Row(FEEDBACK_REPORTERS.key, "kafka", f"outcomes go to {topics.feedback_topic('<game>', platform)}"),
        _Row(FEEDBACK_BROKERS.key, brokers, "broker to which outcomes are published"),
    ]
    return "\n".join([*head, *_nested(rows)]) + "\n"


def _nested(rows: Iterable[_Row]) -> Iterator[str]:
    """Dotted keys as nested lines, an empty one before each new first word."""
    before: list[str] = []
    for key, value, comment in rows:
        *above, last = key.split(".")
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, above, strict=False)))
        if not shared:
            yield ""
        yield from (f"{_INDENT * depth}{above[depth]}:" for depth in range(shared, len(above)))
        yield f"{_INDENT * len(above)}{last}: {_scalar(value)} # {comment}"
        before = above


def _scalar(value: str) -> str:
    return yaml.safe_dump(value, width=4_096).removesuffix("\n...\n").strip()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, _MODE)) as file:
            file.write(text)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from None


def _next_steps(args: argparse.Namespace, platform: str, guide: Guide, app: str) -> Iterator[str]:
    where = "" if args.output == config.DEFAULT_PATH else f" --config {args.output}"
    yield f"wrote {args.output}: {guide.text}, called {app}"
    yield guide.note
    yield "next:"
    yield f"  pusher {platform} --check{where}"
    yield f"  pusher send {platform} --app {app} --token TOKEN-OF-A-DEVICE --title Hello{where}"
    yield f"  pusher {platform}{where}"
