"""The commands: one row each in ``COMMANDS``. A command's module is imported only when the command is used."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from pusher import __version__, config
from pusher.commands.examples import shown
from pusher.config import doors, settings
from pusher.config.effective import effective, without_effect
from pusher.config.values import Config
from pusher.daemon import early
from pusher.errors import StartError
from pusher.sim import SIMULATORS
from pusher.telemetry import log as logging_setup

#: Exit codes.
OK, FAILED, CANNOT_START = 0, 1, 2
#: What the last log lines get to be written.
_FLUSH_S = 1.0
#: As shells report a process that a signal has ended.
INTERRUPTED, PIPE_CLOSED = 128 + signal.SIGINT, 128 + signal.SIGPIPE

_SETTING_FLAG = re.compile(r"--[^=\s]+=", re.ASCII)

#: Flags that are on or off, and the words that Go's own take as their values.
_SWITCHES = (("-d", "--debug"), ("-j", "--json"), ("-p", "--production"))
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_FLAGS = ("--config", "--debug", "--json", "--production", "--help", "--version", "--check")

_EPILOG = (
    "Every setting of docs/configuration.md can be set in the configuration file, as the environment variable "
    "PUSHER_<KEY WITH _ FOR .>, or as the flag --key=value. A flag overrides a variable, a variable overrides the file."
)


@dataclass(frozen=True)
class Command:
    """One command. Functions are named ``module:function``; ``run`` is called with the arguments and the settings."""

    name: str
    text: str
    run: str | Callable[..., int] = ""
    arguments: str | Callable[[argparse.ArgumentParser], None] | None = None
    #: Without settings ``run`` is called with the arguments alone.
    configured: bool = True
    #: It runs until a signal ends it, and handles signals itself.
    stays: bool = False
    #: Commands of their own below this one.
    commands: tuple[Command, ...] = ()


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _send(args: argparse.Namespace, config: Config) -> int:
    work = _load("pusher.commands.check:check_sender" if args.check else "pusher.sender.sender:run_sender")
    return int(work(args.command, config))


def _listen(args: argparse.Namespace, config: Config) -> int:
    work = _load("pusher.commands.check:check_listener" if args.check else "pusher.listener.listener:run_listener")
    return int(work(config))


def _print_settings(_: argparse.Namespace, config: Config) -> int:
    for line in effective(config):
        _say(line)
    return OK


def _print_version(_: argparse.Namespace) -> int:
    _say(__version__)
    return OK


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="verify settings, credentials and connections, then exit with 0 or 2"
    )


def _simulator(name: str, text: str) -> Command:
    module = f"pusher.sim.{name}"
    return Command(name, text, f"{module}:run", f"{module}:add_arguments", configured=False)


def _of_providers() -> Iterator[Command]:
    """Commands of providers. One that cannot be imported is left out; ``--check`` names it."""
    for name, door in doors.installed(doors.COMMANDS).items():
        with suppress(doors.Broken):
            yield Command(name, *door.load())


COMMANDS = (
    *(
        Command(word, f"send pushes of the platform {word}", _send, _add_check, stays=True)
        for word in doors.installed(doors.PROVIDERS)
    ),
    Command("start-feedback-listener", "delete dead device tokens from their stores", _listen, _add_check, stays=True),
    Command("version", "print the version", _print_version, configured=False),
    Command(
        "init",
        "write a first configuration for one app",
        "pusher.commands.init:run",
        "pusher.commands.init:add_arguments",
        configured=False,
    ),
    Command(
        "migrate-check",
        "read configurations of the Go program and print what changes for them",
        "pusher.commands.migration.command:run",
        "pusher.commands.migration.command:add_arguments",
        configured=False,
    ),
    Command("settings", "print the effective settings and the source of each", _print_settings),
    Command(
        "send",
        "send one push to one device and print its outcome",
        "pusher.commands.send:run",
        "pusher.commands.send:add_arguments",
    ),
    Command(
        "enqueue",
        "write messages to a topic",
        "pusher.commands.topics:run_enqueue",
        "pusher.commands.topics:add_enqueue_arguments",
    ),
    Command(
        "tail",
        "print the messages of a topic",
        "pusher.commands.topics:run_tail",
        "pusher.commands.topics:add_tail_arguments",
    ),
    *_of_providers(),
    Command(
        "replay",
        "send messages of a topic again",
        "pusher.commands.replay.command:run_replay",
        "pusher.commands.replay.command:add_arguments",
    ),
    Command(
        "restore",
        "restore rows that start-feedback-listener has deleted",
        "pusher.commands.restore:run",
        "pusher.commands.restore:add_arguments",
    ),
    Command(
        "completion",
        "print a completion script for a shell",
        "pusher.commands.completion:run",
        "pusher.commands.completion:add_arguments",
        configured=False,
    ),
    Command(
        "simulate",
        "simulate a push provider, for tests without a real one",
        commands=tuple(_simulator(*row) for row in SIMULATORS.items()),
    ),
)


def _help(prog: str) -> argparse.HelpFormatter:
    """Room for the longest command's name."""
    return argparse.HelpFormatter(prog, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """Takes its arguments from its command, and only when it is used."""

    def __init__(self, *, command: Command | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_help, **options)
        self._pending = command

    def load(self) -> None:
        """Takes its arguments. Imports the command's module; a second call does nothing."""
        command, self._pending = self._pending, None
        if command is not None and command.arguments is not None:
            add = _load(command.arguments) if isinstance(command.arguments, str) else command.arguments
            add(self)

    def format_help(self) -> str:
        """Like argparse's, with examples."""
        return super().format_help() + shown(self.prog)

    def error(self, message: str) -> NoReturn:
        """Like argparse's, with a suggestion for a mistyped command."""
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if found is not None:
            message += _closest(found[1], re.findall(r"[\w-]+", found[2]))
        super().error(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's."""
        self.load()
        return super().parse_known_args(args, namespace)


def parser(rows: Sequence[Command] = COMMANDS) -> _Parser:
    """The whole command line. Arguments of a command come with its ``load``."""
    whole = _Parser(
        prog="pusher", description="Sends push notifications from Kafka to Apple and Google.", epilog=_EPILOG
    )
    _add_flags(whole)
    whole.add_argument("--version", action="version", version=__version__, help="print the version")
    commands = _add_commands(whole, rows, "command", required=False)
    commands.add_parser("help", help="print this text", add_help=False)
    for command in rows:
        _add_flags(commands.choices[command.name], suppress=True)
    return whole


def _add_commands(
    parser: argparse.ArgumentParser, rows: Sequence[Command], dest: str, *, required: bool
) -> argparse._SubParsersAction[_Parser]:
    commands = parser.add_subparsers(
        dest=dest, metavar="COMMAND", title="commands", required=required, parser_class=_Parser
    )
    for row in rows:
        below = commands.add_parser(row.name, help=row.text, description=row.text, command=row)
        below.set_defaults(row=row)
        if row.commands:
            _add_commands(below, row.commands, "which", required=True)
    return commands


def _add_flags(parser: argparse.ArgumentParser, *, suppress: bool = False) -> None:
    """The flags that may stand before or after the command; after it, one that is absent must not undo one before."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if suppress else value

    flags = parser.add_argument_group("flags")
    path = config.DEFAULT_PATH
    flags.add_argument("--config", metavar="FILE", default=default(None), help=f"configuration file ({path})")
    for short, long, text in (
        ("-d", "--debug", "log at level debug"),
        ("-j", "--json", "write log lines as JSON instead of text"),
        ("-p", "--production", "use the providers' production addresses"),
    ):
        flags.add_argument(short, long, action="store_true", default=default(value=False), help=text)


def main(arguments: Sequence[str] | None = None, rows: Sequence[Command] = COMMANDS) -> int:
    """Runs the command line and returns the exit code; SystemExit for a usage error or --help."""
    whole = parser(rows)
    given = _without_values(whole, sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"] and given[1:]:
        given = [*given[1:], "--help"]
    args, extra = whole.parse_known_args(given)
    row: Command | None = getattr(args, "row", None)
    strangers = [text for text in extra if row is None or not row.configured or not _SETTING_FLAG.match(text)]
    if strangers:
        whole.error(f"unrecognized arguments: {' '.join(strangers)}{_closest(strangers[0], _FLAGS)}")
    if row is None:
        whole.print_help()
        return OK
    return _run(row, args, extra)


def _without_values(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """``--debug=true`` as ``--debug``, and ``--debug=false`` as none of it: the words of Go's boolean flags."""
    given: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*given, *arguments[position:]]
        name, equals, word = argument.partition("=")
        spellings = next((one for one in _SWITCHES if name in one), None)
        if spellings is None or not equals:
            given.append(argument)
        elif word in _TRUE:
            given.append(name)
        elif word in _FALSE:
            given = [one for one in given if one not in spellings]
        else:
            parser.error(f"{name} expects true or false; {word!r} is not")
    return given


def _closest(text: str, known: Iterable[str]) -> str:
    """A suggestion for a word that is mistyped, as the end of a message."""
    found = difflib.get_close_matches(text.partition("=")[0], list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _run(row: Command, args: argparse.Namespace, flags: Sequence[str]) -> int:
    try:
        if not row.stays or args.check:
            early.hand_over()
        run = _load(row.run) if isinstance(row.run, str) else row.run
        result = int(run(args, _configure(args, flags))) if row.configured else int(run(args))
        sys.stdout.flush()
        return result
    except StartError as error:
        logging_setup.flush(_FLUSH_S)
        sys.stderr.write(f"pusher: {error}\n")
        return CANNOT_START
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _print_no_more()
        return PIPE_CLOSED
    except OSError as error:
        # Of the terminal or of a file: brokers and providers have errors of their own.
        _print_no_more()
        sys.stderr.write(f"pusher: {error.filename or 'output'}: {error.strerror or error}\n")
        return FAILED
    finally:
        logging_setup.tell_left_out()
        logging_setup.flush(_FLUSH_S)


def _print_no_more() -> None:
    """Keeps Python from failing again at exit, when it flushes an output that is closed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _configure(args: argparse.Namespace, flags: Sequence[str]) -> Config:
    """Reads the settings and sets logging up by them."""
    found = config.load(args.config, os.environ, flags, production=args.production)
    found.command = args.command
    logging_setup.setup(
        "debug" if args.debug else found[settings.LOG_LEVEL],
        as_json=args.json,
        one_shot=not args.row.stays or args.check,
    )
    unheard = without_effect(found, args.command) if args.row.stays else ()
    for warning in (*found.warnings, *unheard):
        logging_setup.logger(__name__).warning(warning)
    return found


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
