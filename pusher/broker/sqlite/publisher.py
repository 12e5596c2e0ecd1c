"""Writes records to the file, a batch a transaction, until they are stored or refused for good.

``publish`` only queues. The one greenlet of this module stores the queued records, calls their ``done``, and now and
then deletes old records, so that the process that makes the file grow also keeps it small.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import gevent
from gevent.event import Event

from pusher.broker.interface import Done, Failed, Header, PublishError, RecordTooLarge, TopicRefused, log_failure
from pusher.broker.sqlite import topic_log
from pusher.broker.sqlite.store import Store, Unavailable, writing
from pusher.broker.sqlite.topic_log import Content
from pusher.broker.unstored import Unstored
from pusher.telemetry.health import Health
from pusher.telemetry.log import Seldom, logger

log = logger(__name__)
_seldom = Seldom(log, period_s=60)

#: Records and bytes of one transaction.
_BATCH_RECORDS = 500
_BATCH_BYTES = 4 * 1024 * 1024
#: What a waiting record takes beside its value and headers, in bytes.
_OVERHEAD_BYTES = 500
#: Pause before a failed batch is stored again.
_PAUSE_S = 0.5
#: How often old records are deleted, and how many at a time.
_CLEAN_S = 60.0
_CLEAN_RECORDS = 1000


class SqlitePublisher:
    """A ``Publisher`` over the embedded broker. The constructor does not open the file.

    Records older than ``retention_s`` are deleted once every group has finished them. ``buffer_kib`` of records that
    are not stored make it ``full``. A record waits ``linger_ms`` for others to be stored with, as each transaction
    waits for the disk. Value and headers may take ``max_record_bytes``, Kafka's default.
    """

    def __init__(
        self,
        url: str,
        *,
        retention_s: float = 7 * 86_400.0,
        linger_ms: int = 10,
        buffer_kib: int = 32_768,
        max_record_bytes: int = 1024 * 1024,
        failed: Failed = log_failure,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = Store(url)
        self._retention_s, self._linger_s = retention_s, linger_ms / 1000
        self._unstored = Unstored(buffer_kib, failed)
        self._max_record_bytes, self._clock = max_record_bytes, clock
        self._queue: deque[_Outgoing] = deque()
        self._work = Event()
        self._clean_at = clock()
        self._error = "not open yet"
        self._unstored.start("publisher", self._run)

    # --- what the rest calls

    def publish(self, topic: str, value: bytes, done: Done, headers: Sequence[Header] = ()) -> None:
        """Queues a record. See ``Publisher``."""
        content = Content(topic, value, topic_log.encode_headers(headers))
        size = len(value) + sum(len(name) + len(text) for name, text in headers)
        record = _Outgoing(content, done, size + _OVERHEAD_BYTES)
        self._unstored.add(record)
        refusal: PublishError | None = None
        if size > self._max_record_bytes:
            refusal = RecordTooLarge(f"{topic}: {size} bytes, {self._max_record_bytes} are allowed")
        elif not topic_log.is_topic_name(topic):
            refusal = TopicRefused(f"{topic}: not the name of a topic")
        if refusal is not None:
            gevent.get_hub().loop.run_callback(self._unstored.end, record, refusal)
        else:
            self._queue.append(record)
            self._work.set()

    @property
    def pending(self) -> int:
        """Records that are neither stored nor refused."""
        return self._unstored.count

    @property
    def full(self) -> bool:
        """Whether consuming should pause."""
        return self._unstored.full

    def flush(self, timeout_s: float) -> int:
        """Waits until all is stored or refused, up to ``timeout_s``; returns the number of records left."""
        return self._unstored.wait(timeout_s)

    def close(self) -> None:
        """Gives up what is left, without telling. May wait some 2 s; never raises."""
        self._unstored.stop()
        self._store.close()
        self._unstored.give_up()

    def health(self) -> Health:
        """Ready unless the last thing tried failed. Never waits."""
        why = self._error or self._unstored.failure
        return Health(ready=not why, reason=why)

    # --- its own greenlet

    def _run(self) -> None:
        while True:
            try:
                if self._clock() >= self._clean_at:
                    self._clean()
                if self._queue:
                    self._store_next()
                else:
                    self._wait()
            except Unavailable as error:
                self._error = str(error)
                _seldom.warning(self._store.path, "publishing failed, retrying", error=error)
                gevent.sleep(_PAUSE_S)
                if not self._queue:  # cleaning will tell when the file can be used again
                    self._clean_at = self._clock()

    def _wait(self) -> None:
        self._work.clear()
        self._work.wait(max(0.0, self._clean_at - self._clock()))

    def _store_next(self) -> None:
        if len(self._queue) < _BATCH_RECORDS:
            gevent.sleep(self._linger_s)
        batch = self._take()
        try:
            self._store.run(partial(_append, [record.content for record in batch]))
        except BaseException:
            self._queue.extendleft(reversed(batch))
            raise
        self._error = ""
        for record in batch:
            self._unstored.end(record, None)

    def _take(self) -> list[_Outgoing]:
        batch: list[_Outgoing] = []
        left_bytes = _BATCH_BYTES
        while self._queue and left_bytes > 0 and len(batch) < _BATCH_RECORDS:
            batch.append(self._queue.popleft())
            left_bytes -= batch[-1].size
        return batch

    def _clean(self) -> None:
        self._clean_at = self._clock() + _CLEAN_S
        stored_before_ms = int((time.time() - self._retention_s) * 1000)
        work = partial(topic_log.delete_old, stored_before_ms=stored_before_ms, limit=_CLEAN_RECORDS)
        if self._store.run(work):
            self._clean_at = self._clock()
        self._error = ""


class _Outgoing(NamedTuple):
    content: Content
    done: Done
    size: int


def _append(contents: Sequence[Content], connection: sqlite3.Connection) -> None:
    with writing(connection):
        topic_log.append(connection, contents, int(time.time() * 1000))
