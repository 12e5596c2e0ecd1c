"""Photographs a status page with headless Chromium: ``screenshot.py URL FILE [--dark] [--width W] [--height H]``."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile

#: ms that the page gets to ask for its data and to draw itself.
BUDGET_MS = 4_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def main() -> int:
    """Writes the PNG; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1000)
    args = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium is not there: apt-get install chromium", file=sys.stderr)
        return 2
    look = ["--blink-settings=preferredColorScheme=0"] if args.dark else ["--blink-settings=preferredColorScheme=1"]
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                chromium,
                *FLAGS,
                *look,
                f"--user-data-dir={profile}",
                f"--window-size={args.width},{args.height}",
                f"--virtual-time-budget={BUDGET_MS}",
                f"--screenshot={args.file}",
                args.url,
            ],
            capture_output=True,
            check=False,
            timeout=60,
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
