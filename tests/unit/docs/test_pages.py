"""What the pages tell a reader to type and to configure exists: programs, commands, flags, targets, keys, variables.

``tests/integration``: ``test_readme.py`` and ``test_pages_typed.py`` run what can be run.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache

import pytest
import yaml

from lab.pages import PAGES, Block, Typed, blocks, prose, text, typed
from lab.processes import ROOT
from pusher import config
from pusher.commands import cli
from pusher.config import doors, settings
from pusher.config.schema import APP, variable

#: Programs of others, of which nothing is verified but the commands of pusher in their arguments.
FOREIGN = {
    *("cat", "curl", "docker", "echo", "export", "git", "helm", "kafka-acls.sh", "kill", "kubectl", "mkdir", "openssl"),
    *(".", "python3", "systemctl", "supervisorctl"),
}
PROGRAMS = re.compile(r"(\.venv/bin/)?(pusher|python|make|scripts/\S+|pip|docker|kubectl|helm|curl)\s")
PLACEHOLDERS = {"COMMAND", "NAME", "PLATFORM", "acme"}
LANGUAGES = {"sh", "yaml", "json", "toml", "python", "sql", "ini", "text"}
TYPED = list(typed(PROGRAMS))


def ours(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """The arguments of pusher, if this runs it, perhaps in a container."""
    for place, word in enumerate(words):
        if word in ("pusher.py", "/app/pusher") or (word == "pusher" and place == 0):
            return words[place + 1 :]
    return None


OURS = [(one, arguments) for one in TYPED if (arguments := ours(one.words)) is not None]
OTHERS = [one for one in TYPED if ours(one.words) is None]


def test_there_are_commands_on_most_pages() -> None:
    assert len({one.page for one in TYPED}) > len(PAGES) * 2 / 3
    assert len(OURS) > 60
    assert len(OTHERS) > 50


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page: str) -> None:
    assert [block for block in blocks() if block.page == page and block.language not in LANGUAGES] == []
    hidden = [line for line in prose(page).splitlines() if line.startswith("    ") and PROGRAMS.match(line.strip())]
    assert hidden == [], "commands belong into a block of sh"


@pytest.mark.parametrize("command", OURS, ids=lambda pair: str(pair[0]))
def test_pusher_has_the_command_and_its_flags(command: tuple[Typed, tuple[str, ...]]) -> None:
    shown, arguments = command
    if PLACEHOLDERS & {*arguments[:1]}:
        return
    flags = [word for word in arguments if word.startswith("-")]
    if shown.inline and not flags:
        arguments = (*arguments, "--help")
    try:
        _, rest = cli.parser().parse_known_args(arguments)
    except SystemExit as end:
        assert end.code == 0, shown  # noqa: PT017  # pytest.raises demands one; --help and --version end it well
        return
    config.parse("", flags=rest)


@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_other_programs_exist_with_their_flags(command: Typed) -> None:
    program, *arguments = command.words
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        verify_make(arguments)
    elif program == "pip":
        verify_pip(arguments)
    elif program == "python":
        words = arguments[1:] if arguments[0] == "-m" else arguments
        verify_flags(tuple(arguments[: len(arguments) - len(words) + 1]), words[1:])
    elif program.startswith("scripts/"):
        verify_flags((program,), arguments)
    elif program in ("pytest", "supervisord", "supervisorctl"):
        assert [word for word in arguments if "/" in word and not (ROOT / word).exists()] == []
    else:
        assert program in FOREIGN, "an unknown program; if it is right, add it to FOREIGN"
        assert [word for word in arguments if word.startswith("deploy/") and not (ROOT / word).exists()] == []


def verify_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        name, equals, _ = word.partition("=")
        assert (f"$({name})" in makefile) if equals else re.search(rf"^\.PHONY:.*\b{name}\b", makefile, re.MULTILINE)


def verify_pip(arguments: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in arguments:
        if word.startswith("./") and "acme" not in word:
            assert (ROOT / word).is_dir()
        found = re.fullmatch(r"([\w-]+)\[(.*)\]", word)
        if found:
            assert found[1] == "pusherd"
            assert set(found[2].split(",")) <= extras.keys()


def verify_flags(program: tuple[str, ...], arguments: list[str]) -> None:
    flags = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage(program)))
    assert flags <= known


@cache
def usage(program: tuple[str, ...]) -> str:
    """What a program says of itself: a program of Python by --help, one of the shell by its own text."""
    name = program[-1]
    source = ROOT / name
    if source.is_file() and source.read_text().startswith("#!/bin/sh") and name != "scripts/services":
        return source.read_text()
    command = [name] if name.startswith("scripts/") and not name.endswith(".py") else [sys.executable, *program]
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: f"{block.page}:{block.line}")
def test_every_key_of_a_configuration_is_a_setting(block: Block) -> None:
    found = yaml.safe_load(block.text)
    if "scrape_configs" in found:
        assert all((ROOT / "docs" / name).exists() for name in found["rule_files"])
    elif block.page == "docs/kubernetes.md":
        values = yaml.safe_load((ROOT / "deploy/helm/pusher/values.yaml").read_text())
        assert found.keys() <= values.keys()
        senders = {key for sender in values["senders"].values() for key in sender}
        assert {key for sender in found.get("senders", {}).values() for key in sender} <= senders
        assert config.parse(yaml.safe_dump(found.get("config", {}))).warnings == ()
    else:
        assert config.parse(block.text).warnings == ()


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: f"{block.page}:{block.line}")
def test_messages_are_json(block: Block) -> None:
    assert all(json.loads(line) for line in block.text.splitlines())


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: f"{block.page}:{block.line}")
def test_what_is_imported_from_pusher_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            exec(compile(ast.Module([node], []), block.page, "exec"), {})  # an import from our own page


def test_the_doors_of_the_pages_exist() -> None:
    groups = {value for name, value in vars(doors).items() if name.isupper() and str(value).startswith("pusher.")}
    named = {name for page in PAGES for name in re.findall(r"entry-points\.\"([\w.]+)\"", text(page))}
    assert named
    assert named <= groups


def _known_variables() -> re.Pattern[str]:
    keys = [key for setting in settings.declared() for key in (setting.key, *setting.aliases)]
    names = [re.escape(variable(key)).replace(APP.upper(), r"[A-Z_]+") for key in keys]
    return re.compile("|".join(names))


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_is_one_of_a_setting(page: str) -> None:
    named = set(re.findall(r"\bPUSHER_[A-Z_]*[A-Z]\b(?!\*|_)", text(page)))
    assert [name for name in named if not _known_variables().fullmatch(name)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/architecture.md"])
def test_every_key_in_a_sentence_is_a_setting(page: str) -> None:
    keys = {spelling.lower() for setting in settings.declared() for spelling in (setting.key, *setting.aliases)}
    plain = [re.escape(key).replace(APP, r"(<[\w-]+>|game|arena|name)") for key in keys]
    groups = {".".join(key.split(".")[:length]) for key in keys for length in range(1, key.count(".") + 1)}
    known = re.compile("|".join(plain))
    roots = {key.partition(".")[0] for key in keys}
    named = {found.lower() for found in re.findall(r"`([a-zA-Z]\w*(?:\.[\w<>]+)+)(?:: [^`]*|=[^`]*)?`", prose(page))}
    settings_named = {name for name in named if name.partition(".")[0] in roots}
    wrong = {name for name in settings_named if not known.fullmatch(name) and name not in groups}
    assert wrong == set()
