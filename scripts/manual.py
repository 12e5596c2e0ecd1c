"""The manual page, docs/pusher.1, from the declarations of the command line. scripts/build_docs.py writes it."""

from __future__ import annotations

from collections.abc import Iterator

from pusher import __version__
from pusher.commands import cli
from pusher.commands.completion import Entry, Flag, entries
from pusher.commands.examples import examples

_HEAD = r"""'\" Made by scripts/build_docs.py; change the declarations instead.
.TH PUSHER 1 "" "pusher VERSION" "User Commands"
.SH NAME
pusher \- send push notifications from Kafka to Apple and Google
.SH SYNOPSIS
.B pusher
[\fIFLAGS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]
.SH DESCRIPTION
pusher reads push requests from Kafka, sends them to Apple (APNs) and Google (FCM HTTP v1, GCM over XMPP), publishes the
outcome of each request to Kafka and deletes dead device tokens from PostgreSQL.
.PP
Settings come from flags (\fB\-\-key=value\fR), from environment variables (\fBPUSHER_\fR and the key in upper case with
_ for .) and from the file that \fB\-\-config\fR names (without it, \fI./config/default.yaml\fR). The first that
gives a value wins.
"""
_FOOT = r""".SH SIGNALS
.TP
.B SIGTERM, SIGINT
stop in order; a second signal ends the process at once
.TP
.B SIGHUP
read the configuration again: serve new games, drain removed games, use new credentials
.TP
.B SIGUSR1
write the stack of every greenlet to the log
.SH EXIT STATUS
.TP
.B 0
success, or a signal stopped the daemon
.TP
.B 1
the command has failed, or a part of the daemon has died
.TP
.B 2
the process cannot start; one line says what is wrong
.SH FILES
.TP
.I ./config/default.yaml
the configuration, unless \-\-config names another file
"""


def manual() -> str:
    """The page, as troff."""
    whole, *commands = entries(cli.parser())
    parts = [_HEAD.replace("VERSION", __version__), ".SH FLAGS\n", *_flags(whole.flags), ".SH COMMANDS\n"]
    for entry in commands:
        parts += [f".SS pusher {_text(entry.words)}\n", f"{_text(entry.description)}\n"]
        parts += [f".TP\n.I {_text(name)}\n{_text(text)}\n" for name, text in entry.arguments if text]
        common = {flag.spellings for flag in whole.flags}
        parts += _flags(tuple(flag for flag in entry.flags if flag.spellings not in common))
        parts += _examples(entry)
    return "".join([*parts, _FOOT])


def _flags(flags: tuple[Flag, ...]) -> Iterator[str]:
    for flag in flags:
        spellings = ", ".join(rf"\fB{_text(one)}\fR" for one in flag.spellings)
        value = rf" \fI{_text(flag.value)}\fR" if flag.value else ""
        yield f".TP\n{spellings}{value}\n{_text(flag.text) or '(see its command)'}\n"


def _examples(entry: Entry) -> Iterator[str]:
    for example in examples().get(f"pusher {entry.words}".strip(), ()):
        text = _text(example.text) + ("" if example.text.endswith("?") else ":")
        yield f".PP\n{text}\n.PP\n.EX\n    {_text(example.line)}\n.EE\n"


def _text(text: str) -> str:
    """Nothing in it is a command of troff."""
    plain = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain
