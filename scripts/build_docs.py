"""Writes configuration.md, metrics.md and pusher.1 of docs/ from the declarations; --check: are they current?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the declarations stand beside scripts/, not in it

from pusher.commands.migration.differences import DIFFERENCES  # noqa: E402
from pusher.config import Setting, settings  # noqa: E402
from pusher.config.schema import APP, variable  # noqa: E402
from pusher.daemon.admin.prometheus import PROCESS_NAMES, prometheus_name  # noqa: E402
from pusher.telemetry import figures, metrics  # noqa: E402
from pusher.telemetry.metrics import Metric  # noqa: E402
from scripts.manual import manual  # noqa: E402

NOTE = "<!-- Made by scripts/build_docs.py; change the declarations instead. -->"

#: Headings, and what the keys below them begin with; the longest beginning decides.
SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Apps and credentials", ("apns.apps", "apns.certs", "gcm.apps", "gcm.certs", "gcm.firebaseCredentials")),
    ("Apple", ("apns",)),
    ("Google", ("gcm",)),
    ("Connections to Kafka", ("kafka",)),
    (
        "Rate limit and duplicates",
        ("apns.rateLimit", "apns.dedup", "gcm.rateLimit", "gcm.dedup", "rateLimiter", "dedup"),
    ),
    ("What the senders consume", ("queue",)),
    ("Feedbacks", ("feedback",)),
    ("Feedback listener", ("feedbackListeners",)),
    ("Metrics", ("stats",)),
    ("The process", ("gracefulShutdownTimeout", "log", "sentry", "admin", "sqlite")),
)

CONFIGURATION = """\
# Configuration

A setting can be given in four places. The first place in this list that gives a value wins:

1. A flag after the command, `--key=value`, such as `--apns.port=2197`.
2. An environment variable: `PUSHER_` + the key in upper case with `_` for `.`, such as `PUSHER_APNS_PORT`. An empty
   variable counts as not set. A `-` in the key stays a `-`.
3. The file that `--config` names; without `--config`, `./config/default.yaml`.
4. The default.

`pusher settings` prints the effective value of each setting and the place that it comes from.

Keys may be nested or dotted (`queue: {fetch.min.bytes: 1}`). Their case does not matter. In a key, `<app>` is the name
of an app in `apns.apps` or `gcm.apps`: `PUSHER_APNS_CERTS_MY_GAME_KEYID` belongs to the app `my_game` if that app is
configured. A list is a sequence in the file, or one text whose items are separated by commas or white space. A time is
written as `250ms`, `1m30s`, `2h` or `7d`; a bare number counts in the key's unit, which the column "Value" shows.

If a value has the wrong kind or is out of range, pusher does not start: it prints one line and exits with code 2. If no
setting has a key, pusher logs a warning that names the closest known key.
"""

METRICS = """\
# Metrics

pusher sends these metrics to StatsD over UDP in DogStatsD's format, every `stats.statsd.flushIntervalMs`. A datagram
holds many lines, at most 1,432 bytes. `stats.statsd.prefix` is put directly before the name: with the prefix `push`,
`sent` becomes `pushsent:12|c|#platform:apns,game:game,topic:push-game_apns-single`. Counts are added up between two
flushes. A timing sends each observation; if there are more than 200 in a flush, it sends 200 of them with their sample
rate.

Each consumed message is counted in exactly one of `ack`, `failed`, `expired` and `invalid`. The only exceptions are
pushes that the rate limit or the search for duplicates did not let through.

The admin port serves the same metrics to Prometheus at `/metrics`, with the tags as labels. There, a timing is a
histogram in seconds, with `_bucket`, `_sum` and `_count` appended to its name.
"""

FIGURES = """\
## For Prometheus only

