"""Feedbacks as anybody can write them into a topic, and the state that travels in commits."""

from __future__ import annotations

from pusher.broker.offsets import (
    MAX_METADATA_BYTES,
    Commit,
    TopicPartition,
    Tracker,
    decode_ranges,
    encode_ranges,
)
from pusher.listener.sorter import Sorter, decode_exactly
from pusher.providers.provider import provider
from tests.fuzz.draw import Draw
from tests.records import record, tracker

KEY = TopicPartition("push-game_apns-single", 0)
#: Far more than any process reads ahead.
MANY_OFFSETS = 2_000_000


def sorter(data: bytes) -> None:
    """Several feedbacks, separated by NUL; each ends in exactly one place."""
    draw = Draw(data)
    platform = draw.choice(("apns", "gcm"))
    records = [record(value, offset) for offset, value in enumerate(draw.rest().split(b"\0"))]
    found = Sorter(platform).sort(tracker(), records)
    dead = [one.record.offset for one in found.dead]
    invalid = [one.offset for one, _ in found.invalid]
    assert sorted([*dead, *found.others, *invalid]) == list(range(len(records)))
    assert found.successes <= len(found.others)
    for one in found.dead:
        fields = decode_exactly(one.record.value)
        rules = provider(platform).rules
        token = str(fields[rules.token]).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert (token, fields[rules.reason]) == (one.token, one.reason)
        assert rules.dead[one.reason] == one.doubtful
        assert one.token
    assert found.doubtful == sum(one.doubtful for one in found.dead)
    assert all(len(error.detail.splitlines()) == 1 and len(error.detail) <= 300 for _, error in found.invalid)


def ranges(data: bytes) -> None:
    """The metadata of a commit, whoever wrote it."""
    draw = Draw(data)
    low = draw.number(1 << 40)
    offsets = list(decode_ranges(low, draw.rest().decode("utf-8", "replace")))
    assert len(offsets) <= MANY_OFFSETS
    assert all(before < after for before, after in zip([low, *offsets], offsets, strict=False))
    text, fits = encode_ranges(low, offsets)
    assert len(text) <= MAX_METADATA_BYTES
    if fits:
        assert list(decode_ranges(low, text)) == offsets


def partition(data: bytes) -> None:
    """Messages that finish in any order, commits, and new owners: nothing is lost, nothing finished comes twice."""
    draw = Draw(data)
    low = draw.number(1000)
    owner = Tracker(KEY, low)
    end, unfinished, finished = low, set[int](), set[int]()
    committed = Commit(low, "")
    while draw.left:
        action = draw.number(8)
        if action <= 2:
            batch = []
            for _ in range(draw.number(16)):
                batch.append(record(b"", end))
                end += 1 + draw.number(3) // 2
            unfinished |= {one.offset for one in owner.admit(batch)}
            assert not unfinished & finished
        elif action <= 5 and unfinished:
            offset = sorted(unfinished)[draw.number(len(unfinished))]
            unfinished.remove(offset)
            finished.add(offset)
            owner.finish(offset)
        elif action == 6:
            commit = owner.due()
            if commit is not None and draw.flag():
                owner.confirm(commit)
                committed = commit
        elif action == 7 and owner.fits:
            owner = Tracker(KEY, committed.offset, committed.metadata)
            again = [record(b"", offset) for offset in sorted(unfinished | finished) if offset >= committed.offset]
            fresh = {one.offset for one in owner.admit(again)}
            assert unfinished <= fresh, "a message is lost"
            finished -= fresh
            unfinished = fresh
            end = max(end, owner.next_offset)
        assert owner.unfinished == len(unfinished)
        assert owner.low <= min(unfinished, default=end)
        assert not unfinished or owner.low == min(unfinished)
