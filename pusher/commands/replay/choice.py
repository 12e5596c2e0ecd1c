"""Which messages are sent again: each record of the range has one fate, and the first reason against it counts.

The order of reading ensures that nothing is sent twice. The group's commits are read first; then the feedbacks and the
copies in the target topics, up to their current ends. So the feedback of every finished message or copy is among those
that were read, and an unfinished copy is found waiting.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import closing

from pusher.broker.interface import Broker, NoSuchTopic, Place, Record
from pusher.commands.replay import known
from pusher.commands.replay.job import Job, TopicKind
from pusher.commands.replay.known import Finished, Known
from pusher.commands.replay.message import Message, origin_ms
from pusher.commands.replay.places import read
from pusher.errors import StartError

#: Clocks of producers, brokers and senders may differ by this much.
_CLOCKS_S = 600


class Fate(enum.Enum):
    """The fate of a record of the range; the value is its text in the summary."""

    SENT = "to be sent"
    NO_TARGET = "left out: no sender reads their topic"
    OTHER_DEVICE = "left out: other tokens"
    CANNOT_BE_SENT = "left out: can never be sent"
    NOT_FINISHED = "left out: the group has not finished them"
    FED_BACK = "left out: they have a feedback"
    DELIVERED = "left out: delivered"
    NOT_FED_BACK = "left out: they have no feedback"
    LIMITED = "left out: possibly limited, which has no feedback (--limited sends them)"
    OTHER_REASON = "left out: failed for other reasons"
    DEAD = "left out: dead tokens (--reason sends them)"
    COPIED = "left out: replayed before (--again sends them)"
    WAITS = "left out: a copy waits in the target topic"
    REPEATED = "left out: copies of other messages in the range"
    EXPIRED = "left out: expired (--expiry-seconds sends them)"


class Selection:
    """Decides about the records of a job's range. ``survey`` comes first."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known = Known()
        self._finished = Finished()
        #: Targets whose copies are only looked for among what waits there.
        self._waiting_only: dict[str, bool] = {}

    # --- reading all that decides

    def survey(self) -> None:
        """Reads the range, and what is known of its messages. Raises ``StartError`` and ``OSError``."""
        job = self._job
        if job.filters.missing_feedback:
            self._finished = self._finished_in(job.range.topic)
            if not self._finished.starts:
                raise StartError(f"the group {job.group} has committed nothing in {job.range.topic}")
        since_s, targets = self._survey_range()
        finished = {target: self._finished_in(target) for target in sorted(targets)}
        if job.needs_feedbacks and since_s is not None:
            self._survey_feedbacks(since_s)
        for target, finished_there in finished.items():
            self._survey_copies(target, finished_there, since_s or 0.0)

    def _survey_range(self) -> tuple[float | None, set[str]]:
        """When the oldest candidate was written, in s, None without candidates; and the targets."""
        oldest_ms: float | None = None
        targets: set[str] = set()
        for record in self._job.range.records("reading"):
            message = self._job.look(record)
            if self._against(message, record) is None:
                self._known.add(message.key)
                self._known.add(message.origin_key)
                targets.add(message.target)
                time_ms = min(record.timestamp, origin_ms(record)) if self._job.needs_feedbacks else record.timestamp
                oldest_ms = time_ms if oldest_ms is None else min(oldest_ms, time_ms)
        return None if oldest_ms is None else max(0.0, oldest_ms / 1000), targets

    def _survey_feedbacks(self, since_s: float) -> None:
        job = self._job
        topic, start = job.feedback_topic, max(0.0, since_s - _CLOCKS_S)
        if job.filters.missing_feedback and not _reaches_back(job.feedback_broker, topic, since_s):
            raise StartError(f"{topic} does not reach back to the range: its feedbacks are no longer known")
        self._known.note_feedbacks(read(job.feedback_broker, topic, start, "latest", "feedbacks"), job.filters.reasons)
        if job.filters.missing_feedback and job.invalid_topic:
            invalid = _if_there(read(job.range.broker, job.invalid_topic, start, "latest", "invalid messages"))
            self._known.note_copies(invalid, known.INVALID, Finished())

    def _survey_copies(self, target: str, finished: Finished, since_s: float) -> None:
        """Copies anywhere in the target; only waiting copies, if feedbacks show what happened to the others."""
        waiting_only = self._waiting_only[target] = self._job.feedback_tells(target)
        start: Place = finished.starts if waiting_only else max(0.0, since_s - _CLOCKS_S)
        copies = read(self._job.range.broker, target, start, "latest", "copies")
        self._known.note_copies(copies, known.COPIED, finished if waiting_only else Finished())

    def _finished_in(self, topic: str) -> Finished:
        return Finished(self._job.range.broker.committed(self._job.group, topic))

    # --- deciding

    def decide(self, record: Record, now_ms: float) -> tuple[Fate, Message]:
        """A record's fate. Of several copies in the range the first is SENT, the others are REPEATED."""
        message = self._job.look(record)
        fate = self._against(message, record) or self._against_known(message)
        if fate is None and self._job.expiry_s is None and 0 < message.expires_ms < now_ms:
            fate = Fate.EXPIRED
        if fate is None:
            self._known.mark(message.origin_key, known.TAKEN)
        return fate or Fate.SENT, message

    def _against(self, message: Message, record: Record) -> Fate | None:
        """A reason in the record itself against sending it."""
        filters = self._job.filters
        if not message.target:
            return Fate.NO_TARGET
        if message.invalid:
            return Fate.CANNOT_BE_SENT
        if not message.token.startswith(filters.token_prefix):
            return Fate.OTHER_DEVICE
        if (
            self._job.source is not TopicKind.REQUESTS
            and filters.reasons
            and filters.reasons.isdisjoint(message.reasons)
        ):
            return Fate.OTHER_REASON
        if filters.missing_feedback and not self._finished.has(record.partition, record.offset):
            return Fate.NOT_FINISHED
        return None

    def _against_known(self, message: Message) -> Fate | None:
        """A reason in other topics against sending it."""
        facts = self._known.of(message.key) | self._known.of(message.origin_key)
        fate = self._against_outcome(facts) if self._job.needs_feedbacks else None
        if fate is None and facts & known.COPIED:
            fate = Fate.WAITS if self._waiting_only.get(message.target) else Fate.COPIED
        if fate is None and facts & known.TAKEN:
            fate = Fate.REPEATED
        return fate

    def _against_outcome(self, facts: int) -> Fate | None:
        filters = self._job.filters
        if filters.missing_feedback:
            return self._against_missing(facts)
        if facts & known.DELIVERED:
            return Fate.DELIVERED
        if not facts & known.FAILED:
            return Fate.NOT_FED_BACK
        if not facts & known.WANTED:
            return Fate.OTHER_REASON
        return Fate.DEAD if facts & known.DEAD and not filters.reasons else None

    def _against_missing(self, facts: int) -> Fate | None:
        if facts & (known.DELIVERED | known.FAILED):
            return Fate.FED_BACK
        if facts & known.INVALID:
            return Fate.CANNOT_BE_SENT
        return Fate.LIMITED if self._job.may_be_limited else None


def _reaches_back(broker: Broker, topic: str, since_s: float) -> bool:
    """Whether a topic still has all that was written after a moment."""
    with closing(broker.reader(topic)) as reader:
        first, after = reader.offsets("earliest"), reader.offsets(since_s)
    return all(not first[partition] or after[partition] > first[partition] for partition in first)


def _if_there(records: Iterable[Record]) -> Iterator[Record]:
    """Nothing where the topic does not exist."""
    try:
        yield from records
    except NoSuchTopic:
        return
