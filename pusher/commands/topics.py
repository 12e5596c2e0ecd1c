"""The commands ``enqueue`` and ``tail``: write and read messages of a topic by hand, on any broker."""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import gevent
from gevent.os import tp_read

from pusher.broker import connect
from pusher.broker.interface import Broker, NoSuchTopic, Reader, Record
from pusher.commands.doubts import Doubts
from pusher.commands.load import Load, Stuck
from pusher.commands.progress import Progress, progress
from pusher.config import settings
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.push import topics

_OK, _FAILED = 0, 1
_READ_BYTES = 65_536
_POLL_S = 1.0
_STDIN = "-"


def add_enqueue_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``enqueue``."""
    _add_common(parser, "queue.brokers, and feedback.kafka.brokers for a feedback topic")
    parser.add_argument(
        "file",
        nargs="?",
        default=_STDIN,
        metavar="FILE",
        help="file with one message per line; - or no FILE: standard input",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="do not warn if no sender reads the topic or a sender would refuse a message",
    )


def add_tail_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``tail``."""
    _add_common(parser, "queue.brokers, and feedback.kafka.brokers for a feedback topic")
    parser.add_argument(
        "--from-start", action="store_true", help="begin at the first message; default: at the next new one"
    )
    parser.add_argument("-n", "--number", type=_count, metavar="N", help="end after N messages")
    parser.add_argument("--wait", action="store_true", help="if the topic does not exist yet, wait for it")


def run_enqueue(args: argparse.Namespace, config: Config) -> int:
    """Puts each line that is not blank into the topic, its bytes as they are. 0 when all are stored."""
    with (
        _open_input(args.file) as source,
        closing(_broker(args, config).publisher()) as publisher,
        quiet_interrupt(),
    ):
        doubts = None if args.force else Doubts(args.topic, config)
        with progress(f"enqueued to {args.topic}", "B", _size(source)) as bar:
            load = Load(publisher, bar.update)
            failure = _put(load, args.topic, _lines(source), bar, doubts)
    sys.stdout.write(f"enqueued {load.stored} {'message' if load.stored == 1 else 'messages'} to {args.topic}\n")
    for warning in doubts.warnings() if doubts is not None else ():
        sys.stderr.write(f"pusher: warning: {warning}\n")
    if load.refused:
        sys.stderr.write(f"pusher: {load.refused} refused, the first one because: {load.refusal}\n")
    if failure:
        sys.stderr.write(f"pusher: {failure}\n")
    return _FAILED if failure or load.refused else _OK


def run_tail(args: argparse.Namespace, config: Config) -> int:
    """Prints the messages of a topic, one a line, as they come; 0 at Ctrl-C too."""
    with suppress(KeyboardInterrupt), quiet_interrupt(), closing(_open_reader(args, config)) as reader:
        left: int | None = args.number
        while left is None or left > 0:
            records = list(_read(reader))[:left]
            sys.stdout.buffer.writelines((record.value or b"") + b"\n" for record in records)
            sys.stdout.buffer.flush()
            left = None if left is None else left - len(records)
    return _OK


def _open_reader(args: argparse.Namespace, config: Config) -> Reader:
    """Of the topic; with ``--wait`` once that exists, and from its beginning, since all of it is new then."""
    broker = _broker(args, config)
    start = "earliest" if args.from_start else "latest"
    told = False
    while True:
        reader = broker.reader(args.topic, start)
        try:
            if args.wait:
                reader.offsets("earliest")
        except NoSuchTopic as error:
            reader.close()
            start = "earliest"
            if not told:
                sys.stderr.write(f"pusher: {error}; waiting for it\n")
            told = True
            gevent.sleep(_POLL_S)
        except OSError as error:
            reader.close()
            raise StartError(str(error)) from None
        else:
            return reader


def _put(load: Load, topic: str, lines: Iterable[bytes], bar: Progress, doubts: Doubts | None) -> str:
    """Waits until all lines are stored or refused; returns why it gave up before, or ""."""
    try:
        for line in lines:
            if line.strip():
                if doubts is not None:
                    doubts.look(line)
                load.put(topic, line, size=len(line) + 1)
            else:
                bar.update(len(line) + 1)
        load.wait()
    except Stuck as error:
        return str(error)
    return ""


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in this greenlet, without the lines that gevent's hub prints about it."""
    found = signal.getsignal(signal.SIGINT)
    watcher = gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    try:
        yield
    finally:
        watcher.cancel()
        signal.signal(signal.SIGINT, found)


def _add_common(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("topic", metavar="TOPIC", help="name of the topic")
    parser.add_argument(
        "--brokers",
        type=broker_address,
        metavar="ADDRESS",
        help=f"broker address: host:port,... or sqlite:///path (default: {default})",
    )


def broker_address(text: str) -> str:
    """For argparse: an address that ``connect`` opens."""
    try:
        return settings.QUEUE.brokers.kind.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expects {error}") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: expects a number of messages")
    return int(text)


def _broker(args: argparse.Namespace, config: Config) -> Broker:
    """Where a topic lives: outcomes may go to another broker than the one that requests come from."""
    at = settings.FEEDBACK_AT if args.topic.endswith(topics.FEEDBACKS) else settings.QUEUE.at
    return connect.broker(config, at, args.brokers or "")


def _open_input(name: str) -> IO[bytes]:
    """A file, or standard input, to be closed."""
    try:
        return Path(name).open("rb") if name != _STDIN else os.fdopen(os.dup(0), "rb")
    except OSError as error:
        raise StartError(f"cannot read {name}: {error.strerror}") from None


def _size(source: IO[bytes]) -> int | None:
    """Bytes in a file; None for a pipe or a terminal."""
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    """The lines without their ends. Reading waits in a thread, so that what was read before is stored meanwhile."""
    rest = b""
    while chunk := tp_read(source.fileno(), _READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _read(reader: Reader) -> Iterable[Record]:
    try:
        return reader.read(_POLL_S)
    except OSError as error:
        raise StartError(str(error)) from None
