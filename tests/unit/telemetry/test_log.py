import fcntl
import io
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator

import gevent
import pytest

from pusher.telemetry import log as log_module
from pusher.telemetry.log import Seldom, logger
from pusher.telemetry.writer import LineWriter

log = logger("pusher.somewhere")


@pytest.fixture
def written() -> Iterator[Callable[..., list[str]]]:
    """Sets logging up on a stream of its own; calling it again gives the lines so far."""
    root = logging.getLogger()
    level, libraries = root.level, {name: logging.getLogger(name).level for name in log_module._LIBRARIES}
    stream = io.StringIO()

    def lines(level: str = "", *, as_json: bool = False) -> list[str]:
        if level:
            log_module.setup(level, as_json=as_json, stream=stream)
        return stream.getvalue().splitlines()

    yield lines
    logging.captureWarnings(capture=False)
    for handler in root.handlers[:]:
        if getattr(handler, "stream", None) is stream:
            root.removeHandler(handler)
    root.setLevel(level)
    for name, number in libraries.items():
        logging.getLogger(name).setLevel(number)


Written = Callable[..., list[str]]
TIME = r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"'


def test_text_lines(written: Written) -> None:
    written("info")
    log.info("flushing stats", method="logStats", game="game", sentMessages=5, ok=True, share=0.5, nothing=None)
    (line,) = written()
    assert re.fullmatch(
        TIME
        + r' level=info msg="flushing stats" method=logStats game=game sentMessages=5 ok=true share=0.5 nothing=None',
        line,
    )


def test_json_lines(written: Written) -> None:
    written("info", as_json=True)
    log.warning("hé", game="game", number=5, msg="mine", error=OSError("gone"))
    (line,) = written()
    found = json.loads(line)
    assert re.fullmatch(TIME, f'time="{found.pop("time")}"')
    assert found == {
        "level": "warning", "msg": "hé", "game": "game", "number": 5, "fields.msg": "mine", "error": "gone",
    }  # fmt: skip
    assert list(json.loads(line)) == sorted(json.loads(line))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", '"a b"'),
        ("", '""'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines\r\n", r'"two\nlines\r\n"'),
        ('x" level=error msg="forged', r'"x\" level=error msg=\"forged"'),
        ("\x1b[31mred\x07", r'"\x1b[31mred\x07"'),
        ("\x85next\x9b", r'"\x85next\x9b"'),
        ("line\u2028sep\u202e", r'"line\u2028sep\u202e"'),
        ("lone\ud800", r'"lone\ud800"'),
        ("tag\U000e0001", r'"tag\U000e0001"'),
        ("Ümläut 推", '"Ümläut 推"'),
        ("push-game_apns-single", "push-game_apns-single"),
        ("host:8125", "host:8125"),
        ("a=b", '"a=b"'),
    ],
)
def test_nothing_breaks_a_text_line(written: Written, text: str, shown: str) -> None:
    written("info")
    log.info(text, field=text)
    (line,) = written()
    message = shown if shown.startswith('"') else f'"{shown}"'
    assert line.endswith(f" level=info msg={message} field={shown}")
    assert line.encode()


def test_nothing_breaks_a_json_line(written: Written) -> None:
    written("info", as_json=True)
    text = 'a\n"b"\x1b\u2028\ud800'
    log.info(text, **{text: text})
    (line,) = written()
    assert line.isascii()
    assert json.loads(line)["msg"] == json.loads(line)[text] == text


def test_names_of_fields_cannot_forge_fields(written: Written) -> None:
    written("info")
    log.info("m", **{'a=1 level="x"\n': 2, "interval(ns)": 3})
    assert written()[0].endswith(r'msg="m" "a=1 level=\"x\"\n"=2 interval(ns)=3')


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
        ("fatal", []),
        ("panic", []),
    ],
)
def test_levels(written: Written, level: str, expected: list[str]) -> None:
    written(level)
    for write in (log.debug, log.info, log.warning, log.error):
        write("x")
    assert [line.split("level=")[1].split()[0] for line in written()] == expected


def test_percent_signs_are_text(written: Written) -> None:
    written("info")
    log.info("100 % of %s", share="5%d")
    assert written()[0].endswith('msg="100 % of %s" share="5%d"')


def test_the_trace_of_an_exception_stays_in_its_line(written: Written) -> None:
    written("info")
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("failed", step="x")
    (line,) = written()
    assert 'msg="failed" step=x exception="Traceback (most recent call last):\\n' in line
    assert line.endswith('ValueError: a\\nb"')


def test_setting_up_again_replaces_the_handler(written: Written) -> None:
    written("info")
    written("info", as_json=True)
    log.info("once")
    (line,) = written()
    assert json.loads(line)["msg"] == "once"


def test_what_libraries_call_information_is_debug(written: Written) -> None:
    written("info")
    logging.getLogger("kafka.coordinator").info("chat")
    assert written() == []
    written("debug")
    logging.getLogger("kafka.coordinator").debug("noise")
    logging.getLogger("kafka.coordinator").info("chat %s", 1)
    (line,) = written()
    assert line.endswith(' level=debug msg="chat 1"')


