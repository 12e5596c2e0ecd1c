"""Is a distribution complete? ``distribution.py FILE ...``: each wheel and source distribution, against the tree."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = "pusher/"
#: What an installation has beside the package, below the prefix of its environment.
SHARED = "config/"
#: What the source distribution need not have.
DEVELOPMENT = (".ci/", ".dockerignore", ".gitignore", "CONTRIBUTING.md", "MANIFEST.in", "bench/", "lab/", "tests/")


def main() -> int:
    """Prints what is missing; 1 when anything is."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    missing = []
    for name in sys.argv[1:]:
        missing += [f"{Path(name).name} has no {file}" for file in sorted(_missing(Path(name), tracked))]
    for line in missing:
        print(f"distribution: {line}", file=sys.stderr)
    return 1 if missing else 0


def _missing(path: Path, tracked: list[str]) -> set[str]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
        shared = {f"{SHARED}{Path(name).name}" for name in names if ".data/data/share/pusherd/" in name}
        found = {*names, *shared} | {"LICENSE" for name in names if name.endswith("licenses/LICENSE")}
        return {file for file in tracked if file.startswith((CODE, SHARED)) or file == "LICENSE"} - found
    with tarfile.open(path) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    return {file for file in tracked if not file.startswith(DEVELOPMENT)} - found


if __name__ == "__main__":
    sys.exit(main())
