"""The soak's own account, verdict and chart, without a soak."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tests.faults.ledger import DELIVERED, FAILED, REJECTED
from tests.faults.soak.account import Account, read_feedback
from tests.faults.soak.chart import axis, draw, panels, rates, smooth
from tests.faults.soak.samples import Metrics
from tests.faults.soak.streams import Stream
from tests.faults.soak.verdict import TOLERANCES, flatness

APPLE_200 = (
    b'{"Sent":true,"StatusCode":200,"Reason":"","ApnsID":"a-b","Err":null,"DeviceToken":"00ff","timestamp":17,'
    b'"metadata":{"at":1700000000123,"deviceToken":"00ff","game":"game","hostname":"h","number":41,"platform":"apns"}}'
)
GOOGLE_NACK = (
    b'{"from":"0","message_id":"a","message_type":"nack","error":"DEVICE_UNREGISTERED",'
    b'"metadata":{"at":1700000000123,"number":41}}'
)
METRICS = """# HELP pusher_consumed_total Messages read.
# TYPE pusher_consumed_total counter
pusher_consumed_total{game="game",platform="apns"} 1200.0
pusher_consumed_total{game="quiz",platform="apns"} 3.0
pusher_outcomes_total{game="game",outcome="delivered",platform="apns"} 1000.0
pusher_outcomes_total{game="game",outcome="rejected",platform="apns"} 200.0
pusher_outcomes_total{game="game",outcome="expired",platform="apns"} 0.0
pusher_num_goroutine{hostname="pod"} 28.0
pusher_poll_age_seconds 1.5e-05
"""


def account_of(messages: int, dead_every: int = 10) -> Account:
    account = Account(dead_every)
    assert [account.produce() for _ in range(messages)] == list(range(messages))
    return account


def settle_all(account: Account) -> None:
    for number in range(account.produced):
        account.settle(number, REJECTED if account.is_dead(number) else DELIVERED)


def test_a_full_account_is_good() -> None:
    account = account_of(1000)
    settle_all(account)
    totals = account.totals()
    assert totals.good
    assert (totals.messages, totals.missing, totals.repeats) == (1000, 0, 0)
    assert totals.outcomes == {DELIVERED: 900, REJECTED: 100}


def test_a_lost_message_is_found() -> None:
    account = account_of(1000)
    for number in range(1000):
        if number != 567:
            account.settle(number, REJECTED if account.is_dead(number) else DELIVERED)
    assert account.settled == 999
    assert account.totals().missing == 1
    assert account.missing() == [567]
    assert not account.totals().good


def test_repeats_are_counted_however_many_and_forgiven() -> None:
    account = account_of(20)
    settle_all(account)
    for _ in range(40):
        account.settle(3, DELIVERED)
    totals = account.totals()
    assert totals.repeats == 40
    assert totals.outcomes == {DELIVERED: 18, REJECTED: 2}
    assert totals.good


@pytest.mark.parametrize("second", [FAILED, REJECTED])
def test_two_classes_of_one_message_are_not_forgiven(second: str) -> None:
    account = account_of(20)
    settle_all(account)
    account.settle(3, second)
    assert account.totals().mixed == 1
    assert not account.totals().good


def test_a_failure_is_an_outcome() -> None:
    account = account_of(1)
    account.settle(0, FAILED)
    assert account.totals().good
    assert account.totals().outcomes == {FAILED: 1}


@pytest.mark.parametrize(("number", "kind"), [(3, REJECTED), (9, DELIVERED)])
def test_the_wrong_class_for_a_token_is_found(number: int, kind: str) -> None:
    account = account_of(20)
    for each in range(20):
        right = REJECTED if account.is_dead(each) else DELIVERED
        account.settle(each, kind if each == number else right)
    assert account.totals().wrong == 1
    assert not account.totals().good


def test_a_number_that_was_never_produced_is_refused() -> None:
    with pytest.raises(ValueError, match="never produced: 5"):
        account_of(5).settle(5, DELIVERED)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (APPLE_200, DELIVERED),
        (APPLE_200.replace(b'"Sent":true,"StatusCode":200', b'"Sent":false,"StatusCode":410'), REJECTED),
        (APPLE_200.replace(b'"Sent":true,"StatusCode":200', b'"Sent":false,"StatusCode":503'), FAILED),
        (b'{"from":"0","message_id":"a","message_type":"ack","metadata":{"at":1700000000123,"number":41}}', DELIVERED),
        (GOOGLE_NACK, REJECTED),
    ],
)
def test_feedbacks_are_read(value: bytes, kind: str) -> None:
    assert read_feedback(value) == (41, kind, 1_700_000_000_123)


def test_a_feedback_of_somebody_else_is_refused() -> None:
    with pytest.raises(ValueError, match="of no message"):
        read_feedback(b'{"Sent":true,"metadata":{}}')


def test_latency_is_taken_once() -> None:
    stream = Stream("game", "apns", 100)
    for _ in range(42):
        stream.message(1_700_000_000_123)
    stream.feed_back(APPLE_200, 1_700_000_000_173)
    assert stream.take_latencies() == [50]
    assert stream.take_latencies() == []


def test_metrics_are_added_up() -> None:
    metrics = Metrics(METRICS)
    assert metrics.total("pusher_consumed_total") == 1203
    assert metrics.total("pusher_consumed_total", game="game") == 1200
    assert metrics.total("pusher_poll_age_seconds") == 1.5e-05
    assert metrics.by("pusher_outcomes_total", "outcome", game="game") == {"delivered": 1000, "rejected": 200}


def samples_of(**figures: Any) -> list[dict[str, Any]]:
    """An hour, one every 10 s; a figure is a function of the minute."""
    samples = []
    for number in range(1, 361):
        minute = number / 6
        daemon = {"rss_mb": 90.0, "fds": 16, "greenlets": 28.0, "blocks": 250_000.0, "cpu": 0.4}
        daemon |= {name: figure(minute) for name, figure in figures.items() if name in daemon}
        latency = {"p50_ms": 50.0, "p99_ms": 200.0}
        latency |= {name: figure(minute) for name, figure in figures.items() if name in latency}
        events = ["kill -9 of Kafka, and restart"] if number % 90 == 0 else []
        samples.append(
            {
                "at_s": number * 10.0,
                "settled": number * 20_000,
                "load": 1.5,
                "daemons": {"apns": daemon},
                "latency": {"game (apns)": latency},
                "events": events,
            }
        )
    return samples


def test_flat_figures_are_flat() -> None:
    found = flatness(samples_of())
    assert {figure.name for figure in found} == set(TOLERANCES)
    assert all(figure.good for figure in found)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("rss_mb", lambda minute: 90 + minute / 4),
        ("fds", lambda minute: 16 + minute // 12),
        ("greenlets", lambda minute: 28 + minute // 4),
        ("blocks", lambda minute: 250_000 + minute * 1000),
        ("p99_ms", lambda minute: 200 + minute * 10),
    ],
)
def test_what_grows_is_found(name: str, figure: Any) -> None:
    assert [found.name for found in flatness(samples_of(**{name: figure})) if not found.good] == [name]


@pytest.mark.parametrize("name", ["rss_mb", "p99_ms"])
def test_the_first_minutes_and_short_peaks_do_not_count(name: str) -> None:
    usual = {"rss_mb": 90, "p99_ms": 200}[name]
    peaks = samples_of(**{name: lambda minute: usual * 20 if 50 <= minute < 52 else usual * min(minute, 10) / 10})
    assert all(figure.good for figure in flatness(peaks))


def test_the_chart_is_svg_with_all_panels_and_lines() -> None:
    samples = samples_of()
    picture = ElementTree.fromstring(draw(samples))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{space}svg"
    lines = [line for panel in panels(samples) for line in panel.lines]
    assert len(picture.findall(f"{space}polyline")) == len(lines)
    texts = {text.text for text in picture.iter(f"{space}text")}
    assert {panel.title for panel in panels(samples)} <= texts
    marks = [path for path in picture.iter(f"{space}path") if path.find(f"{space}title") is not None]
    assert len(marks) == 4 * len(panels(samples))


def test_no_point_lies_outside_its_panel() -> None:
    for panel in panels(samples_of(p99_ms=lambda minute: 20 + 10_000 * (minute > 59), fds=lambda _: 0)):
        scale = axis(panel)
        assert all(0 <= scale.share(value) <= 1 for line in panel.lines for _, value in line.points)
        assert all(0 <= scale.share(tick) <= 1 for tick in scale.ticks)


def test_rates_are_between_two_samples() -> None:
    assert {rate for _, rate in rates(samples_of())} == {2000}


def test_few_points_stay_and_many_are_thinned() -> None:
    points = [(float(n), 1.0) for n in range(1000)]
    assert smooth(points[:200]) == points[:200]
    assert len(smooth(points)) <= 240
