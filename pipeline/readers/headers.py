"""Finds the row that names a table's columns, and makes the names unique."""

import re
from collections import Counter
from collections.abc import Collection, Sequence

#: The number of rows to search for column names after a title.
_TITLE_ROWS = 20
#: The share of rows that must have as many cells as the header, so that it is no accident.
MIN_SHARE = 0.8


def find_header(rows: Sequence[Sequence[str]]) -> int:
    """Return the index of the row that names the columns if the first is plainly a title or a comment; else 0."""
    widths = Counter(map(len, rows))
    width = max(widths, key=lambda each: (widths[each], each), default=0)
    if width < 2 or not _is_title(rows[0], width):
        return 0
    for at, row in enumerate(rows[:_TITLE_ROWS]):
        if len(row) == width and not _is_title(row, width):
            below = rows[at + 1 :]
            return at if below and sum(len(row) == width for row in below) >= MIN_SHARE * len(below) else 0
    return 0


def _is_title(row: Sequence[str], width: int) -> bool:
    """Whether the row cannot be the header of such a table: one cell, hardly any filled, or a comment."""
    filled = sum(1 for cell in row if cell.strip())
    return len(row) == 1 or 2 * filled < width or (len(row) != width and row[0].lstrip().startswith("#"))


def format_row(row: Sequence[str]) -> str:
    """Format the first cells for a message."""
    return ", ".join(repr(cell[:40]) for cell in row[:4]) + (", ..." if len(row) > 4 else "")


def looks_like_a_record(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row begins with a number, as all of them do."""
    if len(rows) < 2 or len(rows[0]) < 2 or not all(_is_number(row[0]) for row in rows):
        return False
    # pandas numbers columns that have no names.
    return list(rows[0]) != [str(number) for number in range(len(rows[0]))]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d+([.,]\d+)?\s*", cell) is not None


def unique_columns(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the column names of a header, each only once, and notes about names that were made up."""
    names, notes = [], []
    used = set(cells)
    for number, cell in enumerate(cells, 1):
        if not cell.strip():
            name = unused_name(f"column_{number}", used)
            notes.append(f"column {number} has no name and is called {name!r}")
        elif cell in names:
            name = unused_name(f"{cell}_2", used)
            notes.append(f"two columns are named {cell!r}: column {number} is called {name!r}")
        else:
            name = cell
        used.add(name)
        names.append(name)
    return names, notes


def unused_name(name: str, used: Collection[str]) -> str:
    """Return this name, which ends with a number. The number increases until the name is unused."""
    stem, _, number = name.rpartition("_")
    at = int(number)
    while f"{stem}_{at}" in used:
        at += 1
    return f"{stem}_{at}"
