"""Helm without its program, for the tests of the chart and for `scripts/chart`.

Helm's own code as a C library comes from Maven Central (helm-java), fetched by `scripts/services install`: no other
registry has it built. `python -m lab.helm` takes as much of helm's command line as is needed here; the library runs in
no other process than that, for its runtime takes signals and threads over. Where Maven Central has no library for the
platform, `helm` must be on the PATH and is called in its place.
"""

import argparse
import ctypes
import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIRECTORY = ROOT / ".services" / "helm"

VERSION = "0.0.21"  # of helm-java: Helm 3.21.0
PLATFORM = f"{platform.system()} {platform.machine()}"
#: the artifact for a platform, and the checksum of its jar
ARTIFACTS = {"Linux x86_64": ("linux-amd64", "a01b3a7a746e67ac9541d147dabcea0b295ea1cbb0c456a3f2f5b911ce75bf7a")}


class Result(ctypes.Structure):
    """What every function of the library returns."""

    _fields_ = tuple((name, ctypes.c_char_p) for name in ("out", "error", "stdout", "stderr"))


class LintOptions(ctypes.Structure):
    """As the header beside the library declares it."""

    _fields_ = (("path", ctypes.c_char_p), ("strict", ctypes.c_int), ("quiet", ctypes.c_int))


class TemplateOptions(ctypes.Structure):
    """As the header beside the library declares it."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("name", "version", "chart", "namespace", "kube_version")),
        *((name, ctypes.c_int) for name in ("dependency_update", "skip_crds")),
        *((name, ctypes.c_char_p) for name in ("values", "set_files", "values_files")),
        *((name, ctypes.c_char_p) for name in ("cert_file", "key_file", "ca_file")),
        *((name, ctypes.c_int) for name in ("insecure_skip_tls_verify", "plain_http")),
        ("keyring", ctypes.c_char_p),
        ("debug", ctypes.c_int),
        ("repository_config", ctypes.c_char_p),
    )


def library() -> Path:
    """Where the library of this platform is, once `fetch` has been called."""
    artifact, _ = ARTIFACTS[PLATFORM]
    return DIRECTORY / f"{artifact}-{VERSION}.so"


def missing() -> bool:
    """Whether `fetch` has to be called, which needs Maven."""
    return PLATFORM in ARTIFACTS and not library().exists()


def fetch() -> None:
    """Fetch the library with Maven (28 MB) unless it is there. Safe in several processes."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with (DIRECTORY / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing():
            _unpack(_download())


def _download() -> Path:
    if shutil.which("mvn") is None:
        raise RuntimeError("Helm is fetched with Maven: run `scripts/services install`")
    artifact, _ = ARTIFACTS[PLATFORM]
    goal = ["dependency:copy", f"-Dartifact=com.marcnuri.helm-java:{artifact}:{VERSION}"]
    command = ["mvn", "-q", "-B", *goal, f"-DoutputDirectory={DIRECTORY}"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"Maven could not fetch Helm:\n{finished.stdout[-2000:]}")
    return DIRECTORY / f"{artifact}-{VERSION}.jar"


def _unpack(jar: Path) -> None:
    artifact, expected = ARTIFACTS[PLATFORM]
    found = hashlib.sha256(jar.read_bytes()).hexdigest()
    if found != expected:
        raise RuntimeError(f"{jar} has the SHA-256 {found}, not {expected}: it is not what was reviewed")
    partial = DIRECTORY / "partial"
    with zipfile.ZipFile(jar) as archive, archive.open(f"helm-{artifact}.so") as source, partial.open("wb") as target:
        shutil.copyfileobj(source, target)
    partial.rename(library())
    jar.unlink()


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm with these arguments and return what it said, whatever its status. Waits; fetches the library first.

    RuntimeError where there is no Helm to be had.
    """
    if PLATFORM in ARTIFACTS:
        fetch()
        command = [sys.executable, "-m", "lab.helm"]
    elif found := shutil.which("helm"):
        command = [found]
    else:
        raise RuntimeError(f"there is no library of Helm for {PLATFORM}: install Helm 3, so that `helm` is on the PATH")
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def parsed() -> argparse.Namespace:
    """The command line, spelt as helm's."""
    parser = argparse.ArgumentParser(prog="python -m lab.helm", description="Helm, as far as the chart needs it.")
    commands = parser.add_subparsers(dest="command", required=True)
    lint = commands.add_parser("lint", help="look for what is wrong in a chart")
    lint.add_argument("chart")
    lint.add_argument("--strict", action="store_true", help="fail at warnings too")
    template = commands.add_parser("template", help="print what a chart renders")
    template.add_argument("name")
    template.add_argument("chart")
    template.add_argument("--kube-version")
    template.add_argument("--values")
    return parser.parse_args()


def main() -> int:
    """Carry out the command line. Returns the exit status."""
    arguments = parsed()
    functions = ctypes.CDLL(str(library()))
    if arguments.command == "lint":
        call = functions.Lint
        options: ctypes.Structure = LintOptions(path=arguments.chart.encode(), strict=arguments.strict)
    else:
        call = functions.Template
        options = TemplateOptions(
            name=arguments.name.encode(),
            chart=arguments.chart.encode(),
            kube_version=(arguments.kube_version or "").encode(),
            values_files=(arguments.values or "").encode(),
        )
    call.restype = Result
    result = call(ctypes.byref(options))
    # the last line of lint's findings is the library's own
    said, failed, _ = (result.out or b"").decode().partition("Failed: true")
    print(said.removesuffix("Failed: false"), end="")
    if result.error:
        print(result.error.decode(), file=sys.stderr)
    return 1 if failed or result.error else 0


if __name__ == "__main__":
    sys.exit(main())
