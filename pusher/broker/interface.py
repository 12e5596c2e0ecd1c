"""What a broker is to the rest: a source of records, a publisher, a reader. Kafka and SQLite implement it.

One contract suite (``tests/contract/``) runs over both implementations.
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
        """Where it stands in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch; -1 when the broker has none."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its bytes; None is what Kafka calls a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[Header]:
        """Names and values, in order."""
        ...


class Delivery(NamedTuple):
    """Records of one partition that were not handed on before, ascending by offset."""

    tracker: Tracker
    records: Sequence[Record]


class NoSuchTopic(OSError):
    """The topic that is to be read does not exist."""


class PublishError(Exception):
    """A record that the broker refuses for good."""


class RecordTooLarge(PublishError):
    """The broker or the topic does not take records of this size."""


class TopicRefused(PublishError):
    """The topic does not exist and cannot be made, or may not be written to."""


#: Of a topic; see ``Source.start_skipped``.
LEFT_OUT = "the group is new and begins at the end: messages that wait are left out (offsetResetStrategy)"

#: Called once when a record is stored (None) or refused for good. Must not wait.
Done = Callable[[PublishError | None], None]
#: Called when ``done`` of a record has raised, so that its offset stays open for ever, or when the publisher has died
#: of an unexpected error. Must not wait.
Failed = Callable[[BaseException], object]
#: Whether records of a topic should not be read now.
IsFull = Callable[[str], bool]
#: Whether a topic that exists is to be consumed.
Wanted = Callable[[str], bool]


class Source(Protocol):
    """One member of a consumer group. All methods are called from one greenlet, the consuming one.

    The source keeps ``assignment`` true through rebalances, commits only what its trackers allow, on revoke included,
    and survives the broker's absence: an outage shows in ``health`` and the log, never as an exception.
    """

    assignment: Assignment

    def poll(self, timeout_s: float, is_full: IsFull) -> list[Delivery]:
        """Records not handed on before. May wait up to about ``timeout_s``, and keeps the membership alive meanwhile.

        Partitions whose topic ``is_full``, or that run ``max_uncommitted`` ahead of their lowest unfinished message, or
        whose ranges do not fit into a commit, are paused until that ends.
        """
        ...

    def refresh(self) -> None:
        """Looks for topics again before the next poll: what is wanted has changed."""
        ...

    def commit(self) -> None:
        """Commits what is finished. May wait up to some 3 s; an outage is logged and the commit is due again."""
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
        """How many messages of a topic were left out because the group was new and began at the end."""
        ...


class Publisher(Protocol):
    """Writes records. Retriable failures are retried for ever; only a refusal for good reaches ``done``."""

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        """Queues a record. Never waits: a topic whose metadata is missing holds up its own records only."""
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
        """Waits until all is stored, up to ``timeout_s``; returns the number of records left."""
        ...

    def close(self) -> None:
        """Gives up what is left. May wait a moment; never raises."""
        ...

    def health(self) -> Health:
        """Whether records can be written now."""
        ...


class Reader(Protocol):
    """Reads a topic outside any group, up to an end where it was given one."""

    @property
    def ended(self) -> bool:
        """Whether every partition was read up to the end that was given. Without one, never."""
        ...

    def read(self, timeout_s: float) -> Iterable[Record]:
        """The next records, none when nothing came in ``timeout_s``. Raises ``OSError`` with one clear line."""
        ...

    def offsets(self, place: Place) -> dict[int, int]:
        """The offset of a place in each partition; the end where nothing is as late. Waits; raises as ``read``."""
        ...

    def close(self) -> None:
        """Never raises."""
        ...


def log_failure(error: BaseException) -> None:
    """What a command does that has no owner of greenlets."""
    log.error("a publisher, or what followed the storing of a record, failed", error=repr(error))


class Broker(Protocol):
    """Kafka or the embedded broker, for one role: where it is, and as whom it is used. ``str`` names it for people."""

    def source(self, queue: QueueSettings, wanted: Wanted) -> Source:
        """A member of the consumer group that ``queue`` names. Does not wait for the broker."""
        ...

    def publisher(self, failed: Failed = log_failure) -> Publisher:
        """Does not wait for the broker. ``failed``: see there."""
        ...

    def reader(self, topic: str, start: Place = "earliest", end: Place | None = None) -> Reader:
        """Reads from a place, up to another one if it is given. Does not wait for the broker."""
        ...

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """What a group has committed in a topic, by partition; asks without joining it. Waits up to some seconds.

        Raises ``OSError`` with one line.
        """
        ...

    def topics(self) -> list[str]:
        """Names of the topics that exist and may be described. Waits some seconds; raises ``OSError`` with one line."""
        ...

    def check(self) -> str:
        """Says that the broker can be used; raises ``OSError`` with one line when it cannot. May wait some seconds."""
        ...

    def reload(self, config: Config) -> bool:
        """Lets new connections use the present credentials; whether their settings changed. Raises ``StartError``."""
        ...
