"""Formats words, figures, and tables for several views."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.terminal import cut, printable, width

Facts = Mapping[str, Any]
SIMULATED = "SIMULATED: the built-in endpoint made up these labels. Do not train on them."
#: The most columns of a cell, except in the last column.
_CELL_MOST = 20
#: The most characters of a label in a sentence.
_SHORT_MOST = 40


def percent(share: float) -> str:
    """Format a share: `87.4%`."""
    return f"{share:.1%}"


def plain(value: Any) -> str:
    """Format a value as in a CSV."""
    return value if isinstance(value, str) else "" if value is None else codec.dumps(value).decode()


def many(n: int, what: str) -> str:
    """Format a count: `1 record`, `3 records`."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def has(n: int) -> str:
    """Return the verb after a count."""
    return "has" if n == 1 else "have"


def short(text: str) -> str:
    """Format a label for a sentence: quoted if it has white space, shortened if it is long."""
    line = printable(text)
    line = line if len(line) <= _SHORT_MOST else f"{line[: _SHORT_MOST - 1]}…"
    return repr(line) if not line or any(map(str.isspace, line)) else line


# -- tables ------------------------------------------------------------------------------------------------------------


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], most: int = _CELL_MOST, *, cuts: bool = True
) -> Iterator[str]:
    """Format rows below their heads, as wide as the terminal. The last column is cut.

    Other cells wider than `most` are cut or, if `cuts` is false, push the following cells to the right.
    """
    all_rows = [list(head), *([one_line(cell) for cell in row] for row in rows)]
    room = shutil.get_terminal_size((100, 24)).columns - 1  # the last column is not used
    wides = [min(most, max(width(row[at]) for row in all_rows)) for at in range(len(head) - 1)]
    last = max(10 if cuts else 20, room - 2 - sum(wides) - 2 * len(wides))
    for row in all_rows:
        cells = [
            cell_of(cell, wide if cuts else max(wide, width(cell))) for cell, wide in zip(row, wides, strict=False)
        ]
        yield "  " + "  ".join([*cells, cut(row[-1], last)]).rstrip()


def aligned(rows: Sequence[Sequence[str]], more: int = 0) -> list[str]:
    """Format rows below their heads, all columns but the first right-aligned, and a line that counts `more` rows."""
    wide = [max(width(cells[at]) for cells in rows) for at in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        gaps = [" " * (most - width(cell)) for cell, most in zip((first, *others), wide, strict=True)]
        lines.append("  ".join(["", first + gaps[0], *(gap + one for gap, one in zip(gaps[1:], others, strict=True))]))
    return [*lines, f"  and {more:,} more"] if more > 0 else lines


def one_line(text: str) -> str:
    """Return the text on one line, without terminal control characters."""
    return " ".join(printable(text).split())


def cell_of(text: str, wide: int) -> str:
    """Return the text on one line of this width, shortened if it is longer."""
    line = one_line(text)
    while width(line) > wide:
        line = f"{line[: -2 if line.endswith('…') else -1]}…"
    return line + " " * (wide - width(line))


def right_cell(text: str, wide: int) -> str:
    """Do the same as `cell_of`, but right-aligned."""
    line = cell_of(text, wide).rstrip()
    return " " * (wide - width(line)) + line
