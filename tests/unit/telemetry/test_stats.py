import socket
from collections.abc import Iterator, Sequence

import gevent
import pytest

from pusher import config
from pusher.config import SocketAddress
from pusher.daemon.reporters import open_stats
from pusher.daemon.statsd import MAX_DATAGRAM, Statsd
from pusher.errors import StartError
from pusher.telemetry import metrics
from pusher.telemetry.stats import BOUNDS_MS, Reporter, Sample, Stats


class Listener:
    """A StatsD server that only listens."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((host, 0))
        self.socket.settimeout(5)
        self.address = SocketAddress(host, self.socket.getsockname()[1])

    def datagram(self) -> str:
        return self.socket.recv(65_536).decode()

    def lines(self, number: int) -> list[str]:
        """The next lines, at least so many."""
        lines: list[str] = []
        while len(lines) < number:
            lines += self.datagram().split("\n")
        return lines

    def is_silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.socket.close()


@pytest.fixture
def stats(listener: Listener) -> Stats:
    return Stats("pod-1", [Statsd(listener.address, "push")], flush_interval_s=0.01)


# --- the wire


def test_counts_gauges_and_timings_as_dogstatsd_lines(stats: Stats, listener: Listener) -> None:
    stats.counter(metrics.SENT, "apns", "game", "push-game_apns-single").add()
    stats.counter(metrics.FAILED, "gcm", "game", "device_unregistered").add(3)
    stats.gauge(metrics.NUM_GOROUTINE, "pod-1").set(412)
    stats.timing(metrics.FIREBASE_LATENCY, "game").observe(41.37)
    stats.counter(metrics.TOKENS_DELETE_SUCCESS, "pod-1", "game", "platform").add(7)
    stats.flush()
    assert listener.lines(5) == [
        "pushsent:1|c|#platform:apns,game:game,topic:push-game_apns-single",
        "pushfailed:3|c|#platform:gcm,game:game,reason:device_unregistered",
        "pushtokens_delete_success:7|c|#hostname:pod-1,game:game,platform:platform",
        "pushnum_goroutine:412.000000|g|#hostname:pod-1",
        "pushfirebase_latency:41.370000|ms|#game:game",
    ]


def test_counts_are_added_up_between_flushes_and_zero_is_not_sent(stats: Stats, listener: Listener) -> None:
    counter = stats.counter(metrics.ACK, "apns", "game")
    stats.flush()
    counter.add()
    counter.add(2)
    stats.flush()
    stats.flush()
    counter.add(4)
    stats.flush()
    assert listener.datagram() == "pushack:3|c|#platform:apns,game:game"
    assert listener.datagram() == "pushack:4|c|#platform:apns,game:game"
    assert listener.is_silent()
    assert counter.total == 7


def test_a_gauge_is_sent_whenever_it_was_set_even_to_the_same(stats: Stats, listener: Listener) -> None:
    gauge = stats.gauge(metrics.QUEUE_OUT_CHANNEL, "h")
    for value in (1, 2):
        gauge.set(value)
    stats.flush()
    stats.flush()
    gauge.set(2)
    stats.flush()
    assert [listener.datagram(), listener.datagram()] == ["pushqueue_out_channel:2.000000|g|#hostname:h"] * 2
    assert listener.is_silent()


def test_lines_share_datagrams_that_pass_every_ethernet(stats: Stats, listener: Listener) -> None:
    for number in range(200):
        stats.counter(metrics.ACK, "apns", f"gäme-{number}").add()
    stats.flush()
    sizes: list[int] = []
    lines: list[str] = []
    while len(lines) < 200:
        datagram = listener.datagram()
        sizes.append(len(datagram.encode()))
        lines += datagram.split("\n")
    assert max(sizes) <= MAX_DATAGRAM == 1_432
    assert min(sizes[:-1]) > MAX_DATAGRAM - 100
    assert lines == [f"pushack:1|c|#platform:apns,game:gäme-{number}" for number in range(200)]


def test_tags_cannot_break_a_line(stats: Stats, listener: Listener) -> None:
    stats.counter(metrics.ACK, "apns", "a\nb|c,d%d").add()
    stats.flush()
    assert listener.datagram() == "pushack:1|c|#platform:apns,game:ab_c_d%d"


def test_an_empty_tag_stays(stats: Stats, listener: Listener) -> None:
    stats.counter(metrics.ACK, "gcm", "").add()
    stats.flush()
    assert listener.datagram() == "pushack:1|c|#platform:gcm,game:"


def test_many_observations_are_sent_as_a_sample_with_its_rate(stats: Stats, listener: Listener) -> None:
    timing = stats.timing(metrics.QUEUE_LATENCY, "apns", "game")
    for _ in range(200):
        timing.observe(2.0)
    stats.flush()
    assert set(listener.lines(200)) == {"pushqueue_latency:2.000000|ms|#platform:apns,game:game"}
    for _ in range(800):
        timing.observe(3.0)
    stats.flush()
    assert listener.lines(200) == ["pushqueue_latency:3.000000|ms|@0.250000|#platform:apns,game:game"] * 200
    assert listener.is_silent()
    (sample,) = stats.snapshot()
    assert (sample.observations, sample.value) == (1_000, 2_800)


# --- totals


def test_a_snapshot_has_the_totals_since_the_start() -> None:
    stats = Stats("h")
    stats.counter(metrics.ACK, "apns", "a").add(2)
    stats.gauge(metrics.HEAP_OBJECTS, "h").set(5)
    timing = stats.timing(metrics.FIREBASE_LATENCY, "a")
    for value in (0.5, 1, 1.1, 60_000, 60_001):
        timing.observe(value)
    stats.flush()
    stats.flush()
    count, gauge, latency = stats.snapshot()
    assert (count.metric, count.tags, count.value) == (metrics.ACK, ("apns", "a"), 2)
    assert (gauge.metric, gauge.value) == (metrics.HEAP_OBJECTS, 5)
    assert latency.observations == 5
    assert latency.value == pytest.approx(120_003.6)
    buckets = dict(zip((*BOUNDS_MS, "above"), latency.buckets, strict=True))
    assert {bound: number for bound, number in buckets.items() if number} == {1: 2, 2.5: 1, 60_000: 1, "above": 1}


def test_the_same_tags_are_the_same_series() -> None:
    stats = Stats("h")
    assert stats.counter(metrics.ACK, "apns", "a") is stats.counter(metrics.ACK, "apns", "a")
    assert stats.counter(metrics.ACK, "apns", "a") is not stats.counter(metrics.ACK, "apns", "b")
    assert stats.gauge(metrics.HEAP_OBJECTS, "h") is stats.gauge(metrics.HEAP_OBJECTS, "h")
    assert stats.timing(metrics.FIREBASE_LATENCY, "a") is stats.timing(metrics.FIREBASE_LATENCY, "a")


def test_a_metric_with_the_wrong_number_of_tags_is_refused() -> None:
    with pytest.raises(ValueError, match="ack has the tags"):
        Stats("h").counter(metrics.ACK, "apns")


def test_metrics_are_declared_once() -> None:
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)
    assert metrics.SENT in metrics.ALL
    assert all(metric.text.endswith(".") for metric in metrics.ALL)


# --- running


def test_running_reports_the_process_and_flushes(stats: Stats, listener: Listener) -> None:
    runner = gevent.spawn(stats.run)
    try:
        values = dict(line.split("|", 1)[0].split(":") for line in listener.lines(4))
        assert set(values) == {
            "pushnum_goroutine", "pushallocated_not_freed", "pushheap_objects", "pushnext_gc_bytes",
        }  # fmt: skip
        assert 2 <= float(values["pushnum_goroutine"]) < 1_000
        for name in ("pushallocated_not_freed", "pushnext_gc_bytes"):
            assert 1e6 < float(values[name]) < 1e12
        stats.counter(metrics.ACK, "apns", "game").add()
        assert listener.datagram() == "pushack:1|c|#platform:apns,game:game"
    finally:
        runner.kill()


def test_without_a_reporter_nothing_leaves_the_process(listener: Listener) -> None:
    text = f"stats: {{statsd: {{host: '127.0.0.1:{listener.address.port}', prefix: p, flushIntervalMs: 10}}}}"
    silent = open_stats(config.parse(text), "h")
    loud = open_stats(config.parse(f"{text}\nstats.reporters: statsd"), "h")
    for stats in (silent, loud):
        stats.counter(metrics.ACK, "apns", "game").add()
        stats.flush()
    assert listener.datagram() == "pack:1|c|#platform:apns,game:game"
    assert listener.is_silent()


def test_an_ipv6_server() -> None:
    listener = Listener(socket.AF_INET6, "::1")
    stats = Stats("h", [Statsd(listener.address, "")])
    stats.counter(metrics.ACK, "apns", "game").add()
    stats.flush()
    assert listener.datagram() == "ack:1|c|#platform:apns,game:game"
    listener.socket.close()


def test_nobody_listening_stops_nothing(listener: Listener) -> None:
    listener.socket.close()
    stats = Stats("h", [Statsd(listener.address, "")])
    for _ in range(5):
        stats.counter(metrics.ACK, "apns", "game").add()
        stats.flush()
    assert stats.counter(metrics.ACK, "apns", "game").total == 5


def test_an_unresolvable_host_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats("h", [Statsd(SocketAddress("no-such-host.invalid", 8125), "")])
    for _ in range(3):
        stats.counter(metrics.ACK, "apns", "game").add()
        stats.timing(metrics.FIREBASE_LATENCY, "game").observe(1.0)
        stats.flush()
    with gevent.Timeout(10):
        while not caplog.records:
            gevent.sleep(0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "StatsD host cannot be resolved, metrics are dropped until it can"
    ]


def test_a_host_that_can_be_resolved_later_is_used_from_then_on(
    listener: Listener, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **options: object) -> object:
        if host == "late.invalid" and not answers:
            raise socket.gaierror(socket.EAI_NONAME, "not yet")
        return real("127.0.0.1" if host == "late.invalid" else host, *args, **options)  # type: ignore[arg-type]

    answers: list[bool] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    caplog.set_level("INFO")
    now = [0.0]
    statsd = Statsd(SocketAddress("late.invalid", listener.address.port), "", clock=lambda: now[0])
    statsd.send(["a:1|c"])
    answers.append(True)
    statsd.send(["b:1|c"])
    assert listener.is_silent()
    now[0] = 61.0
    statsd.send(["c:1|c"])
    listener.socket.settimeout(5)
    assert listener.datagram() == "c:1|c"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


# --- reporters


class Unchecked:
    def check(self) -> str:
        return ""


class Kept(Unchecked):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def report(self, samples: Sequence[Sample]) -> None:
        self.samples += samples


class Raising(Unchecked):
    def report(self, samples: Sequence[Sample]) -> None:
        raise RuntimeError("no disk")


class Waiting(Unchecked):
    def report(self, samples: Sequence[Sample]) -> None:
        gevent.sleep(60)


@pytest.mark.parametrize("trouble", [Raising(), Waiting()])
def test_the_trouble_of_a_reporter_is_its_own(
    trouble: Reporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pusher.telemetry.stats.REPORT_TIMEOUT_S", 0.05)
    kept = Kept()
    stats = Stats("h", [trouble, kept])
    stats.counter(metrics.ACK, "apns", "game").add(3)
    stats.flush()
    assert [(sample.metric, sample.added) for sample in kept.samples] == [(metrics.ACK, 3)]
    (line,) = caplog.records
    assert type(trouble).__name__ in line.__dict__["fields"]["reporter"]


def test_a_reporter_that_nobody_brought_is_named_with_those_that_are_installed() -> None:
    expected = r"stats\.reporters expects a list of pusher\.stats that are installed \(statsd\); 'notAvailable' is not"
    with pytest.raises(StartError, match=expected):
        config.parse("stats.reporters: notAvailable")
