"""Detects quotes that are part of a text: two unrelated ones merge the rows between them."""

import re
from collections.abc import Sequence

LOOK_ROWS = 200  #: The number of rows that show what a column's values look like.

MERGED_ROWS = (
    "a quote is opened and closed again lines later, but each line has its cells without it; "
    'set input.quote = "none" if quotes are part of the text, or \'"\' if this is one record'
)

SPACE_BEFORE_QUOTE = (
    "a space stands before a quote; set input.skip_initial_space = true if such quotes are around cells, or false if "
    "they are part of the text"
)


def is_quoted_behind_space(cell: str, quote: str) -> bool:
    """Whether the cell is in quotes that the parser does not recognize because of a space before them."""
    text = cell.strip()
    return cell[:1] == " " and len(text) > 2 and text[0] == text[-1] == quote and quote not in text[1:-1]


class StrayQuoteDetector:
    """Detects records that are several, merged by two unrelated quotes.

    Mutable state: the values of the first rows, by column.
    """

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._values: list[set[str]] = []
        self._rows = 0

    @property
    def is_learning(self) -> bool:
        """Whether it still needs rows to learn what the columns look like."""
        return self._rows < LOOK_ROWS

    def is_merged(self, raw: Sequence[str], cells: Sequence[str]) -> bool:
        """Whether each line of the record is a row of its own if quotes are ignored."""
        if len(raw) == 1:
            if self.is_learning:
                self._learn(cells)
            return False
        lines = [line.rstrip("\r\n").split(self._delimiter) for line in raw]
        if len(cells) < 2 or any(len(line) != len(cells) for line in lines):
            return False
        # Tabs are rare in texts, but other delimiters are not. For these, a column must also look as it does elsewhere.
        return self._delimiter == "\t" or any(
            self._looks_alike(at, column) for at, column in enumerate(zip(*lines, strict=True))
        )

    def _learn(self, cells: Sequence[str]) -> None:
        self._rows += 1
        if not self._values:
            self._values = [set() for _ in cells]
        for values, cell in zip(self._values, cells, strict=True):
            values.add(cell)

    def _looks_alike(self, at: int, column: Sequence[str]) -> bool:
        if self._values and self._values[at].issuperset(column):
            return True
        shapes = {re.sub(r"\d+", "0", cell) for cell in column}
        return len(shapes) == 1 and "0" in shapes.pop()
