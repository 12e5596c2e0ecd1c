"""``send``: sends one push from the command line to a device and prints its feedback.

The push goes through the app's lane and service, so the result is what the daemon would do. No broker is needed: the
push does not come from a record, and its feedback goes to the terminal.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import orjson
from gevent.event import Event

from pusher.broker.interface import Done
from pusher.broker.offsets import TopicPartition, Tracker
from pusher.config import settings
from pusher.config.values import Config
from pusher.daemon.greenlets import Greenlets
from pusher.errors import StartError
from pusher.providers.open_lane import OpenLane
from pusher.providers.provider import Shown, provider, words
from pusher.push.fields import InvalidMessage
from pusher.push.lane import Lane
from pusher.push.outcome import Kind
from pusher.push.reporter import Report
from pusher.push.topics import TopicName
from pusher.telemetry.stats import Stats

DELIVERED, NOT_DELIVERED = 0, 1
_TIMEOUT_S = 60.0
_CLOSE_S = 1.0
_HOSTNAME = "command-line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``send``."""
    parser.description = (
        "Sends one push with an app's settings and prints its feedback. "
        "The exit status is 0 if the provider accepted the push."
    )
    parser.add_argument("platform", choices=words(), help="platform of the device")
    parser.add_argument("--app", required=True, help="name of the app, as in the platform's list of apps")
    parser.add_argument("--token", required=True, help="device token; /topics/NAME if the platform has topics")
    parser.add_argument("--title", help="title of the notification")
    parser.add_argument("--body", help="text of the notification")
    parser.add_argument(
        "--data", action="append", default=[], metavar="KEY=VALUE", help="data for the app itself; may be repeated"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="let the provider validate the push without delivering it; Apple does not support this",
    )
    parser.add_argument(
        "--timeout", type=float, default=_TIMEOUT_S, metavar="S", help="how long to wait for an outcome (%(default)g s)"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Waits for the outcome; 0 when the provider has accepted the push. Raises ``StartError``."""
    apps = config[settings.of_provider(args.platform).apps]
    if args.app not in apps:
        raise StartError(f"--app {args.app}: {args.platform}.apps has {', '.join(apps) or 'no app'}")
    message = orjson.dumps(provider(args.platform).message(_pushed(args)))
    feedback = _Feedback()
    open_lane = OpenLane(args.app, args.platform, _HOSTNAME, [feedback], Stats(_HOSTNAME), config)
    service = provider(args.platform).build(config, args.app, open_lane)
    service.lane.settings = replace(service.lane.settings, feedback_successes=True)
    _put(service.lane, f"push-{args.app}_{args.platform}-single", message)
    trouble = _wait(service, feedback.stored, args.timeout)
    if trouble:
        sys.stderr.write(f"pusher: no outcome: {trouble}\n")
    else:
        sys.stdout.write(f"{feedback.value.decode()}\n")
        _explain(args.platform, feedback.value)
    return DELIVERED if service.lane.totals.outcomes[Kind.DELIVERED] else NOT_DELIVERED


def _put(lane: Lane[Any], topic: str, message: bytes) -> None:
    """Into the lane, as the pipeline would. Raises ``StartError`` for what can never be sent."""
    now_ms = int(time.time() * 1000)
    try:
        push = lane.parse(message, f"{topic}/0/0/{now_ms}")
    except InvalidMessage as error:
        raise StartError(f"{error.reason}: {error.detail}") from None
    push.tracker, push.offset, push.timestamp_ms = Tracker(TopicPartition(topic, 0), 0), 0, now_ms
    lane.in_hand += 1
    lane.put([push])


def _explain(platform: str, feedback: bytes) -> None:
    """Prints what to do about a refusal to stderr, if that is known."""
    told = provider(platform).told(orjson.loads(feedback))
    hints = provider(platform).hints
    for reason in told.reasons if told is not None else ():
        if isinstance(reason, str) and reason in hints:
            sys.stderr.write(f"pusher: {reason}: {hints[reason]}\n")
            return


def _wait(service: Any, over: Event, timeout_s: float) -> str:
    """Runs the service until it is over; returns why it is not, or ""."""
    greenlets = Greenlets(over.set)
    for name, loop in service.loops().items():
        greenlets.spawn(name, loop)
    service.start()
    ended = over.wait(timeout_s)
    trouble = greenlets.failure
    if not ended:
        trouble = (
            f"{timeout_s:g} s were not enough: {service.health().reason or 'the push waits for its answer or a retry'}"
        )
    service.close(_CLOSE_S)
    greenlets.stop(_CLOSE_S)
    return trouble


class _Feedback:
    """A ``FeedbackReporter`` that keeps the one feedback."""

    full = False

    def __init__(self) -> None:
        self.value = b""
        self.stored = Event()

    def for_app(self, _name: TopicName) -> Report:
        """Stores at once."""
        return self._store

    def _store(self, value: bytes, done: Done) -> None:
        self.value = value
        done(None)
        self.stored.set()

    def check(self) -> str:
        """Nothing can be wrong."""
        return ""


def _data(args: argparse.Namespace) -> dict[str, str]:
    """``--data``. Raises ``StartError``."""
    pairs = [text.partition("=") for text in args.data]
    if not all(name and equals for name, equals, _ in pairs):
        raise StartError("--data is KEY=VALUE")
    return {name: value for name, _, value in pairs}


def _shown(args: argparse.Namespace) -> dict[str, str]:
    """The content of the push. Raises ``StartError`` if there is none."""
    shown = {name: value for name, value in (("title", args.title), ("body", args.body)) if value}
    if not (shown or args.data):
        raise StartError("the push has no content: give --title, --body or --data")
    return shown


def _pushed(args: argparse.Namespace) -> Shown:
    return Shown(args.token, _shown(args), _data(args), args.dry_run)