pusher computes these values when Prometheus asks for them. At any moment `consumed` is the sum of `outcomes`, `in_hand`
and `dropped`.
"""


def configuration() -> str:
    """docs/configuration.md."""
    parts = [NOTE, CONFIGURATION]
    live = [setting for setting in settings.declared() if setting.has_effect]
    for heading, beginnings in SECTIONS:
        rows = (_setting_row(setting) for setting in live if _section(setting.key) == beginnings)
        parts.append(f"## {heading}\n\n{_table(('Key', 'Value', 'Default', 'Meaning'), rows)}")
    parts.append(_further_spellings(settings.declared()))
    unread = (("`" + setting.key + "`", setting.text) for setting in settings.declared() if not setting.has_effect)
    parts.append(
        "## Keys without effect\n\nConfiguration files for the Go program may contain these keys. pusher accepts "
        "them and logs a warning for each one at the start.\n\n" + _table(("Key", "Why"), unread)
    )
    return "\n".join(parts)


def _section(key: str) -> tuple[str, ...]:
    """The beginnings of the section that a key belongs to."""
    fitting = [
        (len(beginning), beginnings)
        for _heading, beginnings in SECTIONS
        for beginning in beginnings
        if f"{key}.".startswith(f"{beginning}.")
    ]
    if not fitting:
        raise SystemExit(f"scripts/build_docs.py: SECTIONS has no place for {key}")
    return max(fitting)[1]


def _setting_row(setting: Setting[Any]) -> Sequence[str]:
    shown = setting.default_shown
    default = "" if not shown else f"`{shown}`"
    return f"`{setting.key}`", setting.kind.label, default, setting.text


def _further_spellings(declared: Iterable[Setting[Any]]) -> str:
    rows = (
        (f"`{alias}`", f"`{variable(alias).replace(APP.upper(), APP)}`", f"`{setting.key}`")
        for setting in declared
        for alias in setting.aliases
    )
    return "## Alternative names\n\nUsed if the key itself is not set in the same place.\n\n" + _table(
        ("Alternative name", "Variable", "Key"), rows
    )


def metrics_page() -> str:
    """docs/metrics.md."""
    process = f"The metrics of the process itself are: {', '.join(f'`{name}`' for name in PROCESS_NAMES)}.\n"
    return "\n".join(
        [
            NOTE,
            METRICS,
            _table(("Name", "Kind", "Tags", "Prometheus", "Meaning"), map(_metric_row, metrics.ALL)),
            FIGURES,
            _table(("Prometheus", "Kind", "Labels", "Meaning"), map(_figure_row, figures.ALL)),
            process,
        ]
    )


def _metric_row(metric: Metric) -> Sequence[str]:
    kind = "timing, ms" if metric.kind == "timing" else metric.kind
    return f"`{metric.name}`", kind, ", ".join(metric.tags), f"`{prometheus_name(metric)}`", metric.text


def _figure_row(metric: Metric) -> Sequence[str]:
    return f"`{prometheus_name(metric)}`", metric.kind, ", ".join(metric.tags), metric.text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """A `|` would end the cell, and `<app>` outside of code would be HTML."""
    outside = text.split("`")
    outside[::2] = [part.replace("<", "&lt;") for part in outside[::2]]
    return "`".join(outside).replace("|", "\\|")


def migration() -> str:
    """docs/migration.md: written by hand, but for its table."""
    begin, end = "<!-- differences: written by scripts/build_docs.py -->\n", "<!-- end of differences -->"
    text = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    rows = ((one.area, one.there, one.here, one.why) for one in DIFFERENCES)
    table = _table(("What", "The Go program", "pusher", "Why"), rows)
    return f"{before}{begin}{table}{end}{rest.partition(end)[2]}"


PAGES = {
    "docs/configuration.md": configuration,
    "docs/metrics.md": metrics_page,
    "docs/migration.md": migration,
    "docs/pusher.1": manual,
}


def stale() -> Iterator[Path]:
    """Pages that do not say what the declarations say."""
    for name, page in PAGES.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != page():
            yield path


def main(arguments: Sequence[str]) -> int:
    """Writes the pages, or checks them; returns the exit code."""
    found = list(stale())
    if "--check" in arguments:
        for path in found:
            print(f"{path.relative_to(ROOT)} is not current: run scripts/build_docs.py")
        return bool(found)
    for path in found:
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGES[str(path.relative_to(ROOT))](), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
