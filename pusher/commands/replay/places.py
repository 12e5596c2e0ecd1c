"""The beginning and end of a range: the operator's text, and the offsets that it means.

A place is an offset, a word, or a time. The range is fixed before anything is read: messages that are written
meanwhile, including copies, are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from pusher.broker.interface import Broker, Place, Reader, Record
from pusher.commands.progress import progress
from pusher.errors import StartError

EXPECTED = "an offset, earliest, latest, a time such as 2026-01-31T14:00:00+01:00, or a time ago such as -2h"
_AGO = re.compile(r"-(\d+(?:\.\d+)?)([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: An offset as it is written by hand; it holds in every partition.
_OFFSET = re.compile(r"\d+", re.ASCII)
_POLL_S = 1.0
#: A broker that gives nothing for so many polls in a row, though there must be more, has gone.
_EMPTY_POLLS = 30


class Everywhere(int):
    """The same offset in each partition."""


def parse_place(text: str, now_s: float) -> Place | Everywhere:
    """Parses ``--from`` and ``--to``; a time without a zone is UTC. Raises ``ValueError``."""
    if text in ("earliest", "latest"):
        return text
    if _OFFSET.fullmatch(text):
        return Everywhere(text)
    ago = _AGO.fullmatch(text)
    if ago:
        return now_s - float(ago[1]) * _UNITS_S[ago[2]]
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True)
class Range:
    """Offsets of one topic, by partition: from ``starts``, up to and without ``ends``."""

    broker: Broker
    topic: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def size(self) -> int:
        """Offsets in it; there may be fewer messages."""
        return sum(self.ends[partition] - start for partition, start in self.starts.items())

    def __str__(self) -> str:
        parts = [f"{p}: {start}-{self.ends[p] - 1}" for p, start in self.starts.items() if start < self.ends[p]]
        return ", ".join(parts) or "empty"

    def records(self, text: str) -> Iterator[Record]:
        """Its records, with a bar on a terminal that says ``text``. Raises ``OSError``."""
        return read(self.broker, self.topic, self.starts, self.ends, text, self.size)


def find_range(
    broker: Broker, topic: str, partition: int | None, start: Place | Everywhere, end: Place | Everywhere
) -> Range:
    """The offsets that places mean now. Raises ``StartError`` and ``OSError``."""
    with closing(broker.reader(topic)) as reader:
        first, last = reader.offsets("earliest"), reader.offsets("latest")
        starts, ends = _offsets(reader, start, last), _offsets(reader, end, last)
    if partition is not None and partition not in last:
        raise StartError(f"{topic} has no partition {partition}: it has {len(last)}")
    chosen = sorted(last) if partition is None else [partition]
    # All partitions are in both, so that a reader ends at once in those that are not asked for.
    bounds = {p: (max(starts[p], first[p]), min(ends[p], last[p])) if p in chosen else (0, 0) for p in last}
    return Range(
        broker,
        topic,
        {p: found[0] for p, found in sorted(bounds.items())},
        {p: max(found) for p, found in sorted(bounds.items())},
    )


def read(broker: Broker, topic: str, start: Place, end: Place, text: str, total: int | None = None) -> Iterator[Record]:
    """The records of a topic between two places. Raises ``OSError`` also where a broker gives nothing more."""
    with (
        closing(broker.reader(topic, start, end)) as reader,
        progress(text, "records", total) as bar,
    ):
        empty = 0
        while not reader.ended:
            records = list(reader.read(_POLL_S))
            yield from records
            bar.update(len(records))
            empty = 0 if records else empty + 1
            if empty > _EMPTY_POLLS:
                raise OSError(
                    f"{topic}: nothing read for {_EMPTY_POLLS * _POLL_S:g} s, although there are more messages"
                )


def _offsets(reader: Reader, place: Place | Everywhere, partitions: Mapping[int, int]) -> dict[int, int]:
    return dict.fromkeys(partitions, int(place)) if isinstance(place, Everywhere) else reader.offsets(place)
