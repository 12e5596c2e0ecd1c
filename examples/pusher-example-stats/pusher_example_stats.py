"""The stats reporter ``jsonfile``: each series that has changed becomes a line of JSON in a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path as FilePath

from pusher.config import Config, Setting
from pusher.config.kinds import Path
from pusher.errors import StartError
from pusher.telemetry.stats import Sample

PATH = Setting("stats.jsonfile.path", Path(), "", "File to which metrics are added.")


def open_reporter(config: Config) -> JsonFile:
    """Opens the reporter; the entry point names this function."""
    if not config[PATH]:
        raise StartError(f"set {PATH.key}, the file of the stats reporter jsonfile")
    return JsonFile(FilePath(config[PATH]))


class JsonFile:
    """A ``Reporter`` that appends to the file."""

    def __init__(self, path: FilePath) -> None:
        self._path = path

    def report(self, samples: Sequence[Sample]) -> None:
        """Writes all samples at once. If the disk is full it raises; pusher logs that and drops this report."""
        with self._path.open("a") as file:
            file.writelines(_lines(samples, int(time.time())))

    def check(self) -> str:
        """Verifies that the file can be written to."""
        if not os.access(self._path.parent, os.W_OK):
            raise OSError(f"{self._path.parent}: cannot be written")
        return f"{self._path} can be written"


def _lines(samples: Iterable[Sample], now_s: int) -> Iterable[str]:
    for sample in samples:
        line: dict[str, object] = {
            "at": now_s,
            "name": sample.metric.name,
            **dict(zip(sample.metric.tags, sample.tags, strict=True)),
        }
        if sample.metric.kind == "count":
            line["added"] = sample.added
        elif sample.metric.kind == "gauge":
            line["value"] = sample.value
        else:
            line["durations_ms"] = list(sample.durations_ms)
        yield f"{json.dumps(line)}\n"
