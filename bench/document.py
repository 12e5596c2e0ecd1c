"""What measurements leave in documents: tables, and sections that a program writes anew between two marks."""

from pathlib import Path

Table = list[list[str]]


def markdown(rows: Table) -> str:
    """A table, its head first, whose source is as readable as what is made of it."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])


def rewrite(file: Path, section: str, text: str) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->`; ValueError when the marks are missing."""
    begin, end = f"<!-- {section} -->\n", f"<!-- /{section} -->"
    whole = file.read_text()
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{file} has no section {section}")
    file.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")
