import json
import re
import socket
from html.parser import HTMLParser

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab.admin_client import DEADLINE_S, Process, ask, no_greenlet
from lab.kafka.server import free_port
from pusher.daemon.admin import page
from pusher.daemon.admin.history import POINTS, History, quantile
from pusher.daemon.admin.port import AdminPort
from pusher.daemon.admin.prometheus import prometheus_name
from pusher.daemon.admin.server import TEXT, AdminServer, Page
from pusher.telemetry import figures, metrics
from pusher.telemetry.stats import BOUNDS_MS, Sample


def scrape(admin: AdminPort) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, headers, body = ask(admin, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(body.decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


# --- health


def test_healthy_until_a_greenlet_has_died(admin: AdminPort, process: Process) -> None:
    assert ask(admin, "/healthz")[0] == 200
    process.failure = "game sender: KeyError('x')"
    status, _, body = ask(admin, "/healthz")
    assert status == 503
    assert json.loads(body) == {"healthy": False, "reasons": ["game sender: KeyError('x')"]}


def test_ready_until_there_are_reasons_why_not(admin: AdminPort, process: Process) -> None:
    assert json.loads(ask(admin, "/readyz")[2]) == {"ready": True, "reasons": []}
    process.reasons = ["kafka: no brokers", "game: not connected yet"]
    status, headers, body = ask(admin, "/readyz")
    assert (status, headers["content-type"]) == (503, "application/json")
    assert json.loads(body)["reasons"] == process.reasons


def test_the_readiness_of_one_app(admin: AdminPort, process: Process) -> None:
    process.apps = {"good": [], "bad": ["bad: no key"]}
    assert ask(admin, "/readyz?app=good")[0] == 200
    status, _, body = ask(admin, "/readyz?app=bad")
    assert (status, json.loads(body)["reasons"]) == (503, ["bad: no key"])
    assert ask(admin, "/readyz?app=stranger")[0] == 404
    process.reasons = ["kafka: no brokers"]
    assert ask(admin, "/readyz?app=good")[0] == 503


@pytest.mark.parametrize(
    ("when", "apps", "of_process", "status"),
    [
        ("all", {"good": [], "bad": ["bad: no key"]}, [], 503),
        ("any", {"good": [], "bad": ["bad: no key"]}, [], 200),
        ("any", {"bad": ["bad: no key"], "worse": ["worse: no key"]}, [], 503),
        ("any", {"good": [], "bad": ["bad: no key"]}, ["kafka: no brokers"], 503),
        ("any", {}, [], 200),
    ],
)
def test_whether_one_app_is_enough(
    process: Process, when: str, apps: dict[str, list[str]], of_process: list[str], status: int
) -> None:
    process.apps, process.reasons = apps, of_process
    admin = process.port(readyWhen=when)
    admin.start(no_greenlet)
    try:
        found, _, body = ask(admin, "/readyz")
    finally:
        admin.stop(1.0)
    assert found == status
    assert json.loads(body)["reasons"] == [*of_process, *(line for lines in apps.values() for line in lines)]


# --- metrics


def test_counts_gauges_and_timings_for_prometheus(admin: AdminPort, process: Process) -> None:
    process.stats.counter(metrics.FAILED, "apns", "game", "bad-device-token").add(3)
    process.stats.gauge(metrics.NUM_GOROUTINE, "host").set(41)
    for ms in (0.5, 4.0, 99_000.0):
        process.stats.timing(metrics.SEND_NOTIFICATION_LATENCY, "apns", "game", "apns").observe(ms)
    process.stats.flush()
    found = scrape(admin)
    tags = (("game", "game"), ("platform", "apns"))
    assert found["pusher_failed_total", (*tags, ("reason", "bad-device-token"))] == 3
    assert found["pusher_num_goroutine", (("hostname", "host"),)] == 41
    labels = (("client", "apns"), *tags)
    name = "pusher_send_notification_latency_seconds"
    assert found[f"{name}_count", labels] == 3
    assert found[f"{name}_sum", labels] == pytest.approx(99.0045)
    by_bound = {value: found[f"{name}_bucket", (*labels[:2], ("le", value), labels[2])] for value in ("0.001", "0.005")}
    assert by_bound == {"0.001": 1, "0.005": 2}
    assert found[f"{name}_bucket", (*labels[:2], ("le", "+Inf"), labels[2])] == 3


def test_figures_and_the_process_are_there_too(admin: AdminPort, process: Process) -> None:
    process.figures = [Sample(figures.CONSUMER_LAG, ("apns", "game", "push-game_apns-single", "3"), 17)]
    process.reasons = ["kafka: gone"]
    found = scrape(admin)
    where = (("game", "game"), ("partition", "3"), ("platform", "apns"), ("topic", "push-game_apns-single"))
    assert found["pusher_consumer_lag", where] == 17
    assert (found["pusher_ready", ()], found["pusher_alive", ()]) == (0, 1)
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_a_label_cannot_forge_a_line(admin: AdminPort, process: Process) -> None:
    evil = 'x"} 1\npusher_ready 1\\'
    process.stats.counter(metrics.INVALID, "apns", evil, "bad-token").add()
    assert scrape(admin)["pusher_invalid_total", (("game", evil), ("platform", "apns"), ("reason", "bad-token"))] == 1


def test_every_metric_has_a_name_of_its_own() -> None:
    names = [prometheus_name(metric) for metric in (*metrics.ALL, *figures.ALL)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"pusher_[a-z0-9_]+", name) for name in names)


# --- the server


def test_only_get_and_head(admin: AdminPort) -> None:
    status, headers, _ = ask(admin, "/healthz", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    got, head = ask(admin, "/healthz"), ask(admin, "/healthz", "HEAD")
    assert (head[0], head[2]) == (200, b"")
    assert head[1]["content-length"] == str(len(got[2]))


def test_nothing_else_is_served_and_greenlets_only_when_asked_for(process: Process, admin: AdminPort) -> None:
    assert [ask(admin, target)[0] for target in ("/x", "/../etc/passwd", "/debug/greenlets")] == [404] * 3
    debugging = process.port(debug="true")
    debugging.start(no_greenlet)
    status, _, body = ask(debugging, "/debug/greenlets")
    debugging.stop(1.0)
    assert status == 200
    assert b"test_admin.py" in body


def test_clients_that_say_nothing_or_do_not_read_are_cut_off() -> None:
    big = Page(200, TEXT, b"x" * 30_000_000)
    routes = {"/": lambda _: Page(200, TEXT, b"ok"), "/big": lambda _: big}
    server = AdminServer("127.0.0.1", free_port(), routes, patience_s=0.2)
    server.start()
    address = ("127.0.0.1", server.port or 0)
    idle = [socket.create_connection(address, timeout=DEADLINE_S) for _ in range(40)]
    for number, one in enumerate(idle):
        one.sendall(b"GET /big HTTP/1.1\r\n\r\n" if number % 2 else b"GET /")
    assert ask(server, "/")[2] == b"ok"
    assert all(one.recv(1) == b"" for one in idle[::2])
    for one in idle:
        one.close()
    server.stop()


def test_an_address_in_use_costs_a_warning_and_port_0_is_off(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        admin = process.port(taken.getsockname()[1])
        admin.start(no_greenlet)
    assert admin.server.port is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "its own admin.port" in caplog.text
    off = process.port(0)
    off.start(no_greenlet)
    assert off.server.port is None
    for port in (admin, off):
        port.stop(1.0)


# --- history


def test_quantiles_of_buckets() -> None:
    buckets = [0] * (len(BOUNDS_MS) + 1)
    assert quantile(buckets, 0.5) is None
    buckets[3] = 100  # 5 to 10 ms
    assert quantile(buckets, 0.5) == 7.5
    buckets[-1] = 100  # beyond all bounds
    assert quantile(buckets, 0.99) == BOUNDS_MS[-1]


def test_history_says_what_happened_between_two_looks(process: Process) -> None:
    now = [0.0]
    history = History(process.samples, lambda: now[0])
    sent = process.stats.counter(metrics.SENT, "apns", "game", "topic")
    failed = process.stats.counter(metrics.FAILED, "apns", "game", "timeout")
    history.look()
    sent.add(50)
    failed.add(2)
    process.figures = [Sample(figures.CONSUMER_LAG, ("apns", "game", "topic", str(n)), 5) for n in range(3)]
    now[0] = 5.0
    history.look()
    series = history.series(("apns", "game"))
    assert (series["sent"], series["lag"]) == ([10.0], [15])
    assert history.reasons(("apns", "game")) == [("timeout", 2)]


def test_history_is_bounded_and_forgets(process: Process) -> None:
    now = [0.0]
    history = History(process.samples, lambda: now[0])
    process.stats.counter(metrics.FAILED, "apns", "game", "timeout").add()
    process.stats.counter(metrics.SENT, "apns", "game", "topic").add()
    history.look()
    process.stats.counter(metrics.FAILED, "apns", "game", "timeout").add(7)
    for _ in range(POINTS + 1):
        now[0] += 5.0
        history.look()
    assert len(history.series(("apns", "game"))["sent"]) == POINTS
    assert history.reasons(("apns", "game")) == []


# --- the page


def test_status_holds_what_the_page_reads(admin: AdminPort, process: Process) -> None:
    process.figures = [
        Sample(figures.OUTCOMES, ("apns", "game", "delivered"), 9),
        Sample(figures.LINKS, ("apns", "game"), 2),
        Sample(figures.CONSUMER_LAG, ("apns", "game", "topic", "0"), 5),
        Sample(figures.OLDEST_UNFINISHED, ("apns", "game", "topic", "0"), 1.5),
    ]
    admin.history.look()
    admin.history.look()
    overview = json.loads(ask(admin, "/status.json")[2])
    found = json.loads(ask(admin, "/status.json?platform=apns&game=game")[2])
    read = set(re.findall(r"\bdata\.([a-z_]+)", page.PAGE.decode()))
    assert read
    assert read <= overview.keys() | found.keys()
    (line,), app = overview["apps"], found["app"]
    assert set(re.findall(r"\bapp\.([a-z_0-9]+)", page.PAGE.decode())) <= app.keys()
    assert line.items() <= app.items()
    assert (app["outcomes"], app["now"]["links"], line["lag"], line["oldest_s"]) == ({"delivered": 9}, 2, 5, 1.5)
    assert app["partitions"] == [{"topic": "topic", "partition": "0", "lag": 5, "oldest_s": 1.5}]


def test_the_page_is_well_formed_and_loads_nothing(admin: AdminPort) -> None:
    status, headers, body = ask(admin, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    text = body.decode()
    assert not re.search(r"""\b(src|href)\s*=|@import|url\(|innerHTML|insertAdjacentHTML""", text)
    checker = Balanced()
    checker.feed(text)
    assert checker.open == []


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
