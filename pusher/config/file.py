"""The YAML file as flat lines: dotted key, text, line number.

The texts are the file's own, not what YAML makes of them, so that a key id of digits keeps its zeros. Sequences become
one text (see :mod:`pusher.config.schema`); null counts as not given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from pusher.config.schema import ITEM_END, ConfigError, json_text

#: Deeper nesting is an anchor that contains itself.
_DEEPEST = 20
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class Line(NamedTuple):
    """One value of the file."""

    key: str
    text: str
    number: int


def read(path: str) -> str:
    """The file's text. Raises ConfigError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name the configuration file with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read ({reason}); name a readable file with --config") from None


def parse(text: str, name: str, whole: Callable[[str], bool]) -> list[Line]:
    """The lines of a file's text; mappings below a key that ``whole`` names are taken as JSON. Raises ConfigError."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_error(error, name)) from None
    if root is None or root.tag == _NULL:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{name}:{root.start_mark.line + 1}: not a mapping; write settings as `key: value`")
    return _Flattener(loader, name, whole).lines(root)


def _syntax_error(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}:{mark.line + 1}" if mark else name
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    return f"{where}: not valid YAML ({problem}); mend the line or the one before it"


class _Flattener:
    """Walks the nodes of one file."""

    def __init__(self, loader: yaml.SafeLoader, name: str, whole: Callable[[str], bool]) -> None:
        self._loader, self._name, self._whole = loader, name, whole

    def lines(self, root: yaml.MappingNode) -> list[Line]:
        seen: dict[str, Line] = {}
        for line in self._mapping(root, ()):
            first = seen.setdefault(line.key.lower(), line)
            if first is not line:
                raise self._error(line.number, f"{line.key} is given twice, first in line {first.number}; remove one")
        return list(seen.values())

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[Line]:
        if len(path) > _DEEPEST:
            raise self._error(_number(node), f"nested deeper than {_DEEPEST} levels; write flat keys")
        own = [line for key, value in node.value if key.tag != _MERGE for line in self._value(key, value, path)]
        yield from own
        given = {line.key.lower() for line in own}
        for line in self._merged(node, path):
            if line.key.lower() not in given:
                given.add(line.key.lower())
                yield line

    def _merged(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[Line]:
        """What ``<<: *anchor`` brings in; the mapping's own keys win over it."""
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise self._error(_number(source), "`<<` expects a mapping; give it one by its anchor")
                    yield from self._mapping(source, path)

    def _value(self, key: yaml.Node, value: yaml.Node, path: tuple[str, ...]) -> Iterator[Line]:
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise self._error(_number(key), "a key is not text; write it as `key: value`")
        here = (*path, key.value)
        dotted = ".".join(here)
        if isinstance(value, yaml.MappingNode):
            if self._whole(dotted):
                yield Line(dotted, json_text(self._loader.construct_object(value, deep=True)), _number(key))
            else:
                yield from self._mapping(value, here)
        elif value.tag != _NULL:
            yield Line(dotted, self._text(value, dotted), _number(key))

    def _text(self, node: yaml.Node, key: str) -> str:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode):
                raise self._error(_number(item), f"{key} has an item that is not text; write one text an item")
        return "".join(f"{item.value}{ITEM_END}" for item in node.value)

    def _error(self, number: int, words: str) -> ConfigError:
        return ConfigError(f"{self._name}:{number}: {words}")


def _number(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
