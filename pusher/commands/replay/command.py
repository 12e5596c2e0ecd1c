"""The command ``replay``: the arguments, a dry run or the work, the summary."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from contextlib import closing

from pusher.broker import connect
from pusher.commands.load import Load
from pusher.commands.replay.choice import Fate, Selection
from pusher.commands.replay.copying import CopyRate, copy_of
from pusher.commands.replay.job import Filters, Job, queue_of, source_of
from pusher.commands.replay.message import Message
from pusher.commands.replay.places import EXPECTED, find_range, parse_place
from pusher.commands.topics import broker_address, quiet_interrupt
from pusher.config import settings
from pusher.config.values import Config
from pusher.errors import StartError

_OK, _FAILED, _INTERRUPTED = 0, 1, 130
#: At Ctrl-C, for what was handed to the broker already.
_LAST_FLUSH_S = 10.0
_PLACE = re.compile(r"-\d")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``replay``."""
    # A time such as -2h must not be taken for a flag; argparse asks this pattern about negative numbers.
    parser._negative_number_matcher = _PLACE  # noqa: SLF001
    which = parser.add_argument_group("which messages")
    which.add_argument(
        "--topic", required=True, metavar="T", help="topic of requests, or a topic that ends with -invalid or -held"
    )
    which.add_argument("--partition", type=int, metavar="P", help="read only this partition")
    for flag, default, text in (
        ("--from", None, f"start of the range: {EXPECTED}; a time without a zone is UTC"),
        ("--to", "latest", "end of the range; a message at this place is not included (default: latest)"),
    ):
        which.add_argument(
            flag, dest=flag[2:], metavar="PLACE", type=_place, default=default, required=not default, help=text
        )
    which.add_argument(
        "--failed-only",
        action="store_true",
        help="only messages whose last feedback is a failure; dead tokens are left out",
    )
    which.add_argument(
        "--reason",
        action="append",
        default=[],
        metavar="R",
        help="only messages that failed for this reason; may be repeated",
    )
    which.add_argument(
        "--missing-feedback",
        action="store_true",
        help="only messages that the group has finished but that have no feedback",
    )
    which.add_argument(
        "--limited",
        action="store_true",
        help="with --missing-feedback: also messages that the rate limit or the search for duplicates may have stopped",
    )
    which.add_argument(
        "--token-prefix", default="", metavar="TEXT", help="only messages whose device token begins with TEXT"
    )
    which.add_argument("--again", action="store_true", help="also messages that were replayed before")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--yes",
        action="store_true",
        help="send the messages; without this flag the command only prints what it would do",
    )
    how.add_argument("--rate", type=_rate, default=0.0, metavar="N/s", help="send at most N messages per second")
    how.add_argument(
        "--to-topic",
        default="",
        metavar="T",
        help="send the messages to this topic instead of the one that they came from",
    )
    how.add_argument(
        "--expiry-seconds", type=_seconds, metavar="N", help="let each message expire N s after it is sent"
    )
    how.add_argument("--group", metavar="G", help="consumer group of the senders (default: queue.group)")
    how.add_argument(
        "--brokers", type=broker_address, metavar="ADDRESS", help="brokers of the topic (default: queue.brokers)"
    )
    how.add_argument(
        "--feedback-brokers",
        type=broker_address,
        metavar="ADDRESS",
        help="brokers of the feedbacks (default: feedback.kafka.brokers)",
    )


def run_replay(args: argparse.Namespace, config: Config) -> int:
    """Says what would be sent again, or sends it. 0 also when there is nothing; 1 when not all could be stored."""
    with quiet_interrupt():
        try:
            job = make_job(args, config)
            choice = Selection(job)
            choice.survey()
            return _act(job, choice, CopyRate(args.rate)) if args.yes else _tell(job, choice)
        except OSError as error:
            raise StartError(str(error)) from None


