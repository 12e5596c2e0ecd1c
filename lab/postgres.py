"""A PostgreSQL cluster of this tree's own, from Debian's package, with the test database of create_test_db.sql.

PostgreSQL refuses to run as root: then the package's account runs it. Its data are worth nothing, so that a crash may
lose them and starting is quick.
"""

import hashlib
import os
import pwd
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PORT = 8585
PROGRAMS = Path("/usr/lib/postgresql")

SETTINGS = {
    "listen_addresses": "'localhost'",
    "unix_socket_directories": "''",
    "fsync": "off",
    "shared_buffers": "64MB",
}


def start(directory: Path | None = None, port: int = PORT) -> None:
    """Start the cluster, which is made with the test database if it is not there. Waits until it serves."""
    directory = directory or data()
    fresh = not (directory / "postgresql.conf").exists()
    if fresh:
        _make_cluster(directory, port)
    _checked("pg_ctl", "-D", str(directory), "-l", str(directory / "log"), "-w", "start")
    if fresh:
        address = f"host=localhost port={port} user=postgres dbname=postgres"
        script = (ROOT / "lab" / "create_test_db.sql").read_text()
        _checked("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-f", "-", address, text=script)


def stop(directory: Path | None = None) -> None:
    """End the cluster; its clients are disconnected."""
    _checked("pg_ctl", "-D", str(directory or data()), "-m", "fast", "-w", "stop")


def crash(directory: Path) -> None:
    """End a cluster as a loss of its machine would, without a checkpoint."""
    _checked("pg_ctl", "-D", str(directory), "-m", "immediate", "-w", "stop")


def start_standby(directory: Path, port: int, of_port: int) -> None:
    """Copy the cluster at ``of_port`` and start the copy, which follows it by streaming replication. Waits."""
    _own(directory)
    source = ("-h", "127.0.0.1", "-p", str(of_port), "-U", "postgres", "-c", "fast")
    _checked("pg_basebackup", "-D", str(directory), *source, "-R", "--no-sync")
    with (directory / "postgresql.conf").open("a") as configuration:
        configuration.write(f"port = {port}\n")
    _checked("pg_ctl", "-D", str(directory), "-l", str(directory / "log"), "-w", "start")


def promote(directory: Path) -> None:
    """A standby takes writes from now on. Waits."""
    _checked("pg_ctl", "-D", str(directory), "-w", "promote")


def running() -> bool:
    """Whether this tree's cluster runs: pg_ctl compares the number in its pid file with the process."""
    if programs() is None or not data().exists():
        return False
    return _run("pg_ctl", "-D", str(data()), "status").returncode == 0


def data() -> Path:
    """Directory of the cluster. As root it is outside this tree, which may lie where other accounts cannot enter."""
    if _account() is None:
        return ROOT / ".services" / "postgres"
    return Path("/var/tmp") / f"pusher-postgres-{hashlib.sha256(bytes(ROOT)).hexdigest()[:12]}"


def programs() -> Path | None:
    """Directory of the newest PostgreSQL's programs, if there is one."""
    found = (path.parent for path in PROGRAMS.glob("*/bin/initdb"))
    return max(found, key=lambda path: float(path.parent.name), default=None)


def _account() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _own(directory: Path) -> None:
    """Make a directory that belongs to the account that runs PostgreSQL."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account := _account():
        entry = pwd.getpwnam(account)
        os.chown(directory, entry.pw_uid, entry.pw_gid)


def _make_cluster(directory: Path, port: int) -> None:
    """Make an empty cluster that trusts every local user."""
    _own(directory)
    _checked(
        "initdb", "-D", str(directory), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"
    )
    with (directory / "postgresql.conf").open("a") as configuration:
        configuration.writelines(f"{key} = {value}\n" for key, value in {**SETTINGS, "port": str(port)}.items())


def _checked(program: str, *arguments: str, text: str = "") -> None:
    finished = _run(program, *arguments, text=text)
    if finished.returncode:
        raise RuntimeError(f"{program} failed:\n{finished.stdout}{finished.stderr}")


def _run(program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs under the right account, with text on its standard input."""
    directory = programs()
    if directory is None:
        raise RuntimeError("PostgreSQL is not installed: run `scripts/services install`")
    account = _account()
    prefix = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups"] if account else []
    command = [*prefix, str(directory / program), *arguments]
    return subprocess.run(command, cwd="/", input=text, text=True, capture_output=True, check=False)
