"""Scripted faults: which requests get a faulty answer, and which fault.

A fault is one line, so that it can be given on a command line:

    [prefix=TEXT:] action [argument ...] [:rate] [,option ...]

`prefix=` selects device tokens that begin with TEXT. The rate is the share of the selected requests that are hit
(0.05), or 1/N for exactly every Nth of them; without a rate all are hit. If several faults hit a request, the first one
is played. If a request breaks a rule of the provider, the simulator answers according to that rule: a fault may then
shape or disturb the transmission, but does not replace the answer.

Actions
    STATUS [REASON]       this answer: 429, 410 Unregistered, 503 Shutdown; the reason has a default for usual statuses
    ok                    the right answer; for options that shape it: ok,delay=200
    silence               no answer
    reset [CODE]          RST_STREAM (INTERNAL_ERROR): REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, or a number
    goaway [REASON]       GOAWAY; this stream and older ones are answered, then the link closes
    drain [REASON]        GOAWAY in two steps: a warning (2^31-1), and after ms=100 the real last stream
    cut                   the TCP connection is reset (with fin: closed in order), the answer is not sent
    freeze SECONDS        the connection neither reads nor writes for SECONDS, then continues
    settings NAME VALUE   the right answer; announces a setting (MAX_CONCURRENT_STREAMS 1), after ms=1000 the old value

Options
    once                  at most once for each request id, so that a retry succeeds
    times=N               at most N times in all
    retry-after=S         header of the answer (seconds, or an HTTP date without a comma)
    timestamp=MS          member of the error body (410)
    delay=MS              the answer or the fault comes MS later
    delivered             the push counts as delivered although the fault hides it (silence, reset, cut)
    continuation[=SIZE]   header block in fragments of SIZE bytes (10)
    padding=N             padded HEADERS and DATA
    interim=STATUS        an informational answer before the answer (103)
    trailers              a trailing header block after the answer
    code=CODE             error code of GOAWAY (NO_ERROR)
    unprocessed           GOAWAY leaves out this stream and newer ones: the sender has to send them again
    ms=N                  see drain and settings
    fin                   see cut
    octets=N              cut and freeze happen in the middle of a frame: after the first N octets of the right answer
    body=TEXT             raw body instead of the JSON one, as text/html (last option: takes the rest of the line)
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from pusher.sim.http2_link import ALL_STREAMS, Link, Reply, Request
from pusher.sim.schedule import Schedule
from pusher.sim.shape import PLAIN, Shape


class FaultSyntaxError(ValueError):
    """A fault line that does not follow the grammar; the message says what is wrong."""


@dataclass(frozen=True)
class Fault:
    """One line of the script. `text` is the line itself, the key under which the fault is counted."""

    text: str
    action: str
    arguments: tuple[str, ...] = ()
    prefix: str = ""
    rate: float = 1.0
    every: int = 0
    once: bool = False
    times: int = 0
    retry_after: str = ""
    timestamp_ms: int | None = None
    delay_s: float = 0.0
    delivered: bool = False
    shape: Shape = PLAIN
    code: int = 0
    unprocessed: bool = False
    step_s: float | None = None
    fin: bool = False
    octets: int = 0
    body: bytes | None = None

    @property
    def status(self) -> int:
        """Status of the answer it gives instead of the right one; 0 when it gives none."""
        return int(self.action) if self.action.isdigit() else 0

    @property
    def reason(self) -> str:
        """The words after the action."""
        return " ".join(self.arguments)

    def answers(self, request: Request) -> bool:
        """Whether the sender gets an answer to this request."""
        if self.unprocessed:
            return request.stream_id < request.link.highest_served
        return self.action not in {"silence", "reset", "cut"}


class Faults:
    """The script with its dice (seeded, so that a run can be repeated) and its memory of what was played."""

    REMEMBERED_IDS = 1_000_000

    def __init__(self, script: Sequence[str] = (), seed: int = 0) -> None:
        self.script = tuple(parse(line) for line in script)
        self._random = random.Random(seed)
        self._seen: Counter[str] = Counter()
        self._played: Counter[str] = Counter()
        self._once: set[tuple[str, str]] = set()

    def pick(self, target: str, request_id: str) -> Fault | None:
        """The fault for a request to this device token, or None."""
        for fault in self.script:
            if target.startswith(fault.prefix) and self._hits(fault) and self._may_play(fault, request_id):
                return fault
        return None

    def _hits(self, fault: Fault) -> bool:
        if fault.every:
            self._seen[fault.text] += 1
            return self._seen[fault.text] % fault.every == 0
        return fault.rate >= 1 or self._random.random() < fault.rate

    def _may_play(self, fault: Fault, request_id: str) -> bool:
        if fault.times and self._played[fault.text] >= fault.times:
            return False
        if fault.once:
            key = (fault.text, request_id)
            if key in self._once or len(self._once) >= self.REMEMBERED_IDS:
                return False
            self._once.add(key)
        self._played[fault.text] += 1
        return True


def parse(text: str) -> Fault:
    """Reads one line. Raises FaultSyntaxError."""
    line = text.strip()
    prefix = ""
    if line.startswith("prefix="):
        prefix, _, line = line.removeprefix("prefix=").partition(":")
    line, has_body, body = line.partition(",body=")
    head, *options = line.split(",")
    action_text, _, rate_text = head.partition(":")
    action, *arguments = action_text.split() or [""]
    _check_action(text, action, arguments)
    rate, every = _rate(text, rate_text.strip())
    fault = Fault(text, action, tuple(arguments), prefix, rate, every, body=body.encode() if has_body else None)
    for option in options:
        fault = _with_option(fault, option.strip())
    if fault.octets and (fault.action not in {"cut", "freeze"} or fault.fin):
        raise FaultSyntaxError(f"{text!r}: octets belongs to cut, without fin, and to freeze")
    if fault.unprocessed and (fault.action != "goaway" or fault.delay_s):
        raise FaultSyntaxError(f"{text!r}: unprocessed belongs to a goaway without delay")
    return fault


def _check_action(text: str, action: str, arguments: Sequence[str]) -> None:
    fewest, most = _ARGUMENTS.get("STATUS" if action.isdigit() else action, (1, 0))
    if not fewest <= len(arguments) <= most:
        raise FaultSyntaxError(f"{text!r}: no such action, or wrong arguments")
    if action == "reset" and arguments:
        _error_code(arguments[0])
    if action == "freeze" and not arguments[0].replace(".", "", 1).isdigit():
        raise FaultSyntaxError(f"{text!r}: freeze takes a number of seconds")
    if action == "settings" and (arguments[0] not in SettingCodes.__members__ or not arguments[1].isdigit()):
        raise FaultSyntaxError(f"{text!r}: settings takes a name, such as MAX_CONCURRENT_STREAMS, and a number")


#: Fewest and most words after each action.
_ARGUMENTS = {
    "STATUS": (0, 1),
    "ok": (0, 0),
    "silence": (0, 0),
    "reset": (0, 1),
    "goaway": (0, 1),
    "drain": (0, 1),
    "cut": (0, 0),
    "freeze": (1, 1),
    "settings": (2, 2),
}


def _rate(text: str, rate: str) -> tuple[float, int]:
    try:
        if rate.startswith("1/"):
            return 1.0, _number(rate[2:], 1, sys.maxsize)
        share = float(rate or 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise FaultSyntaxError(f"{text!r}: a rate is a share such as 0.05, or 1/N")
    return share, 0


def _with_option(fault: Fault, option: str) -> Fault:
    name, _, value = option.partition("=")
    change = _OPTIONS.get(name)
    if change is None:
        raise FaultSyntaxError(f"{fault.text!r}: no such option: {name}")
    try:
        return replace(fault, **change(fault, value))
    except FaultSyntaxError:
        raise
    except ValueError:
        raise FaultSyntaxError(f"{fault.text!r}: {name} does not take {value!r}") from None


_OPTIONS: dict[str, Callable[[Fault, str], dict[str, Any]]] = {
    "once": lambda _fault, _value: {"once": True},
    "times": lambda _fault, value: {"times": int(value)},
    "retry-after": lambda _fault, value: {"retry_after": value},
    "timestamp": lambda _fault, value: {"timestamp_ms": int(value)},
    "delay": lambda _fault, value: {"delay_s": float(value) / 1000},
    "delivered": lambda _fault, _value: {"delivered": True},
    "continuation": lambda fault, value: {"shape": replace(fault.shape, continuation=_number(value or "10", 1, 16384))},
    "padding": lambda fault, value: {"shape": replace(fault.shape, padding=_number(value, 1, 255))},
    "interim": lambda fault, value: {"shape": replace(fault.shape, interim=_number(value or "103", 102, 199))},
    "trailers": lambda fault, _value: {"shape": replace(fault.shape, trailers=True)},
    "code": lambda _fault, value: {"code": _error_code(value)},
    "unprocessed": lambda _fault, _value: {"unprocessed": True},
    "ms": lambda _fault, value: {"step_s": float(value) / 1000},
    "fin": lambda _fault, _value: {"fin": True},
    "octets": lambda _fault, value: {"octets": _number(value, 1, 16384)},
}


def _number(text: str, least: int, most: int) -> int:
    """An integer within bounds. Raises ValueError."""
    number = int(text)
    if not least <= number <= most:
        raise ValueError(text)
    return number


def _error_code(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return ErrorCodes[text]
    except KeyError:
        raise FaultSyntaxError(f"{text!r} is no HTTP/2 error code") from None


def replacement(fault: Fault, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> Reply:
    """The answer of a STATUS fault, from the provider's own headers and error body (empty: a proxy's page)."""
    raw = fault.body if fault.body is not None else b"" if body else b"<html><h1>%d</h1></html>" % fault.status
    kind = (b"content-type", b"text/html" if raw or fault.body is not None else b"application/json")
    if fault.retry_after:
        headers = (*headers, (b"retry-after", fault.retry_after.encode()))
    return Reply(fault.status, (*headers, kind), raw if fault.body is not None else raw or body)


def play(fault: Fault, request: Request, answer: Reply, schedule: Schedule) -> None:
    """Does the fault to this request. `answer` is the right answer or, for a STATUS fault, the one it calls for."""
    shaped = replace(answer, shape=fault.shape)
    perform = _ACTIONS.get(fault.action, _answer)
    if fault.delay_s:
        schedule.after(fault.delay_s, perform, fault, request, shaped)
    else:
        perform(fault, request, shaped)


def _answer(_fault: Fault, request: Request, answer: Reply) -> None:
    request.link.respond(request.stream_id, answer)


def _silence(_fault: Fault, request: Request, _answer: Reply) -> None:
    request.link.abandon()


def _reset(fault: Fault, request: Request, _answer: Reply) -> None:
    request.link.reset(request.stream_id, _error_code(fault.arguments[0]) if fault.arguments else 2)


def _goaway(fault: Fault, request: Request, answer: Reply) -> None:
    link = request.link
    last_stream_id = link.highest_served if fault.unprocessed else link.highest_stream_id
    if fault.answers(request):
        link.respond(request.stream_id, answer)
    link.goaway(last_stream_id, fault.code, _debug(fault))


def _drain(fault: Fault, request: Request, answer: Reply) -> None:
    link = request.link
    link.goaway(ALL_STREAMS, fault.code, _debug(fault))
    link.respond(request.stream_id, answer)
    link.service.schedule.after(0.1 if fault.step_s is None else fault.step_s, _drain_ends, fault, link)


def _drain_ends(fault: Fault, link: Link) -> None:
    link.goaway(link.highest_stream_id, fault.code, _debug(fault))


def _cut(fault: Fault, request: Request, answer: Reply) -> None:
    if fault.fin:
        request.link.close()
    elif fault.octets:
        request.link.tear(request.stream_id, answer, fault.octets, request.link.cut)
    else:
        request.link.cut()


def _freeze(fault: Fault, request: Request, answer: Reply) -> None:
    freeze = partial(request.link.freeze, float(fault.arguments[0]))
    if fault.octets:
        request.link.tear(request.stream_id, answer, fault.octets, freeze)
    else:
        freeze()
        request.link.respond(request.stream_id, answer)


def _settings(fault: Fault, request: Request, answer: Reply) -> None:
    name, value = fault.arguments
    request.link.announce(SettingCodes[name], int(value), 1.0 if fault.step_s is None else fault.step_s)
    request.link.respond(request.stream_id, answer)


_ACTIONS: dict[str, Callable[[Fault, Request, Reply], None]] = {
    "silence": _silence,
    "reset": _reset,
    "goaway": _goaway,
    "drain": _drain,
    "cut": _cut,
    "freeze": _freeze,
    "settings": _settings,
}


def _debug(fault: Fault) -> bytes:
    return orjson.dumps({"reason": fault.reason}) if fault.arguments else b""
