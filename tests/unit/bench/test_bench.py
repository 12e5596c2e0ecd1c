from __future__ import annotations

import contextlib
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from uuid import uuid4

import pytest

from bench import topics
from bench.chart import Axis, chart
from bench.document import markdown, rewrite
from bench.goals import GOALS, Goal
from bench.growth import SERIES
from bench.growth_report import CHARTS, PAGE, TABLES
from bench.measurements import MEASUREMENTS, ONCE, PROFILED
from bench.results import Results
from lab.kafka.admin import create_topic

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def topic() -> str:
    return f"bench-{uuid4().hex}"


def test_every_goal_is_measured() -> None:
    assert {goal.figure.partition(".")[0] for goal in GOALS} == set(MEASUREMENTS)
    assert {*ONCE, *PROFILED} <= set(MEASUREMENTS)


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("CPU", "apns.cpu_us", "us", at_most=60), 60.0, True),
        (Goal("CPU", "apns.cpu_us", "us", at_most=60), 60.1, False),
        (Goal("rate", "apns.rate_s", "pushes/s", at_least=15_000), 15_000.0, True),
        (Goal("rate", "apns.rate_s", "pushes/s", at_least=15_000), 14_999.0, False),
        (Goal("CPU", "apns.cpu_us", "us", at_most=60), float("nan"), False),
    ],
)
def test_what_meets_a_goal(goal: Goal, value: float, met: bool) -> None:
    assert goal.met(value) is met


def test_cpu_time_is_scaled_to_an_idle_machine_and_nothing_else_is() -> None:
    cpu, memory = Goal("CPU", "apns.cpu_us", "us", at_most=31), Goal("memory", "apns.peak_mb", "MB", at_most=85)
    results = Results("python -m bench", 100)
    for reference_s, cpu_us in ((0.19, 30.0), (0.38, 61.0), (0.38, 58.0)):
        results.add("apns", reference_s, {"cpu_us": cpu_us, "peak_mb": 90.0})
    assert results.scaled(cpu) == pytest.approx(30.0)
    assert results.met(cpu)
    assert results.scaled(memory) is None
    assert not results.met(memory)


@pytest.mark.parametrize(
    ("figure", "is_cpu_time"),
    [("rates.cpu_10", True), ("rates.idle_cpu", True), ("rates.p50_10", False), ("apps.growth", False)],
)
def test_which_figures_are_cpu_time(figure: str, is_cpu_time: bool) -> None:
    assert Goal("some", figure, "%").is_cpu_time is is_cpu_time


def test_every_series_has_a_chart_a_table_and_its_place_in_the_page() -> None:
    assert set(SERIES) == set(CHARTS) == set(TABLES)
    page = PAGE.read_text()
    assert set(re.findall(r"<!-- growth (\w+) -->", page)) == {*SERIES, "sizing"}


def test_every_chart_of_the_page_is_there() -> None:
    images = re.findall(r"\]\((images/growth[^)]*)\)", PAGE.read_text())
    assert len(images) == 8
    assert [image for image in images if not (PAGE.parent / image).exists()] == []


def test_section_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- part -->\nold\n<!-- /part -->\nafter\n")
    for text in ("first", "second"):
        rewrite(page, "part", text)
    assert page.read_text() == "before\n<!-- part -->\n\nsecond\n\n<!-- /part -->\nafter\n"


def test_section_without_its_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- part -->\nno end\n")
    with pytest.raises(ValueError, match="no section part"):
        rewrite(page, "part", "text")
    assert page.read_text() == "<!-- part -->\nno end\n"


def test_table_is_padded() -> None:
    assert markdown([["a", "wide"], ["12", "3"]]) == "| a  | wide |\n|----|------|\n| 12 | 3    |"


@pytest.mark.parametrize("logarithmic", [False, True])
def test_chart_places_its_points(logarithmic: bool) -> None:
    axis = Axis("x & y", logarithmic=logarithmic)
    drawing = ET.fromstring(chart("title", axis, axis, {"up": [(1, 1), (10, 10)]}, {"up": [(1, 10), (10, 10)]}))
    rising, limit = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in drawing.iter(f"{SVG}polyline")
    )
    assert rising[0][0] < rising[1][0]
    assert rising[0][1] > rising[1][1], "larger values are higher up"
    assert limit[0][1] == limit[1][1] == rising[1][1]
    assert len(list(drawing.iter(f"{SVG}circle"))) == 2


def test_chart_of_a_single_value_has_an_axis() -> None:
    axis = Axis("x", logarithmic=True)
    assert "NaN" not in chart("title", axis, Axis("y"), {"one": [(10, 0)]})


@pytest.mark.integration
def test_filled_topic_is_read_as_any_other(kafka_brokers: str, topic: str) -> None:
    create_topic(kafka_brokers, topic, partitions=3)
    with contextlib.closing(topics.Watcher(kafka_brokers, topic)) as watcher:
        texts = [f'{{"n": {number}, "pad": "{"x" * 3000}"}}' for number in range(1_200)]
        assert topics.fill(kafka_brokers, topic, texts, copies=2) == 2_400
        assert watcher.count() == 2_400
        now_ms = time.time() * 1000
        found = list(watcher.read())
    assert sorted(message.members["n"] for message in found) == sorted([*range(1_200)] * 2)
    assert all(abs(message.time_ms - now_ms) < 60_000 for message in found)


@pytest.mark.integration
def test_messages_at_a_rate_are_all_stored(kafka_brokers: str, topic: str) -> None:
    create_topic(kafka_brokers, topic, partitions=3)
    with contextlib.closing(topics.Watcher(kafka_brokers, topic)) as watcher:
        topics.write(kafka_brokers, topic, (f'{{"n": {number}}}' for number in range(200)), rate_s=1_000)
        deadline = time.monotonic() + 30
        while watcher.count() < 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        found = list(watcher.read())
    assert sorted(message.members["n"] for message in found) == list(range(200))


@pytest.mark.integration
def test_batch_that_kafka_refuses_is_an_error(kafka_brokers: str, topic: str) -> None:
    create_topic(kafka_brokers, topic, partitions=1, max_message_bytes="1000")
    with pytest.raises(RuntimeError, match="Kafka refuses"):
        topics.fill(kafka_brokers, topic, ["x" * 5_000])
