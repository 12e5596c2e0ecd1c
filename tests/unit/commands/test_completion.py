"""Completion, the manual page and the examples: all made of the command line as it is."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from pusher.commands import cli
from pusher.commands.completion import _SHELLS, entries
from pusher.commands.examples import examples
from scripts.manual import manual

ENTRIES = {entry.words: entry for entry in entries(cli.parser())}


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    state = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}"
    line = f"source {script}; {state}; _pusher; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("completion") / "pusher"
    script.write_text(_SHELLS["bash"](list(ENTRIES.values())))
    return script


def test_bash_completes_commands_flags_and_values(bash: Path) -> None:
    assert completed(bash, "pusher", "sta") == {"start-feedback-listener"}
    assert completed(bash, "pusher", "-p", "simulate", "") >= {"apns", "gcm", "fcm"}
    assert completed(bash, "pusher", "simulate", "apns", "--write") == {"--write-key"}
    assert completed(bash, "pusher", "send", "ap") == {"apns"}
    assert completed(bash, "pusher", "init", "fcm", "--cred") == {"--credentials"}


@pytest.mark.parametrize("shell", _SHELLS)
def test_every_command_and_flag_is_known_to_every_shell(shell: str) -> None:
    script = _SHELLS[shell](list(ENTRIES.values()))
    for entry in ENTRIES.values():
        assert entry.words in script
        for flag in entry.flags:
            assert all(one.lstrip("-") in script for one in flag.spellings)


def test_the_manual_page_has_every_command_and_flag() -> None:
    page = manual().replace("\\-", "-")
    for entry in ENTRIES.values():
        assert f"pusher {entry.words}" in page
        assert all(one in page for flag in entry.flags for one in flag.spellings)


def test_every_command_has_examples_and_each_can_be_parsed() -> None:
    assert examples().keys() == {f"pusher {words}".strip() for words in ENTRIES}
    for words, found in examples().items():
        assert found
        for example in found:
            line = example.line[example.line.index("pusher ") :]
            arguments = shlex.split(line.partition(" > ")[0].partition(" | ")[0])[1:]
            if "--help" not in arguments and "--version" not in arguments:
                args, rest = cli.parser().parse_known_args(arguments)
                assert all("=" in flag for flag in rest), example
                assert words == "pusher" or args.command == words.split()[1]
