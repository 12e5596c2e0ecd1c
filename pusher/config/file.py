"""The YAML file as flat lines: dotted key, text, line number.

The texts are the file's own, not what YAML makes of them, so that a key id of digits keeps its zeros. Sequences become
one text (see :mod:`pusher.config.kinds`); null counts as not given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pusher.config.kinds import ITEM_END, NO_TEXT, json_text
from pusher.config.schema import ConfigError

#: Deeper nesting is an anchor that contains itself.
_DEEPEST = 20
#: More values are anchors that contain each other many times over.
_MOST_VALUES = 20_000
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class Line(NamedTuple):
    """One value of the file."""

    key: str
    text: str
    number: int
    #: The line of the value in whose place this one holds: the same key in any capitals; 0 for none.
    instead_of: int = 0


def version(path: str) -> tuple[int, ...]:
    """Differs when the file has been replaced or written; () while there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def read_again(path: str) -> str:
    """As :func:`read`, from a file that was read before: of a pipe (`<(command)`) nothing is left, or it blocks."""
    if not Path(path).is_dir() and Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"{path}: a pipe or device, which cannot be read a second time; restart with the new one")
    return read(path)


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
        root = yaml.SafeLoader(text).get_single_node()
        if root is None or root.tag == _NULL:
            return []
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{name}:{root.start_mark.line + 1}: not a mapping; write settings as `key: value`")
        return _Flattener(name, whole).lines(root)
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_error(error, name)) from None
    except RecursionError:
        raise ConfigError(f"{name}: nested far deeper than {_DEEPEST} levels; write flat keys") from None


def _syntax_error(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}:{mark.line + 1}" if mark else name
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    return f"{where}: not valid YAML ({problem}); correct this line or the one before it"


class _Flattener:
    """Walks the nodes of one file."""

    def __init__(self, name: str, whole: Callable[[str], bool]) -> None:
        self._name, self._whole = name, whole
        self._values = 0

    def lines(self, root: yaml.MappingNode) -> list[Line]:
        """If a key is given twice, in any case, the last one counts, as in the Go program."""
        last: dict[str, Line] = {}
        for line in self._mapping(root, ()):
            before = last.get(line.key.lower())
            last[line.key.lower()] = line if before is None else line._replace(instead_of=before.number)
        return list(last.values())

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[Line]:
        self._count(node)
        if len(path) > _DEEPEST:
            raise self._error(_number(node), f"nested deeper than {_DEEPEST} levels; write flat keys")
        own = [line for key, value in node.value if key.tag != _MERGE for line in self._value(key, value, path)]
        yield from own
        yield from self._merged(node, path, {line.key.lower() for line in own})

    def _merged(self, node: yaml.MappingNode, path: tuple[str, ...], given: set[str]) -> Iterator[Line]:
        """The keys of ``<<: *anchor``; the mapping's own keys, then those of earlier anchors, override them."""
        for source in self._sources(node):
            brought = [line for line in self._mapping(source, path) if line.key.lower() not in given]
            given |= {line.key.lower() for line in brought}
            yield from brought

    def _sources(self, node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise self._error(_number(source), "`<<` expects a mapping; give it one by its anchor")
                    yield source

    def _value(self, key: yaml.Node, value: yaml.Node, path: tuple[str, ...]) -> Iterator[Line]:
        self._count(key)
        here = (*path, self._key(key))
        dotted = ".".join(here)
        if isinstance(value, yaml.MappingNode):
            if self._whole(dotted):
                yield Line(dotted, json_text(self._object(value)), _number(key))
            else:
                yield from self._mapping(value, here)
        elif value.tag != _NULL:
            yield Line(dotted, self._text(value), _number(key))

    def _object(self, node: yaml.Node) -> Any:
        """The JSON value of a node; numbers stay the file's text."""
        self._count(node)
        if isinstance(node, yaml.MappingNode):
            brought = [self._object(source) for source in self._sources(node)]
            own = {self._key(key): self._object(value) for key, value in node.value if key.tag != _MERGE}
            return {name: value for members in (*reversed(brought), own) for name, value in members.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self._object(item) for item in node.value]
        return None if node.tag == _NULL else node.value

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self._error(_number(node), "a key is not text; write it as `key: value`")
        if not node.value.isprintable():
            raise self._error(_number(node), f"{node.value!r} contains characters that are not allowed in a key")
        return str(node.value)

    def _count(self, node: yaml.Node) -> None:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise self._error(_number(node), f"anchors make more than {_MOST_VALUES} values of the file; use fewer")

    def _text(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode):
                return NO_TEXT
        return "".join(f"{item.value}{ITEM_END}" for item in node.value)

    def _error(self, number: int, words: str) -> ConfigError:
        return ConfigError(f"{self._name}:{number}: {words}")


def _number(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
