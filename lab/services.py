"""Kafka on localhost:9941 and PostgreSQL on localhost:8585, as config/default.yaml expects them.

Both are real and keep their data until `clean`. What is missing is installed: Debian's packages with apt-get (as root
or by sudo), Kafka's jars and Helm with Maven. Redis is among them: tests start servers of their own. Only processes
that were started from this tree are ever ended.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lab import helm, postgres
from lab.kafka.server import KafkaServer, fetch_jars

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".services"
KAFKA_PORT = 9941
KAFKA_DIRECTORY = STATE / "kafka"

#: what keeps Debian's package from starting a cluster of its own
NO_MAIN_CLUSTER = Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")

COMMANDS = {
    "install": "install what is missing, start nothing",
    "start": "start what does not run",
    "stop": "stop what runs; data stays",
    "restart": "stop and start, with the same data",
    "kill": "end Kafka with kill -9",
    "status": "say what runs; exit status 1 unless all do",
    "clean": "stop and delete all data",
}


class Service(NamedTuple):
    """One server: how to see whether it runs, start it, stop it and find its data."""

    name: str
    port: int
    running: Callable[[], bool]
    start: Callable[[], None]
    stop: Callable[[], None]
    data: Callable[[], Path]


def start_kafka() -> None:
    """Start the broker; it outlives this process. Waits until it serves."""
    KafkaServer(KAFKA_DIRECTORY, port=KAFKA_PORT, host="localhost", outlive=True).start()


def kafka_pid() -> int | None:
    """Of the broker that this tree started, if it still runs: the number alone may be another process by now."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((KAFKA_DIRECTORY / "pid").read_text())
        if bytes(KAFKA_DIRECTORY / "server.properties") in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def stop_kafka(how: signal.Signals = signal.SIGTERM, grace_s: float = 15) -> None:
    """End the broker, in order unless told otherwise; by force after grace_s."""
    deadline = time.monotonic() + grace_s
    while (pid := kafka_pid()) is not None:
        os.kill(pid, signal.SIGKILL if time.monotonic() > deadline else how)
        time.sleep(0.1)


SERVICES = {
    "kafka": Service(
        "Kafka", KAFKA_PORT, lambda: kafka_pid() is not None, start_kafka, stop_kafka, lambda: KAFKA_DIRECTORY
    ),
    "postgres": Service("PostgreSQL", postgres.PORT, postgres.running, postgres.start, postgres.stop, postgres.data),
}


def install() -> None:
    """Fetch what is missing: Java, Maven, Kafka's jars, Helm, and Debian's packages for servers, curl and Chromium."""
    packages = [] if shutil.which("java") else ["default-jre-headless"]
    if (not (STATE / "kafka-jars").is_dir() or helm.missing()) and not shutil.which("mvn"):
        packages.append("maven")
    if not shutil.which("curl"):
        packages.append("curl")  # which the documents call
    if not shutil.which("tinyproxy"):
        packages.append("tinyproxy-bin")  # the program without the server that runs on the machine
    if not shutil.which("chromium"):
        packages.append("chromium")
    if postgres.programs() is None:
        as_root("mkdir", "-p", str(NO_MAIN_CLUSTER.parent))
        as_root("sh", "-c", f"echo 'create_main_cluster = false' > {NO_MAIN_CLUSTER}")
        packages.append("postgresql")
    # tests start servers of their own; those that the packages have started are nobody's
    of_tests = [name for name in ("redis-server", "pgbouncer") if shutil.which(name) is None]
    if packages or of_tests:
        install_packages(*packages, *of_tests)
    if of_tests and Path("/run/systemd/system").exists():
        as_root("systemctl", "disable", "--now", *of_tests)
    fetch_jars()
    helm.fetch()


def install_packages(*names: str) -> None:
    """Install Debian packages."""
    print(f"services: installing {', '.join(names)}", flush=True)
    as_root("apt-get", "update", "-q")
    as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qy", "--no-install-recommends", *names)


def as_root(*command: str) -> None:
    """Run a command as root, silently unless it fails."""
    line = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command]
    if not shutil.which(line[0]):
        raise RuntimeError(f"`{' '.join(command)}` has to run as root, and there is no sudo")
    finished = subprocess.run(line, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if finished.returncode:
        raise RuntimeError(f"`{' '.join(line)}` failed:\n{finished.stdout[-2000:]}")


def start(services: list[Service]) -> None:
    """Start those that do not run yet."""
    install()
    missing = [service for service in services if not service.running()]
    for service in missing:
        if listens(service.port):
            raise RuntimeError(f"{service.name} needs port {service.port}, which a program not started from here uses")
    for service in missing:
        service.start()


def listens(port: int) -> bool:
    """Whether anything accepts connections at localhost:port."""
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


def stop(services: list[Service]) -> None:
    """Stop those that run."""
    for service in services:
        if service.running():
            service.stop()


def run(command: list[str]) -> int:
    """Run a command while the services are up and return its exit status.

    Those that are not up start empty, and are stopped and emptied afterwards.
    """
    with exclusive():
        down = [service for service in SERVICES.values() if not service.running()]
        empty(down)
        start(down)
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        with exclusive():
            stop(down)
            empty(down)


def empty(services: list[Service]) -> None:
    """Delete the data of services that do not run."""
    for service in services:
        shutil.rmtree(service.data(), ignore_errors=True)


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """One process at a time starts or stops services; the others wait."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def act(command: str, services: list[Service]) -> int:
    """Carry out one of COMMANDS and say what is up afterwards. Returns the exit status."""
    if command == "install":
        install()
        return 0
    if command == "kill":
        stop_kafka(signal.SIGKILL)
    if command in ("stop", "restart", "clean"):
        stop(services)
    if command in ("start", "restart"):
        start(services)
    if command == "clean":
        empty(services)
    for service in services:
        print(f"{service.name} {'runs' if service.running() else 'does not run'} at localhost:{service.port}")
    return int(command == "status" and not all(service.running() for service in services))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/services", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("services", nargs="*", metavar="kafka|postgres", help="default: both")
    running = commands.add_parser("run", help="run a program while the services are up")
    running.add_argument("argv", nargs=argparse.REMAINDER, metavar="PROGRAM ...")
    arguments = parser.parse_args()
    if unknown := set(getattr(arguments, "services", [])) - set(SERVICES):
        parser.error(f"no such service: {', '.join(unknown)}")
    return arguments


def main() -> int:
    """Carry out the command line. Returns the exit status."""
    arguments = parsed()
    # a terminated `run` must stop what it started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.command == "run":
        return run(arguments.argv)
    with exclusive():
        return act(arguments.command, [SERVICES[name] for name in arguments.services or SERVICES])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"services: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
