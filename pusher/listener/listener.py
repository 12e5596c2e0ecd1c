"""The command ``start-feedback-listener``: feedbacks in, dead tokens out of the stores, offsets committed after that.

::

    source -> sort -> nothing to do: finished at once
                   -> dead: buffer of its game and platform -> every store has deleted it: finished
                                                            -> the guard stops it -> held topic has it: finished

One deleter greenlet for each game and platform, so that a missing or locked table does not delay other games.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import gevent

from pusher.broker.interface import Publisher, Record
from pusher.broker.offsets import Tracker
from pusher.config import settings as process_settings
from pusher.config.values import Config
from pusher.daemon import frame
from pusher.daemon.frame import Frame
from pusher.daemon.process import Step
from pusher.daemon.publishers import reload_brokers
from pusher.daemon.troubles import Troubles
from pusher.errors import StartError
from pusher.listener import settings
from pusher.listener.deleter import Deleter, FlushPolicy
from pusher.listener.guard import Guard, GuardPolicy, Limit, Seen
from pusher.listener.held import Held
from pusher.listener.opening import fault, open_stores, prepare_stores
from pusher.listener.sorter import Sorter, topic_name
from pusher.providers.provider import providers
from pusher.push.fields import InvalidMessage
from pusher.push.topics import TopicName
from pusher.telemetry import figures, metrics
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.stats import Sample

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

COMMAND = "start-feedback-listener"
_TICK_S = 1.0


class Listener:
    """Builds the listener from the configuration, starts it, and stops it in order."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._frame = Frame(COMMAND, config, settings.QUEUE, config[settings.GRACEFUL_SHUTDOWN_TIMEOUT], self)
        self._stats = self._frame.stats
        self._stores = open_stores(config) if config[settings.DELETES] else {}
        self._names: dict[str, TopicName | None] = {}
        self._sorters = {platform: Sorter(platform) for platform in providers()}
        self._deleters: dict[TopicName, Deleter] = {}
        self._troubles = Troubles()
        self._consumed: Counter[TopicName] = Counter()
        #: Offsets that a partition may be ahead of a token that waits for others.
        self._patience = config[settings.QUEUE.max_uncommitted] // 2

    def run(self) -> int:
        """Listens until it is stopped; returns the exit code. Raises ``StartError`` where a store cannot be used."""
        prepare_stores(self._stores)
        made, spawn = self._frame, self._frame.greenlets.spawn
        made.open_source()
        self._stats.counter(metrics.FEEDBACK_LISTENER_RESTART, made.hostname).add()
        made.start()
        spawn("gauges", self._measure)
        made.admin.start(spawn)
        log.info(
            "feedback listener started",
            deletes=self._config[settings.DELETES],
            guard=self._config[settings.GUARD_ENABLED],
            stores=",".join(self._stores) or "none",
        )
        closing = (Step("stores", self._close_stores),)
        return made.run(made.publishers.flush, after_greenlets=closing, before_stats=self._set_gauges)

    def reload(self) -> None:
        """Reads the configuration again; new connections to brokers and stores use their present credentials."""
        try:
            newest = self._config.again()
        except StartError as error:
            log.error("the configuration cannot be read, nothing has changed", error=str(error))
            return
        reload_brokers(self._frame.broker, self._frame.publishers, newest)
        for name, store in self._stores.items():
            try:
                log.info(
                    "store: new credentials in use" if store.reload(newest) else "store: the credentials are unchanged",
                    store=name,
                )
            except StartError as error:
                log.error(
                    "the new credentials for a store cannot be used, the old ones stay in use",
                    store=name,
                    error=str(error),
                )
            except Exception as error:  # noqa: BLE001  # a fault in a plug-in
                log.error("the new credentials for a store cannot be used", store=name, error=fault(error))

    # --- feedbacks ----------------------------------------------------------------------------------------------------
    def submit(self, tracker: Tracker, records: Sequence[Record]) -> None:
        """Takes in feedbacks of one partition. Never waits."""
        name = self.owner(tracker.key.topic)
        if name is None:
            raise ValueError(f"{tracker.key.topic} is not a feedback topic")
        self._consumed[name] += len(records)
        found = self._sorters[name.platform].sort(tracker, records)
        tracker.finish_many(found.others)
        for record, error in found.invalid:
            self._end_invalid(name, tracker, record, error)
        if not self._config[settings.DELETES]:
            tracker.finish_many([one.record.offset for one in found.dead])
            return
        deleter = self._deleter(name)
        if deleter.guard is not None:
            # What an earlier owner has finished counts too: it was successes above all, and the dead tokens that it had
            # in hand would look like everything there is.
            outcomes = len(found.others) + found.doubtful + found.proven + tracker.take_passed_over()
            seen = Seen(outcomes, found.successes, found.doubtful, found.proven)
            deleter.guard.count(time.monotonic(), seen)
        if found.dead:
            deleter.put(found.dead)
        if tracker.span > self._patience:
            deleter.hurry()

    def _end_invalid(self, name: TopicName, tracker: Tracker, record: Record, error: InvalidMessage) -> None:
        self._stats.counter(metrics.INVALID, name.platform, name.game, error.reason).add()
        _seldom.error(
            (name, error.reason),
            "a feedback cannot be read",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=error.reason,
            error=error.detail,
        )
        tracker.finish(record.offset)

    def wanted(self, topic: str) -> bool:
        """See ``Work``."""
        return self.owner(topic) is not None

    def is_full(self, topic: str) -> bool:
        """See ``Work``."""
        name = self.owner(topic)
        deleter = self._deleters.get(name) if name else None
        return deleter is not None and deleter.full

    def owner(self, topic: str) -> TopicName | None:
        """See ``Work``."""
        if topic not in self._names:
            name = topic_name(topic)
            self._names[topic] = name if name and name.platform in self._sorters else None
        return self._names[topic]

    # --- deleters -----------------------------------------------------------------------------------------------------
    def _deleter(self, name: TopicName) -> Deleter:
        if name not in self._deleters:
            self._deleters[name] = self._open_deleter(name)
            part = f"{name.platform} deleter"
            trouble = partial(self._troubles.note, name.game, part)
            self._frame.greenlets.spawn_for(name.game, part, self._deleters[name].run, trouble)
        return self._deleters[name]

    def _open_deleter(self, name: TopicName) -> Deleter:
        config = self._config
        policy = FlushPolicy(
            config[settings.BUFFER_SIZE],
            config[settings.FLUSH_INTERVAL],
            config[settings.INBOX_SIZE],
        )
        held = Held(name, self._frame.hostname, self._held_publisher(), self._stats)
        guard = _guard_of(config)
        return Deleter(name, self._frame.hostname, policy, self._stores, guard, held, self._stats)

    def _held_publisher(self) -> Publisher | None:
        if self._config[settings.GUARD_ACTION] == "drop":
            return None
        return self._frame.publishers.at(settings.QUEUE.at)

    # --- upkeep -------------------------------------------------------------------------------------------------------
    def process_unready(self) -> list[str]:
        """See ``Work``: a fault of a game affects only that game."""
        return []

    def apps_unready(self) -> dict[str, list[str]]:
        """Why tokens of single games are not deleted, by game; those that are have no reason."""
        found: dict[str, list[str]] = {}
        for name, deleter in self._deleters.items():
            found.setdefault(name.game, []).extend(filter(None, [deleter.unready]))
        for game, lines in found.items():
            lines += self._troubles.reasons(game)
        return found

    def samples(self) -> Iterator[Sample]:
        """See ``Work``."""
        for name, number in self._consumed.items():
            yield Sample(figures.FEEDBACKS, (name.platform, name.game), number)
        for name, deleter in self._deleters.items():
            for metric, value in (
                (figures.TOKENS_BUFFERED, deleter.buffered),
                (figures.TOKENS_DELETING, deleter.deleting),
                (figures.HOLDING, deleter.held.in_hand),
                (figures.DELETES_BLOCKED, bool(deleter.blocked)),
                (figures.GUARD_STOPPING, any(deleter.stopped)),
            ):
                yield Sample(metric, (name.platform, name.game), value)

    def tick(self) -> None:
        """See ``Work``."""
        for name, deleter in list(self._deleters.items()):
            self._troubles.contain(name.game, f"{name.platform} held topic", deleter.held.tick, None)

    def _measure(self) -> None:
        while True:
            self._set_gauges()
            gevent.sleep(self._config[process_settings.STATS_FLUSH])

    def _set_gauges(self) -> None:
        deleters = list(self._deleters.values())
        for metric, value in (
            # Feedbacks are looked at when they come in: none ever waits for that.
            (metrics.QUEUE_OUT_CHANNEL, 0),
            (metrics.BROKER_IN_CHANNEL, 0),
            (metrics.BROKER_INVALID_TOKEN_CHANNEL, sum(deleter.deleting for deleter in deleters)),
            (metrics.INVALID_TOKEN_HANDLER_BUFFER, sum(deleter.buffered for deleter in deleters)),
        ):
            self._stats.gauge(metric, self._frame.hostname).set(value)

    # --- stop ---------------------------------------------------------------------------------------------------------
    def drain(self, left_s: float) -> str:
        """Deletes what is in the buffers; what cannot be deleted is left uncommitted."""
        deleters = self._deleters.values()
        deadline = time.monotonic() + left_s
        if self._config[settings.QUEUE.handle_all_messages_before_exiting]:
            while any(deleter.in_hand for deleter in deleters) and time.monotonic() < deadline:
                for deleter in deleters:
                    deleter.hurry()
                gevent.sleep(0.01)
        left = sum(deleter.in_hand for deleter in deleters)
        return f"{left} dead tokens are left for the next start" if left else ""

    def _close_stores(self, _: float) -> str:
        for store in self._stores.values():
            store.close()
        return ""


def _guard_of(config: Config) -> Guard | None:
    if not config[settings.GUARD_ENABLED]:
        return None
    return Guard(
        GuardPolicy(
            window_s=config[settings.GUARD_WINDOW],
            doubtful=Limit(config[settings.GUARD_SHARE], config[settings.GUARD_MINIMUM]),
            proven=Limit(config[settings.GUARD_PROVEN_SHARE], config[settings.GUARD_PROVEN_MINIMUM]),
            successes_expected=config[settings.GUARD_SUCCESSES_EXPECTED],
            maximum=config[settings.GUARD_MAXIMUM],
        )
    )


def run_listener(config: Config) -> int:
    """The command; returns the exit code. Raises ``StartError``."""
    return frame.run(COMMAND, config, lambda: Listener(config).run())
