import argparse
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.processes import ROOT
from pusher.commands import cli
from pusher.commands.cli import COMMANDS, Command, main
from pusher.config import Config, settings
from pusher.errors import StartError
from pusher.providers.apns import settings as apns_settings


@pytest.fixture(autouse=True)
def _as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variables of ours, and logging as before."""
    for name in [name for name in os.environ if name.startswith("PUSHER_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


class Spy:
    """A command that notes how it was called."""

    def __init__(self) -> None:
        self.args = argparse.Namespace()
        self.config: Config | None = None
        self.rows = (Command("spy", "look", self.run, self.add_arguments),)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("topic", nargs="?")
        parser.add_argument("-n", type=int)

    def run(self, args: argparse.Namespace, config: Config) -> int:
        self.args, self.config = args, config
        return 7


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Spy:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "default.yaml").write_text("queue: {group: mine}")
    monkeypatch.chdir(tmp_path)
    return Spy()


def pusher(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The real program."""
    command = [sys.executable, "pusher.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


# --- help


@pytest.mark.parametrize("arguments", [[], ["help"], ["-d"]])
def test_without_a_command_the_help_lists_the_commands(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for command in COMMANDS:
        assert re.search(rf"^    {command.name}\s+{command.text}$", output.out, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["apns", "-h"], ["settings", "--help"], ["simulate", "-h"]])
def test_help_flags(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 0
    output = capsys.readouterr()
    assert output.err == ""
    for flag in ("--config FILE", "-d, --debug", "-j, --json", "-p, --production"):
        assert flag in output.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == "3.6.1\n"


# --- flags


@pytest.mark.parametrize(
    "arguments",
    [
        ["-d", "-j", "-p", "spy"],
        ["spy", "-d", "-j", "-p"],
        ["--debug", "spy", "--json", "--production"],
        ["spy", "-djp"],
    ],
)
def test_flags_stand_before_or_after_the_command(spy: Spy, arguments: list[str]) -> None:
    assert main(arguments, spy.rows) == 7
    assert (spy.args.debug, spy.args.json, spy.args.production) == (True, True, True)
    assert spy.config is not None
    assert spy.config.production


def test_flags_default_to_off_and_the_file_to_the_working_directory(spy: Spy) -> None:
    assert main(["spy", "T", "-n", "5"], spy.rows) == 7
    assert (spy.args.debug, spy.args.json, spy.args.production) == (False, False, False)
    assert (spy.args.topic, spy.args.n) == ("T", 5)
    assert spy.config is not None
    assert spy.config[settings.QUEUE.group] == "mine"
    assert not spy.config.production


@pytest.mark.parametrize(
    "arguments", [["--config", "x.yaml", "spy"], ["spy", "--config", "x.yaml"], ["spy", "--config=x.yaml"]]
)
def test_the_configuration_file(spy: Spy, arguments: list[str]) -> None:
    Path("x.yaml").write_text("queue: {group: other}")
    main(arguments, spy.rows)
    assert spy.config is not None
    assert spy.config[settings.QUEUE.group] == "other"
    assert spy.config.path == "x.yaml"


def test_settings_as_flags_and_variables(spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHER_QUEUE_GROUP", "variable")
    main(["--apns.port=1", "spy", "T", "--apns.host=h"], spy.rows)
    assert spy.config is not None
    assert (spy.config[apns_settings.PORT], spy.config[apns_settings.HOST]) == (1, "h")
    assert spy.config[settings.QUEUE.group] == "variable"
    assert spy.args.topic == "T"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "invalid choice: 'nope'"),
        (["apns", "--nope"], "unrecognized arguments: --nope"),
        (["--nope", "apns"], "unrecognized arguments: --nope"),
        (["apns", "-x"], "unrecognized arguments: -x"),
        (["apns", "extra"], "unrecognized arguments: extra"),
        (["apns", "--certificate", "x"], "unrecognized arguments: --certificate x"),
        (["apns", "--prod"], "unrecognized arguments: --prod"),
        (["version", "--apns.port=1"], "unrecognized arguments: --apns.port=1"),
        (["--apns.port=1"], "unrecognized arguments: --apns.port=1"),
        (["apns", "--config"], "expected one argument"),
        (["simulate"], "the following arguments are required: COMMAND"),
        (["simulate", "nope"], "invalid choice: 'nope'"),
    ],
)
def test_usage_errors(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in usage_error(capsys, *arguments)


# --- how a command ends


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StartError("no app can be served: x"), 2, "pusher: no app can be served: x\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_a_command_ends(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: argparse.Namespace) -> int:
        raise error

    assert main(["x"], [Command("x", "y", run, configured=False)]) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", words)


def test_a_defect_is_not_hidden() -> None:
    def run(_: argparse.Namespace) -> int:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError):
        main(["x"], [Command("x", "y", run, configured=False)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "bad.yaml: no such file; name the configuration file with --config"),
        ("a: [", "bad.yaml:1: not valid YAML"),
        ("apns.port: x", "bad.yaml:1: apns.port expects a whole number from 1 to 65535; 'x' is not"),
    ],
)
@pytest.mark.parametrize("command", ["apns", "gcm", "settings"])
def test_bad_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str | None, words: str
) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    assert main([command, "--config", str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"pusher: {tmp_path}/")
    assert words in output.err
    assert output.err.count("\n") == 1


def rows_below(rows: Sequence[Command], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for row in rows:
        yield (*before, row.name), row
        yield from rows_below(row.commands, (*before, row.name))


@pytest.mark.parametrize(
    ("arguments", "row"), [pytest.param(*found, id=" ".join(found[0])) for found in rows_below(COMMANDS)]
)
def test_every_command_can_be_loaded(
    arguments: tuple[str, ...], row: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*arguments, "--help"])
    assert raised.value.code == 0
    assert f"usage: pusher {' '.join(arguments)} " in capsys.readouterr().out
    if isinstance(row.run, str) and row.run:
        assert callable(cli._load(row.run))


@pytest.mark.parametrize(("flags", "level"), [(["-d"], logging.DEBUG), ([], logging.WARNING)])
def test_the_flag_for_debugging_wins_over_the_level(spy: Spy, flags: list[str], level: int) -> None:
    main(["spy", "--log.level=warn", *flags], spy.rows)
    assert logging.getLogger().level == level


# --- the program


def test_the_program_prints_the_version() -> None:
    done = pusher("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3.6.1\n", "")


def test_the_package_starts_too() -> None:
    command = [sys.executable, "-m", "pusher", "version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3.6.1\n", "")


def test_the_program_refuses_an_unknown_command_on_stderr() -> None:
    done = pusher("nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'nope'" in done.stderr


def test_the_program_prints_its_settings() -> None:
    done = pusher(
        "settings", "--config", "config/demo.yaml", "--apns.port=99", env={**os.environ, "PUSHER_QUEUE_GROUP": "g"}
    )
    assert done.returncode == 0
    assert done.stderr == ""
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert re.fullmatch(r"99 +flag --apns\.port", rows["apns.port"])
    assert re.fullmatch(r"g +variable PUSHER_QUEUE_GROUP", rows["queue.group"])
    assert re.fullmatch(r"game +config/demo\.yaml:\d+", rows["apns.apps"])
    assert re.fullmatch(r"DEMO123KEY +config/demo\.yaml:\d+", rows["apns.certs.game.keyID"])


def test_warnings_go_to_stderr_in_the_form_that_was_asked_for() -> None:
    environ = {**os.environ, "PUSHER_APNS_PROT": "1"}
    words = "variable PUSHER_APNS_PROT: nothing reads it; did you mean PUSHER_APNS_PORT?"
    text = pusher("settings", env=environ)
    assert text.returncode == 0
    assert re.fullmatch(rf'time="[^"]+" level=warning msg="{re.escape(words)}"\n', text.stderr)
    assert json.loads(pusher("-j", "settings", env=environ).stderr)["msg"] == words


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    command = [sys.executable, "pusher.py", "settings"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_the_standard_library_is_patched_before_anything_else() -> None:
    for name in ("pusher.py", "pusher/__main__.py"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if re.match(r"import|from|monkey", line)]
        before = lines[: lines.index("monkey.patch_all()")] if "monkey.patch_all()" in lines else lines
        allowed = {"import sys", "import warnings", "from gevent import monkey", "from pusher.daemon import early"}
        assert set(before) <= allowed | {"from pusher.__main__ import main"}
    assert len((ROOT / "pusher.py").read_text().splitlines()) < 15


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True"])
@pytest.mark.parametrize("flag", ["-d", "--debug"])
@pytest.mark.parametrize("before", [True, False])
def test_switches_take_the_words_of_go_for_yes(spy: Spy, word: str, flag: str, before: bool) -> None:
    given = f"{flag}={word}"
    assert main([given, "spy"] if before else ["spy", given], spy.rows) == 7
    assert spy.args.debug


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
@pytest.mark.parametrize("flag", ["-p", "--production"])
def test_switches_take_the_words_of_go_for_no(spy: Spy, word: str, flag: str) -> None:
    assert main(["spy", "-p", f"{flag}={word}"], spy.rows) == 7
    assert not spy.args.production
    assert main(["spy", f"{flag}={word}", "--production"], spy.rows) == 7
    assert spy.args.production


@pytest.mark.parametrize("given", ["--debug=yes", "-d=", "--json=2", "-p=no"])
def test_other_words_are_usage_errors(spy: Spy, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["spy", given], spy.rows)
    assert ended.value.code == 2
    assert "expects true or false" in capsys.readouterr().err


def test_version_and_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, "3.6.1\n")
    with pytest.raises(SystemExit) as ended:
        main(["help", "enqueue"])
    assert ended.value.code == 0
    assert "write messages to a topic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "suggestion"),
    [("apsn", "apns"), ("enqeue", "enqueue"), ("start-feedback-listner", "start-feedback-listener")],
)
def test_a_command_that_is_mistyped(given: str, suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([given])
    assert ended.value.code == 2
    assert f"did you mean {suggestion}?" in capsys.readouterr().err


def test_a_flag_that_is_mistyped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["version", "--prodution"])
    assert ended.value.code == 2
    assert "did you mean --production?" in capsys.readouterr().err
