"""Rate limit and duplicates against a real Redis, and what is sent while that is in trouble."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import gevent
import orjson
import pytest
from gevent.pool import Group
from gevent.server import StreamServer

from lab.kafka.server import free_port
from lab.processes import wait_until
from lab.redis import RedisServer
from pusher.config.loader import parse
from pusher.errors import StartError
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser, ApnsPush
from pusher.push.feedback_topics import FeedbackTopics
from pusher.push.lane import Lane, LaneSettings
from pusher.push.limits import opening
from pusher.push.limits.limiter import Limits
from pusher.push.limits.rules import rules
from pusher.push.outcome import Kind
from pusher.push.retry import RetryPolicy
from pusher.telemetry import metrics
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Stats
from tests.publisher import ListPublisher
from tests.records import placed, tracker

pytestmark = pytest.mark.integration

#: 15 minutes and 20 s past some hour.
MOMENT_S = 1_760_000_000.0 - 1_760_000_000.0 % 3_600 + 15 * 60 + 20
TOKEN = "device123"


class Bed:
    """An app's lane with a gate to the Redis that the settings name."""

    def __init__(self, settings: str, app: str = "game") -> None:
        config = parse(f"apns:\n  apps: {app}\n{settings}")
        self.stats = Stats("pod-1")
        self.limits = Limits(config, "apns", "pod-1", self.stats)
        self.parser = ApnsParser("com.game", app, compares=rules(config, "apns", app).compares)
        self.publisher = ListPublisher()
        self.lane: Lane[ApnsPush] = Lane(
            LaneSettings(app, "apns", "apns", "pod-1", RetryPolicy()),
            self.parser,
            apns_feedback,
            [FeedbackTopics(self.publisher)],
            self.stats,
        )
        gate = self.limits.gate(self.lane)
        assert gate is not None
        gate.wall_clock = lambda: self.now
        self.lane.gate = gate
        self.now = MOMENT_S
        self._offsets = iter(range(10_000))
        self._tracker = tracker()
        self._greenlets = Group()
        for loop in self.limits.loops().values():
            self._greenlets.spawn(loop)

    def close(self) -> None:
        self._greenlets.kill()
        self.limits.close()

    def push(self, alert: object = "hi", token: str = TOKEN, offset: int | None = None) -> ApnsPush:
        """The push of a record; that of an earlier ``offset`` is the same one, read again."""
        offset = next(self._offsets) if offset is None else offset
        value = orjson.dumps({"DeviceToken": token, "Payload": {"aps": {"alert": alert}}})
        return placed(self.parser(value, f"topic/0/{offset}/0"), self._tracker, offset)

    def take(self, *pushes: ApnsPush) -> list[ApnsPush]:
        """What of these is sent."""
        if pushes:
            self.lane.put(pushes)
        return self.lane.take(1_000, 0.0)

    def outcomes(self) -> dict[Kind, int]:
        return {kind: number for kind, number in self.lane.totals.outcomes.items() if number}

    def count(self, metric: Metric) -> int:
        return int(sum(sample.value for sample in self.stats.snapshot() if sample.metric is metric))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def at(server: RedisServer | Name, rpm: int = 0, *, ttl: str = "60s", action: str = "drop", games: str = "") -> str:
    tls = f"tls: {{disabled: {str(not server.ca_file).lower()}, caFile: '{server.ca_file}'}}"
    place = f"redis: {{host: {server.host}, port: {server.port}}}\n  {tls}"
    return (
        f"  rateLimit.rpm: {rpm}\n  dedup.ttl: {ttl}\n"
        f"rateLimiter:\n  {place}\ndedup:\n  {place}\n  action: {action}\n  games: '{games}'\n"
    )


ALL = '{"game": 100}'


