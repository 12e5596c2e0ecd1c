"""librdkafka's consumer with its thread, in which all calls are made and rebalances run.

The library lets one thread in at a time: a call from another one, however short, waits until a read is over. The
methods are called in the hub, most of them in the consuming greenlet, which waits for the thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pusher.broker.librdkafka.access import LibrdkafkaLogin, connection, same_but_credentials
from pusher.broker.librdkafka.native import Threads
from pusher.broker.librdkafka.troubles import BrokerTroubles
from pusher.broker.offsets import Commit
from pusher.broker.offsets import TopicPartition as Key

#: How long an answer about offsets, topics or a commit may take.
ANSWER_S = 3.0
#: A consumer that does not close in this time is left behind.
_CLOSE_S = 6.0
#: How long the first question waits before it is looked what is in the way.
_LOOK_S = 0.5
#: Between two looks at where partitions end.
_ENDS_S = 1.0
#: What ``ListOffsets`` takes for times (KIP-79).
_LATEST, _EARLIEST = -1, -2
#: Not set by the group, or not known to the brokers.
_NO_OFFSET = 0

Topics = dict[str, set[int]]
Listener = Callable[[Consumer, list[TopicPartition]], None]


class LibrdkafkaClient:
    """A consumer. The constructor does not wait: the library makes it in a thread at the first use."""

    def __init__(self, brokers: str, login: LibrdkafkaLogin, conf: Mapping[str, Any]) -> None:
        self.troubles = BrokerTroubles()
        #: Whether new settings need a new client.
        self.outdated = False
        self._settings = login.settings
        self._conf = connection(brokers, login.settings, self.troubles) | dict(conf)
        self._thread = Threads(1)
        self._consumer: Consumer | None = None
        #: Credentials that the consumer does not know yet.
        self._credentials: tuple[str, str] | None = None
        #: Where partitions end, as their last fetches told, and when that is looked at again.
        self.ends_known: dict[Key, int] = {}
        self._ends_at = 0.0
        #: Whether something is read, or is to be.
        self._reads = False

    def open(self) -> None:
        """Makes the consumer, if there is none. Waits for the first token, if there are tokens. KafkaException."""
        if self._consumer is None:
            self._consumer = self._thread.call(Consumer, self._conf)

    @property
    def consumer(self) -> Consumer:
        """The library's own, which is open."""
        if self._consumer is None:
            raise ValueError("the consumer is not open")
        return self._consumer

    def use(self, settings: dict[str, Any]) -> None:
        """New connections log in with the credentials of these settings; other changes make it ``outdated``."""
        if same_but_credentials(self._settings, settings):
            username = settings["conf"].get("sasl.username")
            if username:
                self._credentials = (username, settings["conf"]["sasl.password"])
        else:
            self.outdated = True
        self._settings = settings
        self._conf |= settings["conf"]

    def topics(self) -> Topics:
        """The topics that may be described, with their partitions. Waits; raises KafkaException or TimeoutError."""
        found = self._metadata()
        return {name: set(topic.partitions) for name, topic in found.topics.items() if topic.error is None}

    def brokers(self) -> list[str]:
        """Host and port of each broker. Waits and raises as ``topics``."""
        found = self._metadata()
        return [f"{broker.host}:{broker.port}" for broker in found.brokers.values()]

    def subscribe(self, topics: list[str], assigned: Listener, revoked: Listener, lost: Listener) -> None:
        """Consumes these topics, which exist, as a member. The listeners are called in the reading thread."""
        self._reads = True
        self._thread.call(lambda: self.consumer.subscribe(topics, on_assign=assigned, on_revoke=revoked, on_lost=lost))

    def unsubscribe(self) -> None:
        """Leaves the group. Waits for the revocation."""
        self._thread.call(self.consumer.unsubscribe)

    def change(self, place: Callable[[Consumer], None]) -> None:
        """Changes what is assigned, in the reading thread. Raises KafkaException."""
        self._thread.call(place, self.consumer)

    def assign(self, starts: Mapping[Key, int]) -> None:
        """Reads these partitions from these offsets, outside any group."""
        self._reads = True
        self.change(lambda consumer: read_from(consumer, starts, add=False))

    def read(self, timeout_s: float, limit: int, keys: Iterable[Key] = ()) -> list[Message]:
        """The next messages and events. Waits up to ``timeout_s``. Raises KafkaException.

        ``keys``: of these ``ends_known`` is to be kept.
        """
        look = time.monotonic() >= self._ends_at
        if look:
            self._ends_at = time.monotonic() + _ENDS_S
        credentials, self._credentials = self._credentials, None
        wanted = [key for key in keys if look or key not in self.ends_known]

        def consume() -> list[Message]:
            consumer = self.consumer
            if credentials is not None:
                consumer.set_sasl_credentials(*credentials)
            # With a larger number the library waits for all of them, or for the whole time.
            found = consumer.consume(1, timeout_s)
            if found and limit > 1:
                found += consumer.consume(limit - 1, 0)
            for key in wanted:
                low, high = consumer.get_watermark_offsets(TopicPartition(*key), cached=True)
                if low >= 0 or high > 0:
                    self.ends_known[key] = high
            return found

        return self._thread.call(consume)

    def hold(self, paused: Iterable[Key], resumed: Iterable[Key]) -> None:
        """Pauses partitions and resumes others."""
        resting, going = [TopicPartition(*key) for key in paused], [TopicPartition(*key) for key in resumed]

        def change(consumer: Consumer) -> None:
            if resting:
                consumer.pause(resting)
            if going:
                consumer.resume(going)

        self.change(change)

    def committed(self, keys: Iterable[Key], timeout_s: float = ANSWER_S) -> tuple[dict[Key, Commit], dict[Key, str]]:
        """What the group has committed for these partitions, and why it is not known for others. Waits; raises."""
        partitions = [TopicPartition(*key) for key in keys]
        found = self._ask(lambda: self.consumer.committed(partitions, timeout=timeout_s), timeout_s)
        fine, failed = _parted(found)
        return {
            key: Commit(each.offset, each.metadata or "") for key, each in fine.items() if each.offset >= _NO_OFFSET
        }, failed

    def commit(self, commits: Mapping[Key, Commit]) -> dict[Key, str]:
        """Commits; returns for which partitions not, and why. Waits some 3 s; raises KafkaException, TimeoutError."""
        found: dict[Key, str] = self._ask(lambda: store(self.consumer, commits))
        return found

    def starts(self, keys: Iterable[Key], timeout_s: float = ANSWER_S) -> dict[Key, int]:
        """The first offset of partitions. Waits; raises KafkaException or TimeoutError."""
        return self._offsets(dict.fromkeys(keys, _EARLIEST), timeout_s)

    def ends(self, keys: Iterable[Key], timeout_s: float = ANSWER_S) -> dict[Key, int]:
        """The end of partitions, before which all transactions have ended. Waits and raises as ``starts``."""
        return self._offsets(dict.fromkeys(keys, _LATEST), timeout_s)

    def at(self, keys: Iterable[Key], moment_ms: int, timeout_s: float = ANSWER_S) -> dict[Key, int]:
        """The first offset that is as late, or the end, of partitions. Waits and raises as ``starts``."""
        return self._offsets(dict.fromkeys(keys, moment_ms), timeout_s)

    def close(self) -> None:
        """Leaves the group and closes. Waits some seconds; raises KafkaException or TimeoutError."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._thread.call_within(_CLOSE_S, consumer.close)
        self._thread.close()

    def _metadata(self) -> Any:
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                found = self._ask(lambda: self.consumer.list_topics(timeout=ANSWER_S if self._reads else _LOOK_S))
            except KafkaException:
                if not self._reads:
                    # The library reports problems only to a consumer that polls.
                    self.read(0, 1)
                if self._reads or self.troubles.refused or time.monotonic() > deadline:
                    raise
            else:
                self.troubles.clear()
                return found

    def _ask(self, question: Callable[[], Any], timeout_s: float = ANSWER_S) -> Any:
        self.open()
        return self._thread.call_within(timeout_s + 1, question)

    def _offsets(self, times: Mapping[Key, int], timeout_s: float) -> dict[Key, int]:
        if not times:
            return {}
        asked = positions(times)
        found = self._ask(lambda: self.consumer.offsets_for_times(asked, timeout=timeout_s), timeout_s)
        fine, failed = _parted(found)
        for key, reason in failed.items():
            raise OSError(f"{key.topic}: {reason}")
        offsets = {key: each.offset for key, each in fine.items()}
        late = [key for key, offset in offsets.items() if offset < 0 and times[key] >= 0]
        return offsets | (self._offsets(dict.fromkeys(late, _LATEST), timeout_s) if late else {})


def store(consumer: Consumer, commits: Mapping[Key, Commit]) -> dict[Key, str]:
    """Commits, in the consumer's thread; returns for which partitions not, and why. Raises KafkaException."""
    failed: dict[Key, str] = {}
    everything = [TopicPartition(*key, commit.offset, commit.metadata) for key, commit in commits.items()]
    requests = [everything] if everything else []
    while requests:
        partitions = requests.pop()
        try:
            found = consumer.commit(offsets=partitions, asynchronous=False)
        except KafkaException as error:
            # For several topics the library reports one error, which may belong to one topic only.
            names = {each.topic for each in partitions}
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            if len(names) > 1:
                requests += [[each for each in partitions if each.topic == name] for name in names]
            else:
                failed |= {Key(each.topic, each.partition): denied(error.args[0]) for each in partitions}
        else:
            failed |= _parted(found or [])[1]
    return failed


def read_from(consumer: Consumer, starts: Mapping[Key, int], *, add: bool) -> None:
    """Reads these partitions from these offsets, alone or beside the others. In the consumer's thread.

    A partition that was paused in an earlier assignment would still be so.
    """
    begun = positions(starts)
    if add:
        consumer.incremental_assign(begun)
    else:
        consumer.assign(begun)
    if begun:
        consumer.resume(begun)


def positions(starts: Mapping[Key, int]) -> list[TopicPartition]:
    """Offsets as the library takes them."""
    return [TopicPartition(*key, offset) for key, offset in starts.items()]


def denied(error: KafkaError) -> str:
    """The reason of an error of one topic."""
    return "not authorized to read it" if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED else str(error.str())


def _parted(found: Iterable[TopicPartition]) -> tuple[dict[Key, TopicPartition], dict[Key, str]]:
    """Partitions without an error, and the errors of the others."""
    fine, failed = {}, {}
    for each in found:
        key = Key(each.topic, each.partition)
        if each.error is None:
            fine[key] = each
        else:
            failed[key] = denied(each.error)
    return fine, failed
