"""Words, figures and tables that several screens share."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.terminal import cut, printable, width

Facts = Mapping[str, Any]
SIMULATED = "SIMULATED: the built-in endpoint made up these labels. Do not train on them."
#: Columns that a cell may take which is not the last one.
_CELL_MOST = 20
#: Characters of a label in a sentence.
_SHORT_MOST = 40


def percent(share: float) -> str:
    """`87.4%`."""
    return f"{share:.1%}"


def plain(value: Any) -> str:
    """A value as it stands in a CSV."""
    return value if isinstance(value, str) else "" if value is None else codec.dumps(value).decode()


def many(n: int, what: str) -> str:
    """`1 record`, `3 records`."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def has(n: int) -> str:
    """The word after so many."""
    return "has" if n == 1 else "have"


def short(text: str) -> str:
    """A label in a sentence: in quotes where it has blanks, cut where it is long."""
    line = printable(text)
    line = line if len(line) <= _SHORT_MOST else f"{line[: _SHORT_MOST - 1]}…"
    return repr(line) if not line or any(map(str.isspace, line)) else line


# -- tables ------------------------------------------------------------------------------------------------------------


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], most: int = _CELL_MOST, *, cuts: bool = True
) -> Iterator[str]:
    """Rows under their heads, as wide as the terminal; the last column is cut.

    Another cell that is wider than `most` is cut, or with `cuts` false moves what follows it to the right.
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
    """Rows under their heads, the first column to the left, the others to the right; and how many `more` there are."""
    wide = [max(width(cells[at]) for cells in rows) for at in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        gaps = [" " * (most - width(cell)) for cell, most in zip((first, *others), wide, strict=True)]
        lines.append("  ".join(["", first + gaps[0], *(gap + one for gap, one in zip(gaps[1:], others, strict=True))]))
    return [*lines, f"  and {more:,} more"] if more > 0 else lines


def one_line(text: str) -> str:
    """A text as one line without what would steer the terminal."""
    return " ".join(printable(text).split())


def cell_of(text: str, wide: int) -> str:
    """The text as one line of this width, cut where it is longer."""
    line = one_line(text)
    while width(line) > wide:
        line = f"{line[: -2 if line.endswith('…') else -1]}…"
    return line + " " * (wide - width(line))


def right_cell(text: str, wide: int) -> str:
    """The same, to the right."""
    line = cell_of(text, wide).rstrip()
    return " " * (wide - width(line)) + line
