"""The command ``migrate-check``: reads configurations of the Go program and reports what changes for them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping

from pusher.commands.migration.differences import DIFFERENCES
from pusher.commands.migration.go_configuration import GoConfiguration
from pusher.config import file, loader
from pusher.config.schema import ConfigError

_OK, _CANNOT_START = 0, 2
_PREFIX = "PUSHER_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``migrate-check``."""
    parser.add_argument("files", nargs="+", metavar="CONFIG", help="a configuration file of the Go program")


def run(args: argparse.Namespace) -> int:
    """Prints for each file what would prevent the start, which keys have no effect, and which differences apply.

    Returns 0, or 2 if pusher would not start with one of the files. It opens no connection.
    """
    variables = {name: text for name, text in os.environ.items() if name.startswith(_PREFIX) and text}
    return max(_check(path, variables) for path in args.files)


def _check(path: str, variables: Mapping[str, str]) -> int:
    _say(f"{path}, with {len(variables)} variables")
    try:
        text = file.read(path)
        given = GoConfiguration(loader.lines(text, path), variables)
        config = loader.parse(text, variables, name=path)
    except ConfigError as error:
        _say(f"  does not start: {error}")
        return _CANNOT_START
    _say(f"  a configuration of the {'newest' if given.is_of_the_newest else 'earlier'} version, judging by its keys")
    _list("unknown or doubtful settings", config.warnings)
    met = [
        f"{difference.area}: {words}\n      Go program: {difference.there}\n      pusher:     {difference.here}"
        for difference in DIFFERENCES
        if difference.met is not None and (words := difference.met(given))
    ]
    _list("differences that apply", met)
    always = sum(difference.met is None for difference in DIFFERENCES)
    _say(f"  {always} more differences apply to every configuration; see docs/migration.md")
    return _OK


def _list(head: str, rows: Iterable[str]) -> None:
    rows = list(rows)
    if rows:
        _say(f"  {head}:")
        for row in rows:
            _say(f"    - {row}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
