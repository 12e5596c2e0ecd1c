"""requirements.lock holds what requirements.txt pins, each with a hash."""

from __future__ import annotations

import re

from lab.processes import ROOT

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(text: str) -> set[tuple[str, str]]:
    return {(name.lower().replace("_", "-"), version) for name, version in _PIN.findall(text)}


def test_the_lock_is_made_of_the_requirements() -> None:
    wanted, locked = pins((ROOT / "requirements.txt").read_text()), pins((ROOT / "requirements.lock").read_text())
    assert len(wanted) > 15
    assert not wanted - locked


def test_every_locked_package_has_a_hash() -> None:
    packages = re.split(r"^(?=[a-zA-Z])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    assert len(packages) > 20
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
