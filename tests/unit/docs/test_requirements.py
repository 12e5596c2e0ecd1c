"""The locks hold what the requirements pin, each with a hash, and the metadata's ranges allow it."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from lab.processes import ROOT

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def pins(text: str) -> set[tuple[str, str]]:
    return {(name.lower().replace("_", "-"), version) for name, version in _PIN.findall(text)}


LOCKS = {
    "requirements.lock": ["requirements.txt"],
    "requirements-dev.lock": ["requirements.txt", "requirements-dev.txt"],
}


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_is_made_of_the_requirements(lock: str) -> None:
    wanted = set().union(*(pins((ROOT / name).read_text()) for name in LOCKS[lock]))
    locked = pins((ROOT / lock).read_text())
    assert len(wanted) > 15
    assert not wanted - locked, "run scripts/lock"


def test_both_locks_agree() -> None:
    locked, for_development = (pins((ROOT / name).read_text()) for name in LOCKS)
    assert not locked - for_development


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock: str) -> None:
    packages = re.split(r"^(?=[a-zA-Z])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(packages) > 20
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


def test_the_ranges_of_the_metadata_allow_what_is_tested() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {one.name.lower().replace("_", "-"): one.specifier for one in map(Requirement, metadata["dependencies"])}
    tested = dict(pins((ROOT / "requirements.txt").read_text()))
    assert ranges.keys() == tested.keys()
    assert [name for name, version in tested.items() if version not in ranges[name]] == []
