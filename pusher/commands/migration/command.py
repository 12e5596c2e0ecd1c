"""The command ``migrate-check``: reads configurations of the Go program, and says what changes for them."""

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
    """Prints, of each file, what would stop the start, what does nothing, and what works otherwise.

    Returns 0, or 2 where pusher would not start with one of them. Nothing is connected to.
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
    _say(f"  it is one of the {'newest' if given.is_of_the_newest else 'earlier'} version, by its keys")
    _list("nothing reads, or is doubtful", config.warnings)
    met = [
        f"{difference.area}: {words}\n      there: {difference.there}\n      here:  {difference.here}"
        for difference in DIFFERENCES
        if difference.met is not None and (words := difference.met(given))
    ]
    _list("works otherwise", met)
    always = sum(difference.met is None for difference in DIFFERENCES)
    _say(f"  and {always} differences that hold for every configuration: docs/migration.md")
    return _OK


def _list(head: str, rows: Iterable[str]) -> None:
    rows = list(rows)
    if rows:
        _say(f"  {head}:")
        for row in rows:
            _say(f"    - {row}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
