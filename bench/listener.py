"""What the feedback listener does and costs: real Kafka -> listener -> real PostgreSQL, both of the bench's own.

    speed    feedbacks wait in Kafka, some name dead tokens of a table with an index on token: feedbacks/s, CPU
    outage   PostgreSQL is stopped for a while and the listener killed three times while feedbacks come in
    guard    a burst of BadDeviceToken for one game, ordinary feedbacks of another; then the undo

The exit status is 1 when the rows that are left are not exactly the right ones.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import psycopg2
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from bench import topics
from bench.daemon import Measured
from lab import postgres
from lab.kafka.server import KafkaServer, free_port

COMMAND = "start-feedback-listener"
GROUP = "bench"
METADATA = {
    "game": "game",
    "hostname": "pod-1",
    "jobId": "86edb3c3-6b5e-40dc-9f14-4ba831daf87c",
    "platform": "apns",
}
#: s without progress after which a run has failed
PATIENCE_S = 60


def token(number: int) -> str:
    """64 characters, as make_table makes them."""
    return f"{number:064X}"


def success(number: int) -> str:
    """What a sender feeds back of a push that Apple took."""
    return _feedback(number, {"Sent": True, "StatusCode": 200, "Reason": "", "ApnsID": _id(number), "Err": None})


def refusal(number: int, reason: str, key: str, status: int) -> str:
    """What it feeds back of one that Apple refused."""
    error = {"Key": key, "Description": reason}
    return _feedback(
        number,
        {"Sent": False, "StatusCode": status, "Reason": reason, "ApnsID": _id(number), "Err": error},
        deleteToken=True,
    )


def unregistered(number: int) -> str:
    """The device is gone."""
    return refusal(number, "Unregistered", "unregistered", 410)


def bad(number: int) -> str:
    """Also what a mix-up of sandbox and production gives."""
    return refusal(number, "BadDeviceToken", "bad-device-token", 400)


def _id(number: int) -> str:
    return f"0f8fad5b-d9cb-469f-a165-{number:012x}"


def _feedback(number: int, head: dict[str, Any], **metadata: Any) -> str:
    whole = {**metadata, "deviceToken": token(number), **METADATA}
    tail = {"DeviceToken": token(number), "timestamp": 1_700_000_000, "metadata": whole}
    return json.dumps({**head, **tail}, separators=(",", ":"))


class Ground:
    """A Kafka, a PostgreSQL and listeners, in a directory; what has to be stopped goes to ``cleanup``.

    ``client`` is the listeners' setting kafka.client.
    """

    def __init__(
        self, directory: Path, cleanup: contextlib.ExitStack, kafka: KafkaServer, client: str = "kafka-python"
    ) -> None:
        self.directory, self._client = directory, client
        self._cleanup = cleanup
        self.kafka = kafka
        # PostgreSQL runs under an account of its own, which cannot enter the other directory
        self._data = Path(tempfile.mkdtemp(prefix="pusher-bench-", dir="/var/tmp"))  # mode 0700
        cleanup.callback(shutil.rmtree, self._data)
        self.pg_port = free_port()
        self.start_postgres()
        cleanup.callback(self.stop_postgres)
        self._admin = KafkaAdminClient(bootstrap_servers=self.kafka.brokers)
        cleanup.callback(self._admin.close)

    def start_postgres(self) -> None:
        """Waits until it serves."""
        postgres.start(self._data, self.pg_port)

    def stop_postgres(self) -> None:
        """Disconnects its clients."""
        postgres.stop(self._data)

    def query(self, text: str, *values: object) -> Any:
        """First column of the first row, None where there is none."""
        return query(self.pg_port, text, *values)

    def make_table(self, name: str, rows: int) -> None:
        """A table with an index on token, which holds token(0) to token(rows - 1)."""
        self.query(f"CREATE TABLE {name} (LIKE testapp_apns INCLUDING ALL)")
        self.query(
            f"INSERT INTO {name} (user_id, token, region, locale, tz) "  # noqa: S608  # a name of the bench's own
            "SELECT 'user-' || n, upper(lpad(to_hex(n), 64, '0')), 'BR', 'pt', '-0300' FROM generate_series(0, %s) n",
            rows - 1,
        )
        self.query(f"CREATE INDEX ON {name} (token)")
        self.query(f"ANALYZE {name}")

    def listen(self, game: str | None = None, **archive: str) -> Measured:
        """Starts a listener, for one game or for all."""
        database = {
            "host": "localhost",
            "port": self.pg_port,
            "user": "pusher_user",
            "database": "push",
            "connectionTimeout": 5000,
        }
        only = {} if game is None else {"topics": [f"push-{game}-apns-feedbacks"]}
        settings = {
            "stats": {"reporters": []},
            "admin": {"port": free_port()},
            "kafka": {"client": self._client},
            "feedbackListeners": {
                "gracefulShutdownTimeout": 10,
                "queue": {
                    "brokers": self.kafka.brokers,
                    "group": GROUP,
                    "offsetResetStrategy": "earliest",
                    "commitInterval": "250ms",
                    "metadataRefresh": "1s",
                    **only,
                },
                "invalidToken": {"flush.time.ms": 500, "pg": database},
                "archive": archive,
            },
        }
        daemon = Measured(self.directory, COMMAND, settings, profile=False)
        self._cleanup.callback(daemon.stop)
        return daemon

    def committed(self, game: str | None = None) -> int:
        """Sum of the group's offsets, in the feedbacks of one game or of all."""
        try:
            found = self._admin.list_group_offsets([GROUP])[GROUP]
        except (KeyError, KafkaError):  # nobody has committed or looked for the group's coordinator yet
            return 0
        topic = game and f"push-{game}-apns-feedbacks"
        offsets = (offset.offset for partition, offset in found.items() if topic in (None, partition.topic))
        return sum(offset for offset in offsets if offset > 0)

    def await_committed(self, goal: int, daemon: Callable[[], Measured], game: str | None = None) -> None:
        """Until the group has finished that many feedbacks; RuntimeError when it stands still for long."""
        before, since = -1, time.monotonic()
        while (now := self.committed(game)) < goal:
            if now != before:
                before, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE_S:
                raise RuntimeError(f"{now} of {goal} and no progress for {PATIENCE_S} s; {daemon().last_words()}")
            daemon().check()
            time.sleep(0.05)


