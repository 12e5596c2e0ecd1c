"""What the README says to type works as it is written, from top to bottom, against the simulators.

Its blocks marked ``sh`` are run by one shell in one directory. What is not: ``make``, which
works on a clone; ``pip install pusherd``, which ``scripts/release`` tries; and the sending of a push to Google with
Google's own addresses, which the variables of the shell replace by a simulator's as they do Apple's.
"""

from __future__ import annotations

import re
from pathlib import Path

from lab import pages, shell
from lab.processes import ROOT

README = (ROOT / "README.md").read_text()
INSTALL = "pip install pusherd"
MOST_LINES = 150


def blocks() -> list[str]:
    return [block.text for block in pages.blocks("sh") if block.page == "README.md" and "make demo" not in block.text]


def test_it_is_short() -> None:
    assert len(README.splitlines()) < MOST_LINES


def test_what_it_links_to_is_there() -> None:
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README)}
    assert len(targets) > 10
    assert [target for target in targets if target and not (ROOT / target).exists()] == []


def test_it_works_as_it_is_written(tmp_path: Path, simulated_providers: dict[str, str]) -> None:
    commands = "".join(blocks())
    assert commands.count(INSTALL) == 1
    assert commands.count("pusher send") == 2
    commands = re.sub(rf"^{INSTALL}.*$", "", commands, flags=re.MULTILINE)
    printed = shell.run(commands, tmp_path, simulated_providers | {"PUSHER_ADMIN_PORT": "0"})
    assert "failed  " not in printed
    assert printed.count('"Sent":true') == 2, printed
    assert printed.count('"message_type":"ack"') == 1, printed
