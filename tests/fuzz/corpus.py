"""The inputs that are kept: few, small, and each of them reaches something that the others do not."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).with_name("corpus")
#: What was once a fault stays, whatever it reaches.
REGRESSION = "regression-"

Line = tuple[str, int]
#: A file, a line, and the line from which it was reached.
Step = tuple[str, int, int]


def inputs(name: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted((ROOT / name).glob("*"))


def lines_of(target: Target) -> set[Line]:
    """All lines with code in functions of the target's modules."""
    return {line for name in target.modules for line in _lines(sys.modules[name])}


def _lines(module: ModuleType) -> Iterator[Line]:
    assert module.__file__ is not None
    code = compile(Path(module.__file__).read_text(), module.__file__, "exec")
    for function in _functions(code):
        yield from (
            (function.co_filename, line)
            for _, _, line in function.co_lines()
            if line and line != function.co_firstlineno
        )


def _functions(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & inspect.CO_OPTIMIZED:  # a function, not the body of a class
                yield constant
            yield from _functions(constant)


def reached(target: Target, data: bytes) -> set[Step]:
    """The steps in the target's modules that an input makes. Raises what the input raises."""
    files = {sys.modules[name].__file__ for name in target.modules}
    found: set[Step] = set()

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        """For a function; what it returns, for the function's lines."""
        name, last = frame.f_code.co_filename, 0

        def trace_line(frame: FrameType, _event: str, _argument: Any) -> Any:
            nonlocal last
            found.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return trace_line

        return trace_line if name in files else None

    sys.settrace(trace)
    try:
        target.run(data)
    finally:
        sys.settrace(None)
    return found


def minimise(name: str, grown: Path) -> tuple[int, int]:
    """Keeps what adds a step, small inputs first, of those kept and those grown; returns files and octets."""
    target, kept = TARGETS[name], ROOT / name
    kept.mkdir(parents=True, exist_ok=True)
    candidates = {path.read_bytes() for path in [*inputs(name), *sorted(grown.glob("*"))] if not _is_regression(path)}
    for path in inputs(name):
        if not _is_regression(path):
            path.unlink()
    known = set[Step]().union(*(reached(target, path.read_bytes()) for path in inputs(name)))
    for data in sorted(candidates, key=lambda data: (len(data), data)):
        fresh = reached(target, data) - known
        if fresh:
            known |= fresh
            (kept / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)
    return len(inputs(name)), sum(path.stat().st_size for path in inputs(name))


def _is_regression(path: Path) -> bool:
    return path.name.startswith(REGRESSION)
