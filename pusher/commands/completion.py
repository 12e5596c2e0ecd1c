"""``completion``: shell scripts that complete commands and flags, generated from the parsers of the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

_OK = 0
_PROGRAM = "pusher"


class Flag(NamedTuple):
    """A flag and its spellings."""

    spellings: tuple[str, ...]
    text: str
    #: What its value is called; "" where it takes none.
    value: str


class Entry(NamedTuple):
    """A command as the shells and the manual page know it."""

    #: Its words, without the program's: "" for the program itself.
    words: str
    description: str
    #: Names of what may come next, and what each is: commands below it, values of its first argument.
    next: dict[str, str]
    flags: tuple[Flag, ...]
    #: Its arguments that are not flags, and their help.
    arguments: tuple[tuple[str, str], ...]


def entries(parser: argparse.ArgumentParser, words: str = "") -> Iterator[Entry]:
    """A parser and all those below it; each command's module is imported for that."""
    load = getattr(parser, "load", None)
    if load is not None:
        load()
    below: dict[str, argparse.ArgumentParser] = {}
    following: dict[str, str] = {}
    flags, arguments = [], []
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to ask for them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            below = dict(action.choices)
            following |= {one.dest: one.help or "" for one in action._get_subactions()}  # noqa: SLF001
        elif action.option_strings:
            value = "" if action.nargs == 0 else str(action.metavar or action.dest).upper()
            flags.append(Flag(tuple(action.option_strings), _help(parser, action), value))
        else:
            following |= dict.fromkeys(action.choices or (), "")
            arguments.append((str(action.metavar or action.dest), _help(parser, action)))
    yield Entry(words, parser.description or "", following, tuple(flags), tuple(arguments))
    for name, one in below.items():
        if name != "help":
            yield from entries(one, f"{words} {name}".strip())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of ``completion``."""
    parser.add_argument("shell", choices=tuple(_SHELLS), help="the shell that the script is for")


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    from pusher.commands import cli  # noqa: PLC0415  # which has this command in its table

    sys.stdout.write(_SHELLS[args.shell](list(entries(cli.parser()))))
    return _OK


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""  # noqa: SLF001


def _choices(entry: Entry) -> list[str]:
    return [
        *entry.next,
        *(spelling for flag in entry.flags for spelling in flag.spellings if spelling.startswith("--")),
    ]


def _path(found: list[Entry]) -> str:
    """The part of a script of bash or zsh that finds out which command is being typed."""
    known = "|".join(f'"{entry.words}"' for entry in found if entry.words)
    return f"""\
        case "${{path:+$path }}$word" in
            {known}) path="${{path:+$path }}$word" ;;
        esac"""


def _cases(found: list[Entry]) -> str:
    return "\n".join(f'        "{entry.words}") choices="{" ".join(_choices(entry))}" ;;' for entry in found)


def _bash(found: list[Entry]) -> str:
    return f"""\
# Completion of {_PROGRAM} for bash; made by `{_PROGRAM} completion bash`.
_{_PROGRAM}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} path="" choices="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
{_path(found)}
    done
    case "$path" in
{_cases(found)}
    esac
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
}}
complete -o default -F _{_PROGRAM} {_PROGRAM}
"""


def _zsh(found: list[Entry]) -> str:
    return f"""\
#compdef {_PROGRAM}
# Completion of {_PROGRAM} for zsh; made by `{_PROGRAM} completion zsh`.
_{_PROGRAM}() {{
    local path_="" choices="" word
    for word in "${{(@)words[2,CURRENT-1]}}"; do
{_path(found).replace("path", "path_")}
    done
    case "$path_" in
{_cases(found)}
    esac
    compadd -- ${{=choices}}
    _files
}}
if [ "$funcstack[1]" = "_{_PROGRAM}" ]; then _{_PROGRAM} "$@"; else compdef _{_PROGRAM} {_PROGRAM}; fi
"""


def _fish(found: list[Entry]) -> str:
    lines = [
        f"# Completion of {_PROGRAM} for fish; made by `{_PROGRAM} completion fish`.",
        f"function __{_PROGRAM}_at",
        "    set -l path",
        "    for word in (commandline -opc)[2..-1]",
        "        if contains -- (string join ' ' $path $word) " + " ".join(f"'{e.words}'" for e in found if e.words),
        "            set -a path $word",
        "        end",
        "    end",
        '    test "$path" = "$argv"',
        "end",
    ]
    for entry in found:
        at = f"complete -c {_PROGRAM} -n \"__{_PROGRAM}_at '{entry.words}'\""
        lines += [f"{at} -f -a '{name}' -d {_quoted(text)}" for name, text in entry.next.items()]
        for flag in entry.flags:
            names = " ".join(f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in flag.spellings)
            lines.append(f"{at} {names}{' -r' if flag.value else ''} -d {_quoted(flag.text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"


_SHELLS: dict[str, Callable[[list[Entry]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