def query(port: int, text: str, *values: object) -> Any:
    """First column of the first row that a private PostgreSQL finds, None where there is none."""
    connection = psycopg2.connect(host="localhost", port=port, user="pusher_user", dbname="push")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(text, values or None)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def judge(ground: Ground, table: str, rows: int, dead: Iterable[int]) -> bool:
    """Prints whether the dead ones, and only they, have gone."""
    wanted = [token(number) for number in dead]
    left = ground.query(f"SELECT count(*) FROM {table} WHERE token = ANY(%s)", wanted)  # noqa: S608  # our own name
    total = ground.query(f"SELECT count(*) FROM {table}")  # noqa: S608  # our own name
    lost = rows - len(wanted) - (total - left)
    print(f"{table}: {len(wanted):,} dead, {left:,} of them left, {lost:,} other rows missing, {total:,} rows")
    return not left and not lost


class Speed(NamedTuple):
    """What a listener did with feedbacks that waited in Kafka, between its first and its last commit."""

    feedbacks: int
    seconds: float
    cpu_s: float
    peak_memory_mb: float
    #: Only the dead have left the table, and the listener stopped in order.
    right: bool

    @property
    def rate_s(self) -> float:
        """Feedbacks a second."""
        return self.feedbacks / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time a feedback."""
        return self.cpu_s / self.feedbacks * 1e6


def measure(ground: Ground, game: str, rows: int, number: int, dead_every: int) -> Speed:
    """Work off so many feedbacks of a game, whose table gets so many rows; one token in dead_every is dead."""
    ground.make_table(f"{game}_apns", rows)
    step = rows // number
    dead = range(0, number, dead_every)
    topic = f"push-{game}-apns-feedbacks"
    topics.create(ground.kafka.brokers, [topic])
    texts = (unregistered(n * step) if n % dead_every == 0 else success(n * step) for n in range(number))
    topics.fill(ground.kafka.brokers, topic, texts)
    daemon = ground.listen(game)
    ground.await_committed(1, lambda: daemon, game)
    began, first, cpu_s = time.monotonic(), ground.committed(game), daemon.cpu_s()
    ground.await_committed(number, lambda: daemon, game)
    seconds, used_s, peak_mb = time.monotonic() - began, daemon.cpu_s() - cpu_s, daemon.memory_mb("VmHWM")
    status = daemon.stop()
    right = judge(ground, f"{game}_apns", rows, (n * step for n in dead)) and status == 0
    return Speed(number - first, seconds, used_s, peak_mb, right)


def speed(ground: Ground, arguments: argparse.Namespace) -> bool:
    """Feedbacks wait in Kafka before the listener starts."""
    found = measure(ground, "game", arguments.rows, arguments.feedbacks, arguments.dead_every)
    deleted_s = found.rate_s / arguments.dead_every
    print(f"feedbacks    {found.feedbacks:>10,} between the first and the last commit, in {found.seconds:.1f} s")
    print(f"throughput   {found.rate_s:>10,.0f} feedbacks/s, {deleted_s:,.0f} deleted tokens/s")
    print(f"CPU          {found.cpu_us:>10.1f} us a feedback")
    print(f"peak memory  {found.peak_memory_mb:>10.1f} MB")
    return found.right


def outage(ground: Ground, _: argparse.Namespace) -> bool:
    """Feedbacks come in at 1,000/s for a minute, while the listener is killed and PostgreSQL stopped."""
    number, rate_s = 60_000, 1_000
    ground.make_table("game_apns", number)
    topic = "push-game-apns-feedbacks"
    topics.create(ground.kafka.brokers, [topic])
    texts = (unregistered(n) if n % 10 == 0 else success(n) for n in range(number))
    writer = threading.Thread(target=topics.write, args=(ground.kafka.brokers, topic, texts), kwargs={"rate_s": rate_s})
    daemons = [ground.listen()]
    began = time.monotonic()
    writer.start()

    def kill() -> None:
        daemons[-1].kill()
        print(f"{time.monotonic() - began:5.1f} s: listener killed, {ground.committed():,} feedbacks committed")
        daemons.append(ground.listen())

    def stop_postgres() -> None:
        print(f"{time.monotonic() - began:5.1f} s: PostgreSQL stopped")
        ground.stop_postgres()

    def start_postgres() -> None:
        ground.start_postgres()
        print(f"{time.monotonic() - began:5.1f} s: PostgreSQL started, {ground.committed():,} feedbacks committed")

    for at_s, act in ((8, kill), (16, stop_postgres), (36, start_postgres), (41, kill), (52, kill)):
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        act()
    writer.join()
    ground.await_committed(number, lambda: daemons[-1])
    print(f"{time.monotonic() - began:5.1f} s: all {number:,} feedbacks committed")
    return judge(ground, "game_apns", number, range(0, number, 10))


def guard(ground: Ground, _: argparse.Namespace) -> bool:
    """One game's users are all refused, another's go on."""
    number = 10_000
    for game in ("wrong", "right"):
        ground.make_table(f"{game}_apns", number)
    topics.create(
        ground.kafka.brokers, ["push-wrong-apns-feedbacks", "push-right-apns-feedbacks", "push-wrong-apns-held"]
    )
    held = topics.Watcher(ground.kafka.brokers, "push-wrong-apns-held")
    burst = (bad(n) for n in range(5_000))
    quiet = [success(n) for n in range(1_000, number)]
    dead = [unregistered(n) for n in range(1_000)]
    daemon = ground.listen(table="dead_tokens")
    topics.fill(ground.kafka.brokers, "push-wrong-apns-feedbacks", itertools.chain(quiet[:1_000], burst))
    topics.fill(ground.kafka.brokers, "push-right-apns-feedbacks", itertools.chain(quiet, dead))
    ground.await_committed(6_000 + number, lambda: daemon)
    print(f"held topic: {held.count():,} feedbacks")
    fine = judge(ground, "wrong_apns", number, []) & judge(ground, "right_apns", number, range(1_000))
    restore = [sys.executable, "scripts/restore_tokens.py", "--config", str(ground.directory / "pusher.yaml")]
    restore += ["--since", "2020-01-01", "--game", "right", "--platform", "apns"]
    for command in (restore, [*restore, "--yes"], restore):
        subprocess.run(command, check=True, cwd=ROOT)
    return judge(ground, "right_apns", number, []) and held.count() == 5_000 and fine


RUNS = {"speed": speed, "outage": outage, "guard": guard}


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A directory for the run, deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="pusher-bench-") as directory:
        yield Path(directory)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--feedbacks", type=int, default=200_000, help="of speed, default: %(default)s")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of speed, default: %(default)s")
    parser.add_argument("--dead-every", type=int, default=10, help="of speed: one in so many, default: %(default)s")
    arguments = parser.parse_args()
    with workspace() as directory, contextlib.ExitStack() as cleanup:
        kafka = KafkaServer(directory / "kafka")
        cleanup.callback(kafka.stop)
        kafka.start()
        return 0 if RUNS[arguments.run](Ground(directory, cleanup, kafka), arguments) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}")
