"""Runs pusher under a sampling profiler: `profiled.py REPORT [pusher's arguments]`.

SIGURG starts sampling, SIGUSR2 ends it and writes REPORT (JSON: samples a part, and of the busiest functions). At most
one sample a millisecond of CPU time is taken; it belongs to the innermost part of the work that its stack shows.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
INTERVAL_S = 0.001

#: Text in the path of a source file -> the part of the work; the first row that matches decides, or the caller with "".
PARTS = (
    ("/kafka/consumer/", "kafka in"),
    ("/kafka/coordinator/", "kafka in"),
    ("/kafka/producer/", "kafka out"),
    ("/site-packages/h2/", "http2"),
    ("/site-packages/hpack/", "http2"),
    ("/site-packages/hyperframe/", "http2"),
    ("/gevent/ssl.py", "ssl"),
    ("/gevent/_ssl", "ssl"),
    ("/site-packages/", ""),
    ("/pusher/providers/http2/", "http2"),
    ("/pusher/broker/offsets.py", "tracking"),
    ("/pusher/broker/kafka/records.py", ""),  # read by the consumer, written by the producer
    ("/pusher/broker/kafka/client.py", ""),
    ("/pusher/broker/kafka/publisher.py", "kafka out"),
    ("/pusher/broker/", "kafka in"),
    ("/pusher/daemon/consuming.py", "kafka in"),
    ("/pusher/push/push.py", "parse"),
    ("/pusher/push/topics.py", "parse"),
    ("/pusher/push/feedback", "feedback"),
    ("/pusher/providers/apns/feedback", "feedback"),
    ("/pusher/providers/google/feedback", "feedback"),
    ("/pusher/providers/apns/", "apns"),
    ("/pusher/providers/google/xmpp/", "gcm"),
    ("/pusher/providers/google/fcm/", "fcm"),
    ("/pusher/telemetry/", "stats"),
    ("/pusher/", "pipeline"),
)

#: the same for a stack in which no frame's own row tells
SHARED = (("/kafka/", "kafka, both ways"), ("/gevent/", "gevent"))

parts: Counter[str] = Counter()
functions: Counter[str] = Counter()
_part_of_file: dict[str, str] = {}


def sample(_number: int, frame: FrameType | None) -> None:
    """Count the stack that the timer's signal interrupted."""
    stack = list(frames(frame))
    part = next((part for part in map(part_of, stack) if part), None) or shared_part(stack)
    parts[part] += 1
    code = stack[0].f_code if stack else sample.__code__
    functions[f"{part}: {'/'.join(Path(code.co_filename).parts[-2:])} {code.co_qualname}"] += 1


def shared_part(stack: list[FrameType]) -> str:
    """The part of a stack in which no frame tells: the hub's loop, Kafka's connections, the program itself."""
    paths = " ".join(frame.f_code.co_filename for frame in stack)
    return next((part for text, part in SHARED if text in paths), "other")


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """A stack from the inside out."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def part_of(frame: FrameType) -> str:
    """The part that a frame's source file belongs to; "" when its caller decides."""
    path = frame.f_code.co_filename
    if path not in _part_of_file:
        _part_of_file[path] = next((part for text, part in PARTS if text in path), "")
    return _part_of_file[path]


def main() -> None:
    """Run pusher.py with the rest of the command line."""
    report = Path(sys.argv[1])

    def begin(*_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def end(*_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        finished = report.with_suffix(".partial")
        finished.write_text(json.dumps({"parts": parts, "functions": dict(functions.most_common(40))}))
        finished.rename(report)

    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGURG, begin)
    signal.signal(signal.SIGUSR2, end)
    sys.argv = [str(ROOT / "pusher.py"), *sys.argv[2:]]
    sys.path[0] = str(ROOT)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
