"""The interface of a broker: a source of records, a publisher, a reader. Kafka and SQLite implement it.

One contract suite (``tests/contract/``) runs over all implementations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pusher.broker.offsets import Assignment, Commit, TopicPartition, Tracker
from pusher.telemetry.log import logger

if TYPE_CHECKING:
    from pusher.config.settings import QueueSettings
    from pusher.config.values import Config
    from pusher.telemetry.health import Health

log = logger(__name__)

Header = tuple[str, bytes]

#: A place in each partition: "earliest", "latest", offsets by partition, or a time in seconds since the epoch.
Place = str | Mapping[int, int] | float


class Record(Protocol):
    """One message of a topic. kafka-python's ConsumerRecord has this shape."""

    @property
    def topic(self) -> str:
        """Its topic."""
        ...

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch; -1 when the broker has none."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its bytes; None for a tombstone, as Kafka calls it."""
        ...

    @property
    def headers(self) -> Sequence[Header]:
        """Names and values, in order."""
        ...


class Delivery(NamedTuple):
    """New records of one partition, ascending by offset."""

    tracker: Tracker
    records: Sequence[Record]


class NoSuchTopic(OSError):
    """The topic to read does not exist."""


class PublishError(Exception):
    """A record that the broker refuses for good."""


class RecordTooLarge(PublishError):
    """The broker or the topic does not take records of this size."""


class TopicRefused(PublishError):
    """The topic does not exist and cannot be created, or may not be written to."""


#: Of a topic; see ``Source.start_skipped``.
LEFT_OUT = "the group is new and starts at the end: waiting messages are skipped (offsetResetStrategy)"

#: Called once when a record is stored (None) or refused for good. Must not wait.
Done = Callable[[PublishError | None], None]
#: Called when ``done`` of a record has raised an exception, so that its offset is never finished, or when an unexpected
#: error has ended the publisher. Must not wait.
Failed = Callable[[BaseException], object]
#: Whether records of a topic should not be read now.
IsFull = Callable[[str], bool]
#: Whether to consume a topic that exists.
Wanted = Callable[[str], bool]


class Source(Protocol):
    """One member of a consumer group. All methods are called from one greenlet, the consuming one.

    The source keeps ``assignment`` current through rebalances. It commits only what its trackers allow, also when
    partitions are revoked. It survives an outage of the broker, which shows in ``health`` and the log, never as an
    exception.
    """

    assignment: Assignment

    def poll(self, timeout_s: float, is_full: IsFull) -> list[Delivery]:
        """Returns new records. May wait up to about ``timeout_s``, and keeps the membership alive meanwhile.

        A partition is paused while its topic ``is_full``, while it is ``max_uncommitted`` ahead of its lowest
        unfinished message, or while its finished ranges do not fit into a commit.
        """
        ...

    def refresh(self) -> None:
        """Looks for topics again before the next poll, because the wanted topics have changed."""
        ...

    def commit(self) -> None:
        """Commits finished offsets. May wait up to about 3 s; an outage is logged, and the commit is tried again."""
        ...

    def close(self, *, commit: bool = True) -> None:
        """Commits, leaves the group and closes. May wait some seconds; never raises."""
        ...

    def health(self) -> Health:
        """Whether records can be read now."""
        ...

    def lag(self) -> dict[TopicPartition, int]:
        """For each owned partition the number of offsets between its lowest unfinished message and its end."""
        ...

    @property
    def out_of_range(self) -> Counter[str]:
        """How often a position of a topic was out of range and set to the earliest offset."""
        ...

    @property
    def start_skipped(self) -> Counter[str]:
        """How many messages of a topic were skipped because the group was new and started at the end."""
        ...


class Publisher(Protocol):
    """Writes records. It retries retriable failures without end; ``done`` gets only a final refusal."""

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        """Queues a record. Never waits: a topic without metadata delays only its own records."""
        ...

    @property
    def pending(self) -> int:
        """Records that are neither stored nor refused."""
        ...

    @property
    def full(self) -> bool:
        """Whether the buffer is full, so that consuming should pause."""
        ...

    def flush(self, timeout_s: float) -> int:
        """Waits until all records are stored, up to ``timeout_s``; returns the number of records left."""
        ...

    def close(self) -> None:
        """Gives up the remaining records. May wait a moment; never raises."""
        ...

    def health(self) -> Health:
        """Whether records can be written now."""
        ...


class Reader(Protocol):
    """Reads a topic without a group, up to an end if one was given."""

    @property
    def ended(self) -> bool:
        """Whether every partition was read up to the given end; always false without one."""
        ...

    def read(self, timeout_s: float) -> Iterable[Record]:
        """The next records; none if nothing came within ``timeout_s``. Raises ``OSError`` with one clear line."""
        ...

    def offsets(self, place: Place) -> dict[int, int]:
        """The offset of a place in each partition; the end if no record is that late. Waits; raises like ``read``."""
        ...

    def close(self) -> None:
        """Never raises."""
        ...


def log_failure(error: BaseException) -> None:
    """The ``failed`` of commands without an owner of greenlets: logs the error."""
    log.error("a publisher, or the code that runs after a record is stored, failed", error=repr(error))


class Broker(Protocol):
    """Kafka or the embedded broker, with the address and credentials of one role. ``str`` names it for users."""

    def source(self, queue: QueueSettings, wanted: Wanted) -> Source:
        """A member of the consumer group that ``queue`` names. Does not wait for the broker."""
        ...

    def publisher(self, failed: Failed = log_failure) -> Publisher:
        """A publisher. Does not wait for the broker. ``failed``: see ``Failed``."""
        ...

    def reader(self, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
        """A reader from a place, up to ``end`` if it is given. Does not wait for the broker."""
        ...

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """The commits of a group in a topic, by partition, without joining the group. Waits up to some seconds.

        Raises ``OSError`` with one line.
        """
        ...

    def topics(self) -> list[str]:
        """Names of the existing topics that may be described. Waits some seconds; raises ``OSError`` with one line."""
        ...

    def check(self) -> str:
        """Returns a line if the broker can be used, else raises ``OSError`` with one line. May wait some seconds."""
        ...

    def reload(self, config: Config) -> bool:
        """Makes new connections use the current credentials; returns whether they changed. Raises ``StartError``."""
        ...
