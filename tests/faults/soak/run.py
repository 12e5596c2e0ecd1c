"""The course of a soak: start, write and read and disturb and look, settle, judge."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import gevent
import orjson

from tests.faults.soak.ground import Ground
from tests.faults.soak.samples import Metrics, latency, progress
from tests.faults.soak.streams import Reader, Stream, Writer, ends
from tests.faults.soak.tokens import Tokens
from tests.faults.soak.verdict import flatness

_PERIOD_S = 10.0
_SETTLE_S = 180.0
_FED_BACK = ("delivered", "rejected", "failed")


class Soak:
    """One run. Prints what happens; each sample is a line of `samples`."""

    def __init__(
        self,
        directory: Path,
        streams: list[Stream],
        samples: TextIO,
        minutes: float,
        seed: int,
        broker_minutes: int,
        client: str,
    ) -> None:
        self._directory, self._streams, self._file, self._client = directory, streams, samples, client
        self._minutes, self._broker_minutes = minutes, broker_minutes
        self._draw = random.Random(seed)
        self._samples: list[dict[str, Any]] = []
        self._events: list[str] = []
        self._complaints: list[str] = []

    def run(self) -> bool:
        """Whether nothing was lost and nothing grew."""
        tokens = Tokens(self._streams, self._minutes * 60)
        with tokens, Ground(self._directory, self._streams, tokens, self._client) as ground:
            writer = Writer(ground.kafka.brokers, self._streams)
            reader = Reader(ground.kafka.brokers, self._streams)
            self._began_s = time.monotonic()
            disturbing = gevent.spawn(self._disturb, ground)
            try:
                self._watch(ground, [reader.start(), writer.start(), disturbing])
            finally:
                disturbing.kill()
                writer.stop()
            self._settle(ground, tokens)
            self._judge(ground, writer, reader)
            reader.close()
            writer.close()
        for complaint in self._complaints:
            say(f"BAD: {complaint}")
        say("good" if not self._complaints else "BAD")
        return not self._complaints

    # --- while it runs

    def _disturb(self, ground: Ground) -> None:
        """A fault a minute, at a second that the seed chooses."""
        for minute in range(1, int(self._minutes)):
            at_s = minute * 60 + self._draw.uniform(0, 40)
            name, play = self._fault(ground, minute)
            gevent.sleep(max(0.0, self._began_s + at_s - time.monotonic()))
            self._events.append(name)
            say(f"{self._now_s() / 60:5.1f} min: {name}")
            play()

    def _fault(self, ground: Ground, minute: int) -> tuple[str, Callable[[], object]]:
        if minute % self._broker_minutes == 0:
            return "kill -9 of Kafka, and restart", ground.kafka.restart
        return self._draw.choice(list(ground.faults.items()))

    def _watch(self, ground: Ground, greenlets: list[gevent.Greenlet[..., Any]]) -> None:
        while (now_s := self._now_s()) < self._minutes * 60:
            gevent.sleep(_PERIOD_S - now_s % _PERIOD_S)
            for greenlet in greenlets:
                if greenlet.ready():
                    greenlet.get()  # raises what ended it
            self._look(ground)

    def _look(self, ground: Ground) -> None:
        now_s = self._now_s()
        sample = {
            "at_s": round(now_s, 1),
            **progress(self._streams),
            "load": os.getloadavg()[0],
            "daemons": {name: watched.sample(now_s) for name, watched in ground.daemons.items()},
            "latency": dict(latency(self._streams)),
            "events": self._events,
        }
        self._events = []
        self._samples.append(sample)
        self._file.write(orjson.dumps(sample).decode() + "\n")
        self._file.flush()

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    # --- the end

    def _settle(self, ground: Ground, tokens: Tokens) -> None:
        """Until all is fed back and all dead tokens are gone; the verdict tells when that never happens."""
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline and self._unsettled(ground):
            gevent.sleep(0.2)
        while time.monotonic() < deadline and any(tokens.left().values()):
            gevent.sleep(0.5)
        left = tokens.left()
        say(f"rows of dead tokens left: {left}")
        self._complain(any(left.values()), f"rows of dead tokens were left: {left}")

    def _unsettled(self, ground: Ground) -> bool:
        if any(stream.account.settled < stream.account.produced for stream in self._streams):
            return True
        senders = [ground.daemons[name].metrics() for name in ("apns", "gcm")]
        return any(metrics.total("pusher_in_hand") or metrics.total("pusher_consumer_lag") for metrics in senders)

    def _judge(self, ground: Ground, writer: Writer, reader: Reader) -> None:
        topics = [topic for stream in self._streams for topic in (stream.topic, stream.feedback_topic)]
        found = ends(ground.kafka.brokers, topics)
        answers = {platform: ground.daemons[platform].metrics() for platform in ("apns", "gcm")}
        for stream in self._streams:
            self._judge_stream(stream, answers[stream.platform], found)
        self._complain(writer.refused, f"Kafka refused {len(writer.refused)}: {writer.refused[:3]}")
        self._complain(reader.strangers, f"{len(reader.strangers)} strangers: {reader.strangers[:3]}")
        for name, watched in ground.daemons.items():
            status = watched.daemon.stop(60)
            say(f"{name}: peak memory {self._peak_mb(name):.1f} MB, exit status {status}")
            self._complain(status, f"{name} ended with status {status}")
        for figure in flatness(self._samples):
            say(str(figure))
            self._complain(not figure.good, str(figure))

    def _judge_stream(self, stream: Stream, metrics: Metrics, found: dict[str, int]) -> None:
        """The account, and whether the daemon's figures and the topics add up to it."""
        totals = stream.account.totals()
        written = found[stream.topic]
        outcomes = metrics.by("pusher_outcomes_total", "outcome", game=stream.app)
        fed_back = sum(outcomes.get(kind, 0) for kind in _FED_BACK)
        consumed = int(metrics.total("pusher_consumed_total", game=stream.app))
        dropped = int(metrics.total("pusher_dropped_total", game=stream.app))
        retried = metrics.by("pusher_retried_total", "reason", game=stream.app)
        say(
            f"{stream.name}: {totals}, {written - totals.messages} written twice, "
            f"{found[stream.feedback_topic]:,} feedbacks in Kafka; the daemon consumed {consumed:,}, "
            f"outcomes {outcomes}, dropped {dropped}, retried {retried}"
        )
        self._complain(not totals.good, f"{stream.name}: {totals}, such as {stream.account.missing()}")
        self._complain(consumed != sum(outcomes.values()) + dropped, f"{stream.name}: consumed and outcomes differ")
        self._complain(found[stream.feedback_topic] < fed_back, f"{stream.name}: outcomes without feedbacks")
        self._complain(
            totals.repeats == 0 and outcomes != totals.outcomes, f"{stream.name}: outcomes differ from the feedbacks"
        )

    def _complain(self, wrong: object, text: str) -> None:
        if wrong:
            self._complaints.append(text)

    def _peak_mb(self, name: str) -> float:
        return max(float(sample["daemons"][name]["rss_mb"]) for sample in self._samples)


def say(line: str) -> None:
    """For whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