@pytest.fixture
def bed(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[Bed]:
    made = Bed(at(server, **getattr(request, "param", {"rpm": 3})))
    yield made
    made.close()


# --- rate limit -------------------------------------------------------------------------------------------------------


def test_a_device_gets_no_more_than_its_limit_in_a_minute(bed: Bed, server: RedisServer) -> None:
    sent = bed.take(*(bed.push(number) for number in range(5)), bed.push(token="another"))
    assert [push.token for push in sent] == [TOKEN, TOKEN, TOKEN, "another"]
    assert bed.outcomes() == {Kind.LIMITED: 2}
    assert bed.count(metrics.RATE_LIMIT_REACHED) == 2
    assert server.all_keys() == ["another:15", f"{TOKEN}:15"]
    with server.client() as client:
        assert client.get(f"{TOKEN}:15") == "3"
        assert 50 < client.ttl(f"{TOKEN}:15") <= 60
    assert bed.take(bed.push()) == []
    bed.now += 60
    assert len(bed.take(*(bed.push(number) for number in range(5)))) == 3
    assert f"{TOKEN}:16" in server.all_keys()


def test_what_is_not_sent_ends_without_a_feedback(bed: Bed) -> None:
    bed.lane.in_hand = 5
    bed.take(*(bed.push(number) for number in range(5)))
    assert bed.lane.in_hand == 3
    assert bed.publisher.records == []
    assert bed.lane.totals.responses == 0
    assert bed.count(metrics.FAILED) == 0


def test_counters_are_shared_with_another_program(bed: Bed, server: RedisServer) -> None:
    with server.client() as client:
        client.set(f"{TOKEN}:15", "2", ex=60)
        assert len(bed.take(*(bed.push(number) for number in range(3)))) == 1
        assert client.get(f"{TOKEN}:15") == "3"


def test_retries_and_free_resends_are_not_counted_again(bed: Bed, server: RedisServer) -> None:
    (push,) = bed.take(bed.push())
    bed.lane.handed_over([push])
    for _ in range(5):
        bed.lane.resend(push)
        assert bed.take() == [push]
        bed.lane.handed_over([push])
        push.free_resends = 0
    with server.client() as client:
        assert client.get(f"{TOKEN}:15") == "1"


def test_a_counter_that_is_no_number_stops_nobody(bed: Bed, server: RedisServer) -> None:
    with server.client() as client:
        client.set(f"{TOKEN}:15", "many")
        client.rpush("another:15", "a list")
    assert len(bed.take(bed.push(), bed.push(token="another"), bed.push(token="third"))) == 3
    assert bed.count(metrics.RATE_LIMIT_FAILED) == 2
    assert "third:15" in server.all_keys()


# --- duplicates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bed", [{"games": ALL}], indirect=True)
def test_a_duplicate_is_dropped(bed: Bed, server: RedisServer) -> None:
    sent = bed.take(bed.push("a"), bed.push("b"), bed.push("a"), bed.push("a", "another"))
    assert [(push.token, push.offset) for push in sent] == [(TOKEN, 0), (TOKEN, 1), ("another", 3)]
    assert bed.outcomes() == {Kind.LIMITED: 1}
    assert bed.count(metrics.DUPLICATED_MESSAGES) == 1
    assert server.all_keys() == []
    assert len(server.all_keys(db=1)) == 3
    with server.client(1) as client:
        assert all(55_000 < client.pttl(key) <= 60_000 for key in server.all_keys(db=1))


@pytest.mark.parametrize("bed", [{"games": ALL, "action": "count"}], indirect=True)
def test_a_duplicate_is_counted_and_sent(bed: Bed) -> None:
    assert len(bed.take(bed.push("a"), bed.push("a"))) == 2
    assert bed.outcomes() == {}
    assert bed.count(metrics.DUPLICATED_MESSAGES) == 1


@pytest.mark.parametrize("bed", [{"games": ALL}], indirect=True)
def test_the_mark_is_that_of_the_original(bed: Bed, server: RedisServer) -> None:
    push = bed.push()
    push.content = b"message123"
    bed.take(push)
    assert server.all_keys(db=1) == ["14335911260761313854"]


@pytest.mark.parametrize("bed", [{"games": ALL}], indirect=True)
def test_another_programs_mark_is_one(bed: Bed, server: RedisServer) -> None:
    with server.client(1) as client:
        client.set("14335911260761313854", "1", ex=60, nx=True)
    push = bed.push()
    push.content = b"message123"
    assert bed.take(push) == []


@pytest.mark.parametrize("bed", [{"games": ALL}], indirect=True)
def test_a_push_that_is_read_again_is_no_duplicate_of_itself(bed: Bed) -> None:
    assert len(bed.take(bed.push("a", offset=7))) == 1
    assert len(bed.take(bed.push("a", offset=7))) == 1
    assert bed.take(bed.push("a", offset=8)) == []


@pytest.mark.parametrize("bed", [{"games": ALL, "ttl": "300ms"}], indirect=True)
def test_a_push_is_forgotten(bed: Bed, server: RedisServer) -> None:
    assert len(bed.take(bed.push("a"))) == 1
    wait_until(lambda: not server.all_keys(db=1), "the mark is gone")
    assert len(bed.take(bed.push("a"))) == 1


@pytest.mark.parametrize("bed", [{"games": '{"game": 50, "other": 100}'}], indirect=True)
def test_devices_are_samples(bed: Bed, server: RedisServer) -> None:
    tokens = [f"device{number}" for number in range(100)]
    assert len(bed.take(*(bed.push("a", token) for token in tokens))) == 100
    assert 35 <= len(server.all_keys(db=1)) <= 65
    bed.take(bed.push("a", TOKEN))
    known = len(server.all_keys(db=1))
    assert len(bed.take(bed.push("b", TOKEN), bed.push("b", TOKEN))) == 2, "its sample is 78"
    assert len(server.all_keys(db=1)) == known


@pytest.mark.parametrize("bed", [{"games": ALL}], indirect=True)
def test_a_push_without_content_is_not_compared(bed: Bed) -> None:
    pushes = [bed.push() for _ in range(2)]
    for push in pushes:
        push.content = b""
    assert len(bed.take(*pushes)) == 2


# --- both -------------------------------------------------------------------------------------------------------------

BOTH = {"rpm": 2, "games": ALL}


@pytest.fixture(params=["one server", "two servers"])
def both(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Iterator[Bed]:
    settings = at(server, 2, games=ALL)
    with RedisServer(tmp_path / "second") as second:
        if request.param == "two servers":
            before, after = settings.split("dedup:")
            settings = f"{before}dedup:{after.replace(str(server.port), str(second.port))}"
        bed = Bed(settings)
        yield bed
        bed.close()


def test_a_duplicate_uses_nothing_up(both: Bed) -> None:
    sent = both.take(both.push("a"), both.push("a"), both.push("a"), both.push("b"), both.push("c"))
    assert [push.offset for push in sent] == [0, 3]
    assert both.count(metrics.DUPLICATED_MESSAGES) == 2
    assert both.count(metrics.RATE_LIMIT_REACHED) == 1


def test_what_was_not_sent_is_not_remembered(both: Bed) -> None:
    both.take(both.push("a"), both.push("b"), both.push("c"))
    both.now += 60
    assert [push.offset for push in both.take(both.push("c"), both.push("a"))] == [3]


# --- trouble ----------------------------------------------------------------------------------------------------------


def unlimited(bed: Bed, tries: int = 5) -> bool:
    """Whether pushes are sent beyond the limit, and counted as such."""
    before = bed.count(metrics.RATE_LIMIT_FAILED)
    sent = bed.take(*(bed.push(number) for number in range(tries)))
    return len(sent) == tries and bed.count(metrics.RATE_LIMIT_FAILED) - before == tries


def limited(bed: Bed) -> bool:
    """Whether a device's pushes are counted: those of a minute that nothing was counted in yet."""
    bed.now += 60
    return len(bed.take(*(bed.push(number) for number in range(5)))) == 3


def test_an_outage_stops_nobody_and_its_end_is_noticed(bed: Bed, server: RedisServer) -> None:
    assert limited(bed)
    server.kill()
    assert unlimited(bed)
    assert unlimited(bed)
    server.start()
    wait_until(lambda: limited(bed), "pushes are counted again")


def test_a_restart_while_nothing_is_asked_costs_no_push_its_limit(bed: Bed, server: RedisServer) -> None:
    assert limited(bed)
    server.restart()
    assert limited(bed)
    assert bed.count(metrics.RATE_LIMIT_FAILED) == 0


def test_a_server_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    bed = Bed(at(server, 3))
    assert unlimited(bed)
    with server:
        wait_until(lambda: limited(bed), "pushes are counted")
    bed.close()


def test_a_frozen_server_is_soon_asked_no_more(bed: Bed, server: RedisServer) -> None:
    assert limited(bed)
    server.freeze()
    for _ in range(3):
        assert unlimited(bed)
    assert bed.limits.counters.down
    asked = bed.limits.counters.asked
    for _ in range(50):
        assert unlimited(bed)
    assert bed.limits.counters.asked == asked, "nobody waits for it"
    server.thaw()
    wait_until(lambda: limited(bed), "pushes are counted again")


def test_a_full_memory_stops_nobody(bed: Bed, server: RedisServer) -> None:
    assert limited(bed)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        bed.now += 60
        assert unlimited(bed)
        client.config_set("maxmemory", 0)
    assert limited(bed)


def test_a_wrong_password_stops_nobody(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", password="right") as server:
        bed = Bed(at(server, 3) + "rateLimiter.redis.password: wrong\ndedup.redis.password: wrong\n")
        wait_until(lambda: unlimited(bed) and "username-password" in bed.limits.counters.down, "the reason is known")
        bed.close()


def test_user_password_and_tls(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", password="right", user="pusher", user_password="mine", tls=True) as server:
        users = "".join(f"{one}.redis.user: pusher\n{one}.redis.password: mine\n" for one in ("rateLimiter", "dedup"))
        bed = Bed(at(server, 3, games=ALL) + users)
        wait_until(lambda: limited(bed), "pushes are counted")
        bed.close()


def test_a_certificate_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", tls=True) as server:
        server.ca_file, trusted = "", server.ca_file
        bed = Bed(at(server, 3).replace("disabled: true", "disabled: false"))
        wait_until(lambda: unlimited(bed) and "certificate" in bed.limits.counters.down.lower(), "the reason is known")
        bed.close()
        server.ca_file = trusted


class Name:
    """An address that leads to whichever server is the master now, as a name in the DNS does."""

    def __init__(self, master: RedisServer) -> None:
        self.master, self.ca_file = master, ""
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.host, self.port = "127.0.0.1", self._server.server_port

    def _serve(self, client: socket.socket, _: object) -> None:
        with closing(socket.create_connection((self.master.host, self.master.port))) as upstream:
            gevent.joinall([gevent.spawn(_copy, client, upstream), gevent.spawn(_copy, upstream, client)], count=1)

    def close(self) -> None:
        self._server.stop()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)


def test_a_failover_to_a_replica(server: RedisServer, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "second", replica_of=server) as second, closing(Name(server)) as name:
        bed = Bed(at(name, 3))
        wait_until(lambda: limited(bed), "the master counts")
        wait_until(lambda: second.all_keys() == server.all_keys(), "the replica has all keys")
        name.master = second
        server.kill()
        bed.now += 60
        wait_until(lambda: "read only" in bed.limits.counters.down or unlimited(bed), "the replica refuses to count")
        assert unlimited(bed)
        second.promote()
        wait_until(lambda: limited(bed), "pushes are counted again")
        bed.now = MOMENT_S + 60
        assert bed.take(bed.push()) == [], "what the master had counted is known"
        bed.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two masters, with half of the slots each."""
    properties = {"cluster-enabled": "yes", "cluster-node-timeout": "1000", "cluster-require-full-coverage": "no"}
    buses = [str(free_port()), str(free_port())]
    with (
        RedisServer(tmp_path / "one", properties=properties | {"cluster-port": buses[0]}) as one,
        RedisServer(tmp_path / "two", properties=properties | {"cluster-port": buses[1]}) as two,
    ):
        for server, first, last in ((one, 0, 8191), (two, 8192, 16383)):
            with server.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER MEET", "127.0.0.1", one.port, buses[0])
        for server in (one, two):
            with server.client() as client:
                wait_until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "the node serves")
                wait_until(lambda: len(client.execute_command("CLUSTER SLOTS")) == 2, "the nodes know each other")
        yield one, two


def test_a_cluster(cluster: tuple[RedisServer, RedisServer]) -> None:
    one, two = cluster
    bed = Bed(at(one, 2, games=ALL) + "rateLimiter.redis.cluster: true\ndedup.redis.cluster: true\n")
    wait_until(lambda: not bed.limits.counters.down and not bed.limits.marks.down, "the nodes are known")
    tokens = [f"device{number}" for number in range(20)]
    sent = bed.take(*(bed.push(alert, token) for token in tokens for alert in ("a", "a", "b", "c")))
    assert len(sent) == 40
    assert bed.count(metrics.DUPLICATED_MESSAGES) == bed.count(metrics.RATE_LIMIT_REACHED) == 20
    assert bed.count(metrics.RATE_LIMIT_FAILED) == bed.count(metrics.DEDUP_ERRORS) == 0
    assert min(len(one.all_keys()), len(two.all_keys())) > 10
    assert len(one.all_keys()) + len(two.all_keys()) == 60
    two.kill()
    bed.now += 60
    assert len(bed.take(*(bed.push("d", token) for token in tokens))) == 20
    assert bed.count(metrics.RATE_LIMIT_FAILED) > 0
    bed.close()


def test_a_script_that_redis_has_forgotten(bed: Bed, server: RedisServer) -> None:
    assert limited(bed)
    with server.client() as client:
        client.script_flush()
    assert limited(bed)
    assert bed.count(metrics.RATE_LIMIT_FAILED) == 0


def test_many_apps_share_connections(bed: Bed, server: RedisServer) -> None:
    for _ in range(3):
        group = Group()
        group.map(lambda number: bed.lane.gate.admit([bed.push(number, f"device{number}")]), range(20))  # type: ignore[union-attr]
    with server.client() as client:
        assert 1 < len(client.client_list()) <= 25


def test_the_log_says_it_once_a_minute(bed: Bed, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    for _ in range(10):
        assert unlimited(bed)
    lines = [record for record in caplog.records if "Redis cannot be reached" in record.getMessage()]
    assert len(lines) <= 1


def test_with_it_off_the_client_is_not_loaded() -> None:
    code = "import pusher.commands.cli, pusher.sender.sender, sys; sys.exit('redis' in sys.modules)"
    patched = f"import gevent.monkey; gevent.monkey.patch_all(); {code}"
    assert subprocess.run([sys.executable, "-c", patched], check=False).returncode == 0


def test_check_asks_each_server_that_is_needed(server: RedisServer) -> None:
    config = parse(f"apns:\n  apps: game\n{at(server, 3)}")
    ((name, check),) = opening.checks(config, "apns", ["game"])
    assert name == "rateLimiter.redis"
    assert check() == f"Redis at {server.address} answers"
    server.kill()
    with pytest.raises(StartError, match=server.address):
        check()
    both = parse(f"apns:\n  apps: game\n{at(server, 3, games=ALL)}")
    assert [name for name, _ in opening.checks(both, "apns", ["game"])] == ["rateLimiter.redis", "dedup.redis"]
    assert list(opening.checks(parse("apns.apps: game"), "apns", ["game"])) == []
