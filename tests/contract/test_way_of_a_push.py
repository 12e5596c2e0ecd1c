"""How straight the way of a push is: how often does it come back to a module that it had left, from submit to finish?

Counted with the profile hook of the interpreter (``sys.setprofile``), in all greenlets. A push is where a function is
called with it: with its record, the push, its request and answer (the exchange), what the answer means, or its outcome,
alone or in a list. Where that module differs from the one before and has had the push earlier, it has come back. Not
counted: the end of a call, which leads back by itself; the loops that wait for the next push; telemetry, which stands
beside the way. One push, alone, on a link that is open and has answered before.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Self

from pusher.providers.http2.exchange import Exchange
from pusher.providers.judgement import Finish, Judgement
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push
from tests.records import FakeRecord
from tests.unit.providers.apns.test_apns_service import opened

PACKAGE = str(Path(__file__).parents[2] / "pusher") + "/"
BESIDE = ("telemetry/", "sim/")
CARRIERS = (FakeRecord, Push, Exchange, Finish, Judgement, Outcome)
MOST_RETURNS = 20


def carries(value: object) -> bool:
    """Whether a push is in it."""
    if isinstance(value, CARRIERS):
        return True
    return isinstance(value, list | deque | tuple) and any(isinstance(one, CARRIERS) for one in value)


class Trace:
    """The modules that have the push, in order, each once until the next one has it."""

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.over = False

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or self.over or not code.co_filename.startswith(PACKAGE):
            return
        module = code.co_filename.removeprefix(PACKAGE)
        self.over = module == "broker/offsets.py" and code.co_name == "finish"
        if module.startswith(BESIDE) or not (self.over or any(carries(value) for value in frame.f_locals.values())):
            return
        if self.modules[-1:] != [module]:
            self.modules.append(module)

    @property
    def returns(self) -> int:
        return sum(module in self.modules[:place] for place, module in enumerate(self.modules))


def test_a_push_seldom_comes_back_to_where_it_was(tmp_path: Path) -> None:
    with opened(tmp_path) as bed:
        assert bed.send(3) == {Kind.DELIVERED: 3}
        bed.publisher.settle(None)
        with Trace() as trace:
            assert bed.send(1) == {Kind.DELIVERED: 4}
            bed.publisher.settle(None)
    way = " -> ".join(trace.modules)
    assert trace.over, way
    assert trace.returns <= MOST_RETURNS, f"{trace.returns} returns: {way}"
    assert {"push/pipeline.py", "push/lane.py", "providers/http2/pool.py", "push/feedbacks.py"} <= set(trace.modules)
