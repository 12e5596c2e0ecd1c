"""What runs have shown, as rows: kept in a file of JSON lines, printed, and written into docs/reliability.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.document import markdown, rewrite
from tests.faults.driver import CLIENTS
from tests.faults.result import Result

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_HEADINGS = (
    "run",
    "what breaks",
    "client",
    "seed",
    "messages",
    "lost",
    "repeats (most allowed)",
    "longest standstill",
    "",
)


class Row(NamedTuple):
    """One run."""

    run: str
    about: str
    client: str
    seed: int
    good: bool
    messages: int
    lost: int
    repeats: int
    bound: int
    standstill_s: float

    def cells(self) -> tuple[str, ...]:
        """As text."""
        return (
            self.run,
            self.about,
            self.client,
            str(self.seed),
            f"{self.messages:,}",
            f"{self.lost:,}",
            f"{self.repeats:,} ({self.bound:,})",
            f"{self.standstill_s:.1f} s",
            "" if self.good else "BAD",
        )


def row(run: str, about: str, client: str, seed: int, result: Result) -> Row:
    """Of a result. ``client``: of Kafka, that the daemons used."""
    verdict = result.verdict
    return Row(
        run,
        about.splitlines()[0],
        client,
        seed,
        result.good,
        verdict.messages,
        verdict.missing,
        verdict.repeats,
        result.bound,
        round(result.standstill_s, 1),
    )


def append(file: Path, added: Row) -> None:
    """Keeps it."""
    with file.open("a") as lines:
        lines.write(json.dumps(added._asdict()) + "\n")


def table(rows: Sequence[Row]) -> str:
    """In Markdown, without the column that says that something is bad where nothing is."""
    width = len(_HEADINGS) - all(row.good for row in rows)
    return markdown([list(line[:width]) for line in (_HEADINGS, *(row.cells() for row in rows))])


def main() -> None:
    """`python -m tests.faults.report FILE...`: writes the table of all rows in the files into the document."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=main.__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="what --results of runs wrote")
    lines = [line for file in parser.parse_args().files for line in file.read_text().splitlines()]
    rows = [Row(**json.loads(line)) for line in lines]
    order = list(dict.fromkeys(row.run for row in rows))
    rows.sort(key=lambda row: (order.index(row.run), CLIENTS.index(row.client), row.seed))
    rewrite(PAGE, "runs", table(rows))


if __name__ == "__main__":
    main()