def make_job(args: argparse.Namespace, config: Config) -> Job:
    """The job that the arguments describe. Raises ``StartError`` and ``OSError``."""
    if args.missing_feedback and (args.failed_only or args.reason):
        raise StartError("--missing-feedback: a message without feedback has no failure and no reason")
    source = source_of(config, args.topic)
    queue = queue_of(source)
    filters = Filters(
        failed=args.failed_only,
        reasons=frozenset(reason.lower() for reason in args.reason),
        missing_feedback=args.missing_feedback,
        limited=args.limited,
        token_prefix=args.token_prefix,
        again=args.again,
    )
    now_s = time.time()
    start, end = parse_place(getattr(args, "from"), now_s), parse_place(args.to, now_s)
    return Job(
        config,
        find_range(connect.broker(config, queue.at, args.brokers or ""), args.topic, args.partition, start, end),
        source,
        filters,
        args.group or config[queue.group],
        connect.broker(config, settings.FEEDBACK_AT, args.feedback_brokers or ""),
        args.to_topic,
        args.expiry_seconds,
    )


def _tell(job: Job, choice: Selection) -> int:
    """A dry run."""
    tally = Tally()
    for record in job.range.records("choosing"):
        now_ms = time.time() * 1000
        tally.count(*choice.decide(record, now_ms), now_ms)
    tally.say(job)
    _say("dry run: nothing was sent; add --yes to send" if tally.chosen else "nothing to send")
    return _OK


def _act(job: Job, choice: Selection, pace: CopyRate) -> int:
    tally = Tally()
    problem, code = "", _OK
    with closing(job.range.broker.publisher()) as publisher:
        load = Load(publisher, lambda _size: None)
        try:
            for record in job.range.records("sending"):
                pace.wait()
                now_ms = time.time() * 1000
                fate, message = choice.decide(record, now_ms)
                if fate is Fate.SENT:
                    pace.take()
                    load.put(message.target, *copy_of(record, job.source, job.expires_ms(now_ms)))
                tally.count(fate, message, now_ms)
            load.wait()
        except KeyboardInterrupt:
            left = publisher.flush(_LAST_FLUSH_S)
            problem, code = f"interrupted, {left} not stored; run the same command to continue", _INTERRUPTED
        except OSError as error:
            problem, code = str(error), _FAILED
    tally.say(job)
    _say(f"sent {load.stored:,}")
    if load.refused:
        problem, code = f"{load.refused} refused, the first one because: {load.refusal}", _FAILED
    if problem:
        sys.stderr.write(f"pusher: {problem}\n")
    return code


class Tally:
    """The results for the records of a range."""

    def __init__(self) -> None:
        self._fates: Counter[Fate] = Counter()
        self._targets: Counter[str] = Counter()
        self._revived = 0

    @property
    def chosen(self) -> int:
        """Messages to be sent."""
        return self._fates[Fate.SENT]

    def count(self, fate: Fate, message: Message, now_ms: float) -> None:
        """One record."""
        self._fates[fate] += 1
        if fate is Fate.SENT:
            self._targets[message.target] += 1
            self._revived += 0 < message.expires_ms < now_ms

    def say(self, job: Job) -> None:
        """The summary, a line each."""
        _say(f"{job.range.topic}, offsets {job.range}")
        rows = [("in the range", self._fates.total())]
        rows += [(fate.value, self._fates[fate]) for fate in Fate if fate is not Fate.SENT and self._fates[fate]]
        rows += [(f"chosen for {topic}", number) for topic, number in sorted(self._targets.items())]
        if job.expiry_s is not None:
            rows += [(f"of these expired; they get {job.expiry_s:g} s to live", self._revived)]
        width = max(len(text) for text, _ in rows)
        for text, number in rows:
            _say(f"  {text:<{width}}  {number:>12,}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _place(text: str) -> str:
    try:
        parse_place(text, 0.0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expects {EXPECTED}") from None
    return text


def _rate(text: str) -> float:
    number = _number(text.removesuffix("/s"))
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r}: expects a number above 0, such as 100/s")
    return number


def _seconds(text: str) -> float:
    number = _number(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r}: expects a number of seconds above 0")
    return number


def _number(text: str) -> float:
    """0.0 for what is none above 0."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 < number < float("inf") else 0.0