def test_what_libraries_call_a_fault_and_is_none_is_debug(written: Written) -> None:
    def say() -> None:
        logging.getLogger("kafka.cluster").error("Topic %s not found in cluster metadata", "push-game_apns")
        logging.getLogger("kafka.net.selector").warning("Task 'x' ran for 0.2s: it is blocking the event loop")

    written("info")
    say()
    assert written() == []
    written("debug")
    say()
    assert [line.split()[1] for line in written()] == ["level=debug", "level=debug"]


def test_what_libraries_repeat_is_written_once(written: Written) -> None:
    written("info")
    for number in range(5):
        logging.getLogger("kafka.conn").error("connection %d failed", number)
        logging.getLogger("kafka.conn").warning("something else")
        logging.getLogger("pusher.providers.http2.pool").warning("%s: no link", number)
    lines = written()
    assert sum("connection 0 failed" in line for line in lines) == 1
    assert sum("something else" in line for line in lines) == 1
    assert sum("no link" in line for line in lines) == 5
    assert len(lines) == 7


def test_a_library_may_not_be_louder_than_asked(written: Written) -> None:
    written("error")
    logging.getLogger("kafka.conn").warning("w")
    logging.getLogger("kafka.conn").error("e")
    assert [line.split("msg=")[1] for line in written()] == ['"e"']


def test_warnings_of_python_are_log_lines(written: Written) -> None:
    written("info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old\nway", UserWarning, stacklevel=1)
    (line,) = written()
    assert "level=warning" in line
    assert "UserWarning: old\\nway" in line


def test_seldom_writes_a_line_a_period_and_counts_what_it_left_out(written: Written) -> None:
    written("info")
    now = [0.0]
    seldom = Seldom(log, period_s=60, clock=lambda: now[0])
    for at in (0, 1, 59.9, 60, 61, 200):
        now[0] = at
        seldom.error("key", "refused", at=at)
        seldom.warning(("key", 2), "other", at=at)
    assert [line.split("msg=")[1] for line in written() if "refused" in line] == [
        '"refused" at=0',
        '"refused" at=60 left_out=2',
        '"refused" at=200 left_out=1',
    ]
    assert sum("other" in line for line in written()) == 3


def test_seldom_remembers_a_bounded_number_of_keys() -> None:
    seldom = Seldom(log, period_s=60, clock=lambda: 0.0)
    for number in range(5_000):
        seldom.turn(number)
    assert len(seldom._windows) <= 1_000


def test_the_first_five_lines_of_a_key_are_written_and_then_their_number(written: Written) -> None:
    written("info")
    now = 0.0
    few = Seldom(log, period_s=60, first=5, clock=lambda: now)
    for number in range(20_000):
        few.warning(("game", "not-json"), "message can never be sent", offset=number)
    few.tell_left_out()
    assert len(written()) == 5
    now = 60.0
    few.tell_left_out()
    few.tell_left_out()
    assert len(written()) == 6
    assert 'line="message can never be sent" about="game not-json" left_out=19995' in written()[-1]
    few.warning(("game", "not-json"), "message can never be sent", offset=1)
    assert "left_out" not in written()[-1]


@pytest.mark.parametrize("as_json", [False, True])
def test_fields_messages_and_traces_of_any_length_make_a_short_line(written: Written, as_json: bool) -> None:
    written("info", as_json=as_json)
    log.error("m" * 900_000, error="e" * 900_000, other=OSError("o" * 900_000))
    try:
        raise ValueError("v" * 900_000)
    except ValueError:
        log.exception("failed")
    assert len(written()) == 2
    assert max(map(len, written())) < 2_000


@pytest.mark.parametrize("as_json", [False, True])
def test_an_exception_that_nobody_catches_is_a_line(written: Written, as_json: bool) -> None:
    written("info", as_json=as_json)
    gevent.spawn(int, "x").join()
    thread = threading.Thread(target=int, args=("y",))
    thread.start()
    thread.join()
    assert len(written()) == 2
    assert all("invalid literal" in line for line in written())


def pipe_of(octets: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, octets)
    return reading, writing


def lines_from(reading: int, until: bytes) -> list[bytes]:
    """Reads in a thread, so that the test's own greenlets go on."""
    text = b""
    while until not in text:
        text += gevent.get_hub().threadpool.apply(os.read, (reading, 1 << 16))
    return text.splitlines()


@pytest.mark.parametrize("octets", [4_096, 65_536])
def test_a_reader_that_stands_still_stops_nobody_and_hears_later_what_is_missing(octets: int) -> None:
    reading, writing = pipe_of(octets)
    writer = LineWriter(writing, lambda number: b"%d missing\n" % number, max_waiting=100_000)
    for number in range(50_000):
        writer.write(b"line %05d\n" % number)
    assert not writer.flush(0.1)
    read = gevent.spawn(lines_from, reading, b"last\n")
    assert writer.flush(30)
    writer.write(b"last\n")
    lines = read.get(timeout=30)
    missing = [int(line.split()[0]) for line in lines if line.endswith(b"missing")]
    assert missing
    assert lines[-1] == b"last"
    assert len(lines) - 1 - len(missing) + sum(missing) == 50_000
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_lines_for_nobody_are_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, lambda number: b"")
    for _ in range(3):
        writer.write(b"x" * 100_000)
        assert writer.flush(5)
    os.close(writing)
