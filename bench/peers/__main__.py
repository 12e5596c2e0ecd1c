"""What a push costs other libraries that send to Apple, against the same nginx: sending only, no Kafka, no feedback.

    python -m bench.peers [--pushes 50000] [--in-flight 300] [--repeats 3]

Needs Go, and the package indexes of Python and Go: what is measured is installed under .services/peers. The table goes
to bench/peers.md.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from bench.document import Table, markdown, rewrite
from bench.ground import reference_s
from lab.nginx import Nginx, private_key_pem
from lab.services import ROOT, STATE

HERE = Path(__file__).parent
PAGE = HERE.parent / "peers.md"
INSTALLED = STATE / "peers"
AIOAPNS = "aioapns==4.0"

#: us of CPU a push, pushes/s
Cost = tuple[float, float]


class Peers:
    """nginx, a key, and how much is sent."""

    def __init__(self, directory: Path, pushes: int, in_flight: int, cleanup: contextlib.ExitStack) -> None:
        self.pushes, self.in_flight = str(pushes), str(in_flight)
        self.key = directory / "authkey.p8"
        self.key.write_bytes(private_key_pem(ec.generate_private_key(ec.SECP256R1())))
        self.nginx = Nginx(directory / "nginx")
        cleanup.callback(self.nginx.stop)
        self.nginx.start()

    def pusher(self) -> Cost:
        """The HTTP/2 engine of this tree, which makes of a push what goes over the wire."""
        command = [sys.executable, "-m", "bench.http2", "--json", "--runs", "1"]
        return _run([*command, "--requests", self.pushes, "--in-flight", self.in_flight])

    def aioapns(self) -> Cost:
        """Python, asyncio and h2."""
        python, certificate = INSTALLED / "python" / "bin" / "python", self.nginx.certificate
        arguments = [str(self.nginx.port), str(certificate), str(self.key), self.pushes, self.in_flight]
        return _run([str(python), str(HERE / "send_with_aioapns.py"), *arguments])

    def apns2(self) -> Cost:
        """Go and its own HTTP/2."""
        arguments = [str(self.nginx.port), str(self.key), self.pushes, self.in_flight]
        return _run([str(INSTALLED / "apns2"), *arguments], SSL_CERT_FILE=str(self.nginx.certificate))


def _run(command: list[str], **variables: str) -> Cost:
    environment = {**os.environ, **variables}
    finished = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    ((cpu_us, rate_s),) = json.loads(finished.stdout)
    return cpu_us, rate_s


def install() -> None:
    """Get what is measured."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    python = INSTALLED / "python"
    if not python.exists():
        venv.create(python, with_pip=True)
    subprocess.run([python / "bin" / "pip", "install", "-q", "--disable-pip-version-check", AIOAPNS], check=True)
    subprocess.run(["go", "build", "-o", INSTALLED / "apns2", "."], cwd=HERE / "apns2", check=True)


def table(costs: dict[str, list[Cost]]) -> Table:
    """A row for each, lowest and median of the repeats."""
    rows = [["what sends", "CPU, us a push, lowest", "median", "pushes/s, highest"]]
    for name, found in costs.items():
        cpu_us, rates_s = zip(*found, strict=True)
        rows.append([name, f"{min(cpu_us):.1f}", f"{statistics.median(cpu_us):.1f}", f"{max(rates_s):,.0f}"])
    return rows


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pushes", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--in-flight", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Measure them in turn."""
    arguments = parsed()
    install()
    costs: dict[str, list[Cost]] = {}
    references_ms = []
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as cleanup:
        peers = Peers(Path(directory), arguments.pushes, arguments.in_flight, cleanup)
        measured: dict[str, Callable[[], Cost]] = {
            "pusher's HTTP/2 engine": peers.pusher,
            "apns2 0.25.0 (Go)": peers.apns2,
            AIOAPNS.replace("==", " ") + " (Python)": peers.aioapns,
        }
        for _ in range(arguments.repeats):
            for name, measure in measured.items():
                references_ms.append(reference_s() * 1000)
                costs.setdefault(name, []).append(measure())
                print(f"reference {references_ms[-1]:.0f} ms, {name}: {costs[name][-1]}", flush=True)
    how = (
        f"{arguments.pushes:,} pushes, {arguments.in_flight} in flight over one connection, {arguments.repeats} "
        f"repeats in turn; the reference loop took {min(references_ms):.0f} to {max(references_ms):.0f} ms of CPU."
    )
    print(markdown(table(costs)))
    rewrite(PAGE, "peers", f"{how}\n\n{markdown(table(costs))}")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
