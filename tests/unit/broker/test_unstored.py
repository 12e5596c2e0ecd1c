"""What the publishers of all brokers keep of the records that they have taken, and of their greenlets."""

from __future__ import annotations

from typing import NamedTuple

import gevent
import pytest

from lab.processes import wait_until
from pusher.broker.interface import Done, PublishError
from pusher.broker.unstored import Unstored


class Record(NamedTuple):
    done: Done
    size: int = 600


def test_a_greenlet_that_dies_is_its_owners_business() -> None:
    told: list[BaseException] = []
    unstored = Unstored(1, told.append)
    unstored.start("publisher", lambda: 1 // 0)
    wait_until(lambda: told)
    assert isinstance(told[0], ZeroDivisionError)
    assert "ZeroDivisionError" in unstored.failure


def test_a_greenlet_that_ends_or_is_stopped_is_nobodys() -> None:
    told: list[BaseException] = []
    unstored = Unstored(1, told.append)
    ended: list[str] = []
    unstored.start("a look", lambda: ended.append("it did"))
    unstored.start("publisher", lambda: gevent.sleep(3_600))
    wait_until(lambda: ended)
    unstored.stop()
    gevent.sleep(0)
    assert (told, unstored.failure) == ([], "")


@pytest.mark.parametrize("error", [None, PublishError("refused")])
def test_a_record_whose_end_fails_is_told_and_no_longer_waited_for(error: PublishError | None) -> None:
    told: list[BaseException] = []
    unstored = Unstored(1, told.append)

    def done(_: PublishError | None) -> None:
        raise ValueError("cannot be finished")

    records = [Record(done), Record(lambda _: None)]
    for record in records:
        unstored.add(record)
    assert (unstored.count, unstored.full, unstored.wait(0.0)) == (2, True, 2)
    for record in records:
        unstored.end(record, error)
    assert [str(one) for one in told] == ["cannot be finished"]
    assert (unstored.count, unstored.full, unstored.wait(1.0)) == (0, False, 0)
