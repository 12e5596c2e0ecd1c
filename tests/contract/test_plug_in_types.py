"""The types of the doors: `mypy --strict` refuses a plug-in that leaves out a member."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from pathlib import Path

from mypy import api

from pusher.providers.http2_service import Dialogue
from pusher.providers.provider import Provider, Service
from pusher.push.reporter import FeedbackReporter
from pusher.telemetry.stats import Reporter

ROOT = Path(__file__).parents[2]
PROTOCOLS = (Service, Dialogue, FeedbackReporter, Reporter)


def members(protocol: type) -> list[str]:
    found = {**inspect.get_annotations(protocol), **vars(protocol)}
    return sorted(name for name in found if not name.startswith("_"))


def without(protocol: type, missing: str) -> str:
    """A function that gives what has all members of a protocol but one."""
    name, parameters = protocol.__name__, "[Any]" if protocol is Dialogue else ""
    given = "".join(f"    {member}: Any\n" for member in members(protocol) if member != missing)
    return (
        f"class {name}Without_{missing}:\n    other: Any\n{given}"
        f"def give_{name}_{missing}() -> {name}{parameters}:\n    return {name}Without_{missing}()\n"
    )


def refusals(source: str, directory: Path) -> list[str]:
    snippet = directory / "plug_in.py"
    snippet.write_text(source)
    out, problems, _ = api.run(["--strict", "--config-file", str(ROOT / "pyproject.toml"), str(snippet)])
    assert not problems
    return [line for line in out.splitlines() if "error:" in line]


def test_an_object_that_lacks_a_member_is_refused(tmp_path: Path) -> None:
    head = "from typing import Any\n" + "".join(f"from {p.__module__} import {p.__name__}\n" for p in PROTOCOLS)
    cases = [(protocol, member) for protocol in PROTOCOLS for member in members(protocol)]
    found = refusals(head + "".join(without(*case) for case in cases), tmp_path)
    expected = [f'got "{protocol.__name__}Without_{member}"' for protocol, member in cases]
    assert len(found) == len(expected) == 14
    assert all(any(words in line for line in found) for words in expected), found


def test_a_provider_that_lacks_a_member_is_refused(tmp_path: Path) -> None:
    names = [one.name for one in fields(Provider) if one.default is MISSING and one.default_factory is MISSING]
    lines = [f"Provider({', '.join(f'{name}=given' for name in names if name != missing)})" for missing in names]
    head = "from typing import Any\nfrom pusher.providers.provider import Provider\ngiven: Any = None\n"
    found = refusals(head + "\n".join(lines) + "\n", tmp_path)
    assert len(found) == len(names)
    assert all(f'argument "{name}"' in line for name, line in zip(names, found, strict=True)), found
