"""``submit`` takes records, makes a push of each and routes it to the lane of its app.

A message that can never be sent ends here: with an error line, a count, and its bytes in the invalid topic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pusher.broker.interface import Publisher, PublishError, Record
from pusher.broker.offsets import State, Tracker
from pusher.push import topics
from pusher.push.fields import InvalidMessage
from pusher.push.lane import Lane
from pusher.push.origin import SOURCE_TOPIC_HEADER, origin, origin_headers
from pusher.push.outcome import Kind
from pusher.telemetry import metrics, sentry
from pusher.telemetry.log import few, logger
from pusher.telemetry.stats import Stats

log = logger(__name__)
_few = few(log)


class Pipeline:
    """Routes records to the lanes of their apps and ends what can never be sent. Never waits."""

    def __init__(
        self,
        platform: str,
        apps: Sequence[str],
        publisher: Callable[[], Publisher],
        stats: Stats,
        invalid_topic: str,
        may_be_new: Callable[[], bool] = lambda: False,
    ) -> None:
        """``publisher()`` takes invalid messages to ``invalid_topic``, which may contain <game> and <platform>.

        An empty ``invalid_topic`` drops them after they were logged and counted. ``may_be_new()``: an unknown game may
        have been configured in the meantime, so that its messages have to wait for ``settle``.
        """
        self.platform = platform
        self.lanes: dict[str, Lane[Any]] = {}
        self.consumed = 0
        #: Messages that could never be sent.
        self.invalid = 0
        #: Those of them that belong to no app.
        self.unroutable = 0
        self._apps = apps
        #: Apps that were served and are not configured any more: their topics are not read.
        self._left: set[str] = set()
        #: Messages of games that may be new, in the order in which they came; their partitions are paused.
        self._waiting: dict[str, list[tuple[Tracker, Sequence[Record]]]] = {}
        self._may_be_new = may_be_new
        self._publisher = publisher
        self._invalid_topic = invalid_topic
        self._stats = stats
        self._names: dict[str, topics.TopicName | None] = {}

    def wanted(self, topic: str) -> bool:
        """Whether records of this topic are read: those of an app that is configured but not running are not."""
        name = self.name(topic)
        if name is None or name.platform != self.platform or topics.is_written_by_pusher(topic):
            return False
        if topic == topics.fill(self._invalid_topic, name):
            return False
        return name.game in self.lanes or not (name.game in self._apps or name.game in self._left)

    # --- games that come and go ---------------------------------------------------------------------------------------
    def configure(self, apps: Sequence[str]) -> None:
        """These are configured from now on; topics of those that are not any more are paused, and then not read."""
        self._left = (self._left | set(self._apps)) - set(apps)
        self._apps = apps
        self._names.clear()

    @property
    def waits(self) -> bool:
        """Whether messages wait for ``settle``."""
        return any(game not in self._apps for game in self._waiting)

    def serve(self, app: str, lane: Lane[Any]) -> None:
        """Messages of the app go into this lane, first those that wait for it."""
        self.lanes[app] = lane
        for tracker, records in self._waiting.pop(app, ()):
            if tracker.state is not State.GONE:
                self._take_in(lane, tracker, records)

    def settle(self) -> None:
        """The configuration has been read: what waits and belongs to no app is invalid."""
        for game in [game for game in self._waiting if game not in self._apps]:
            for tracker, records in self._waiting.pop(game):
                if tracker.state is not State.GONE:
                    self._end_unroutable(tracker, records)

    def is_full(self, topic: str) -> bool:
        """Whether a topic's partitions should be paused."""
        name = self.name(topic)
        if name is None:
            return False
        lane = self.lanes.get(name.game)
        return (lane is not None and lane.full) or name.game in self._waiting or name.game in self._left

    def submit(self, tracker: Tracker, records: Sequence[Record]) -> None:
        """Takes in records of one partition."""
        name = self.name(tracker.key.topic)
        lane = self._lane(name)
        if lane is not None:
            self._take_in(lane, tracker, records)
        elif name is None or name.platform != self.platform:
            self._end_unroutable(tracker, records)
        elif name.game in self._left:
            pass  # left uncommitted: the partition is about to be given up
        elif name.game in self._apps or name.game in self._waiting or self._may_be_new():
            self._waiting.setdefault(name.game, []).append((tracker, records))
        else:
            self._end_unroutable(tracker, records)

    def _end_unroutable(self, tracker: Tracker, records: Sequence[Record]) -> None:
        self.consumed += len(records)
        self.unroutable += len(records)
        reason, detail = _unroutable(self.name(tracker.key.topic), self.platform)
        for record in records:
            self._end_invalid(record, tracker, InvalidMessage(reason, detail))

    def _take_in(self, lane: Lane[Any], tracker: Tracker, records: Sequence[Record]) -> None:
        self.consumed += len(records)
        pushes = []
        for record in records:
            try:
                push = lane.parse(record.value, origin(record))
            except InvalidMessage as error:
                self._end_invalid(record, tracker, error)
            except Exception as error:
                # A fault of the parser. The bytes are kept; raised here it would end every process that reads them.
                log.exception("the parser failed", topic=record.topic, offset=record.offset)
                sentry.report_exception(None, topic=record.topic)
                self._end_invalid(record, tracker, InvalidMessage("parser-failed", repr(error)))
            else:
                push.tracker, push.offset, push.timestamp_ms = tracker, record.offset, record.timestamp
                pushes.append(push)
        lane.totals.consumed += len(records)
        lane.totals.outcomes[Kind.INVALID] += len(records) - len(pushes)
        lane.in_hand += len(pushes)
        if pushes:
            lane.put(pushes)

    def _lane(self, name: topics.TopicName | None) -> Lane[Any] | None:
        if name is None or name.platform != self.platform:
            return None
        return self.lanes.get(name.game)

    def name(self, topic: str) -> topics.TopicName | None:
        """The app of a topic; None if its name does not show it."""
        try:
            return self._names[topic]
        except KeyError:
            name = self._names[topic] = topics.parse(topic, self._apps)
            return name

    def _end_invalid(self, record: Record, tracker: Tracker, error: InvalidMessage) -> None:
        """Error log, counter, and the bytes unchanged to the invalid topic; then it counts as finished."""
        self.invalid += 1
        name = self.name(record.topic) or topics.TopicName(topics.UNKNOWN, topics.UNKNOWN)
        self._stats.counter(metrics.INVALID, name.platform, name.game, error.reason).add()
        where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        key = (name.platform, name.game, error.reason)
        _few.error(key, "message can never be sent", reason=error.reason, error=error.detail, game=name.game, **where)
        came_back = any(header == SOURCE_TOPIC_HEADER for header, _ in record.headers or ())
        if came_back or not self._invalid_topic:
            tracker.finish(record.offset)
            return
        self._publisher().publish(
            topics.fill(self._invalid_topic, name),
            record.value or b"",
            partial(self._invalid_published, record, tracker, name),
            headers=[
                ("error", f"{error.reason}: {error.detail}".encode(errors="backslashreplace")),
                (SOURCE_TOPIC_HEADER, record.topic.encode()),
                ("source-partition", b"%d" % record.partition),
                ("source-offset", b"%d" % record.offset),
                ("source-timestamp", b"%d" % record.timestamp),
                *origin_headers(origin(record), record.value or b""),
            ],
        )

    def _invalid_published(
        self, record: Record, tracker: Tracker, name: topics.TopicName, error: PublishError | None
    ) -> None:
        if error is not None:
            self._stats.counter(metrics.INVALID_UNPUBLISHED, name.platform, name.game).add()
            _few.error(
                (name.platform, name.game, "invalid topic"),
                "the invalid topic refused a message; it stays in its source topic",
                game=name.game,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
        tracker.finish(record.offset)


def _unroutable(name: topics.TopicName | None, platform: str) -> tuple[str, str]:
    if name is None:
        return "bad-topic", "the topic's name is not push-<game>_<platform>..."
    if name.platform != platform:
        return "wrong-platform", f"the topic is for {name.platform}, this process sends {platform}"
    return "unknown-game", f"no app named {name.game} is configured"
