"""A real Apache Kafka broker (KRaft, one node) as a child process, for tests, measurements and `make services`.

The broker runs from the jars that pom.xml names, without Kafka's own scripts or its storage tool: up in two seconds
with 140 MB. It can be killed, frozen and started again on the same port with the same data. Uses the standard library
alone, and works both with and without gevent's patches.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
JARS = ROOT / ".services" / "kafka-jars"

#: of the broker's dependencies, those that a plain broker never loads
UNNEEDED_JARS = (
    "log4j-core,caffeine,commons-beanutils,commons-collections,commons-digester,commons-logging,"
    "jackson-dataformat-csv,jackson-dataformat-yaml,jose4j,jspecify,kafka-tools-api,scala-reflect,snakeyaml,argparse4j"
)

JAVA_FLAGS = ("-Xms32m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

#: the short session time-out lets a killed broker return after 5 s instead of 20
PROPERTIES: dict[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "num.partitions": 3,
    "auto.create.topics.enable": "true",
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "num.network.threads": 1,
    "num.io.threads": 2,
    "background.threads": 1,
    "num.recovery.threads.per.data.dir": 1,
    "log.cleaner.threads": 1,
    "log.cleaner.dedupe.buffer.size": 2097152,
    "controlled.shutdown.enable": "false",
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
}

META_PROPERTIES = "version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\nnode.id=1\ndirectory.id=bm9kZTEtZGlyZWN0b3J5MQ\n"


class KafkaServer:
    """One broker in a directory of its own, at 127.0.0.1 on free ports unless a port is given.

    With outlive the broker goes on when this process ends; otherwise it never does, however this process ends.
    properties are broker settings beside or instead of PROPERTIES. version is one of Kafka, "" that of pom.xml.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        outlive: bool = False,
        properties: Mapping[str, object] | None = None,
        version: str = "",
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        #: The address that clients are told; until the start it may be changed for that of a relay.
        self.brokers = f"{host}:{self.port}"
        self._outlive = outlive
        self._properties = dict(properties or {})
        self._version = version
        self._controller_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running broker; ValueError when there is none."""
        if self._process is None:
            raise ValueError(f"the Kafka of {self.directory} is not running")
        return self._process.pid

    def start(self, timeout_s: float = 60) -> None:
        """Start the broker and wait until it serves metadata. RuntimeError with the end of its log when it does not."""
        self.launch()
        self.wait_until_ready(timeout_s)

    def launch(self) -> None:
        """Start the broker and do not wait."""
        command = [
            java(),
            *JAVA_FLAGS,
            "-cp",
            f"{fetch_jars(self._version)}/*",
            "kafka.Kafka",
            str(self._write_properties()),
        ]
        if not self._outlive:
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.directory / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, start_new_session=True
            )
        (self.directory / "pid").write_text(f"{self._process.pid}\n")

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Wait until a broker that was launched serves metadata. RuntimeError as start."""
        if self._process is None:
            raise ValueError(f"the Kafka of {self.directory} is not running")
        self._wait_until_ready(self._process, time.monotonic() + timeout_s)

    def kill(self) -> None:
        """End the broker as a power cut would: kill -9."""
        self._end(signal.SIGKILL)

    def stop(self, timeout_s: float = 10) -> None:
        """End the broker in order, by force after timeout_s. Does nothing when it is not running."""
        if self._process is not None:
            self._end(signal.SIGTERM, timeout_s)

    def restart(self) -> None:
        """Kill the broker and start it again on the same port with the same data; takes about 5 s."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop the broker's threads: its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _write_properties(self) -> Path:
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        meta = data / "meta.properties"
        if not meta.exists():
            meta.write_text(META_PROPERTIES)
        controller = f"127.0.0.1:{self._controller_port}"
        properties = PROPERTIES | {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.brokers}",
            "log.dirs": data.resolve(),
        }
        path = (self.directory / "server.properties").resolve()
        path.write_text("".join(f"{key}={value}\n" for key, value in (properties | self._properties).items()))
        return path

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not serves_metadata(self.port):
            if process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            self._end(signal.SIGKILL)
            log = (self.directory / "kafka.log").read_text(errors="replace")
            raise RuntimeError(f"Kafka does not start in {self.directory}; its log ends:\n{log[-2000:]}")

    def _end(self, how: signal.Signals, timeout_s: float = 10) -> None:
        process, self._process = self._process, None
        if process is None:
            raise ValueError(f"the Kafka of {self.directory} is not running")
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        (self.directory / "pid").unlink(missing_ok=True)


def serves_metadata(port: int) -> bool:
    """Whether the broker at 127.0.0.1:port answers a Metadata request (version 4, no topics) that lists a broker."""
    body = struct.pack(">hhih", 3, 4, 1, -1) + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.recv(16, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == 16 and struct.unpack(">iiii", answer)[3] > 0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def java() -> str:
    """Path of Java, or RuntimeError that says how to get one."""
    found = shutil.which("java")
    if found is None:
        raise RuntimeError("Kafka needs Java 17 or newer: run `scripts/services install`")
    return found


def fetch_jars(version: str = "") -> Path:
    """Directory with the broker's jars; the first call fetches them with Maven (34 MB). Safe in several processes.

    Without a version it is that of pom.xml. Kafka runs without ZooKeeper since 2.8.
    """
    jars = JARS.with_name(f"{JARS.name}-{version}") if version else JARS
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with (JARS.parent / "kafka-jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            partial = jars.with_name(f"{jars.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            # what is not needed is known of the newest version alone
            _run_maven(partial, f"-Dkafka.version={version}" if version else f"-DexcludeArtifactIds={UNNEEDED_JARS}")
            partial.rename(jars)
    return jars


def _run_maven(target: Path, choice: str) -> None:
    if shutil.which("mvn") is None:
        raise RuntimeError("the first start of Kafka needs Maven: run `scripts/services install`")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", choice]
    command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), *goal, f"-DoutputDirectory={target}"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"Maven could not fetch Kafka's jars:\n{finished.stdout[-2000:]}")
