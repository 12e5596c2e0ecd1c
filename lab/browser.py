"""The status page in a real browser: Debian's Chromium without a screen, for tests and pictures."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

#: ms of the page's own clock that it gets to ask for its data and to draw itself.
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


def browse(url: str, *flags: str, dark: bool = False, width: int = 1280, height: int = 1000) -> str:
    """Opens a page; what Chromium printed. RuntimeError where it is not installed or fails."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("chromium is not there: run `scripts/services install`")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                chromium,
                *FLAGS,
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--virtual-time-budget={BUDGET_MS}",
                *flags,
                url,
            ],
            capture_output=True,
            check=False,
            timeout=120,
        )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2_000:])
    return done.stdout.decode()


def picture(url: str, file: Path, *, dark: bool = False, width: int = 1280, height: int = 1000) -> None:
    """Writes a PNG."""
    browse(url, f"--screenshot={file}", dark=dark, width=width, height=height)


def said(dom: str) -> Any:
    """What a script of a test left in an element ``output`` at the end, as JSON."""
    text = dom.rpartition("<output>")[2].partition("</output>")[0]
    return json.loads(html.unescape(text))


def axe() -> bytes:
    """The script of axe-core, which looks for what keeps people from using a page."""
    return (resources.files("axe_core_python") / "axe.min.js").read_bytes()
