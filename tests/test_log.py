import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator

import pytest

from pusher.telemetry import log as log_module
from pusher.telemetry.log import Seldom, logger

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
    assert log.debugging() is (level == "debug")


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
    assert len(seldom._seen) <= 1_000
