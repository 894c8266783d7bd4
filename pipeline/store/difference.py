"""Finds which rows of a changed file differ from the ledger, for a person who wants them back."""

import asyncio
import codecs
import csv
import io
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from pipeline import codec
from pipeline.records import Outcome
from pipeline.store.projection import RowFormat

Row = tuple[object, ...]
Blocks = AsyncIterator[list[tuple[int, Outcome]]]

#: How many rows are searched for the next match after two files differ, and the most differences that are counted.
WINDOW, MOST = 200, 1_000
_MOST_KEYS = 5
_DELIMITERS = (",", ";", "\t", "|")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CELL_CHARS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class FileProof:
    """The result of comparing one file, or a table in a database, with the ledger. `rows` counts rows that agree."""

    name: str
    ok: bool
    rows: int
    detail: str


@dataclass(slots=True)
class Difference:
    """The keys of changed and missing rows, how many rows belong to no record, and whether all rows were compared."""

    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: int = 0
    whole: bool = True

    @property
    def count(self) -> int:
        return len(self.changed) + len(self.missing) + self.added

    def __str__(self) -> str:
        if not self.count:
            return "Its rows have the ledger's values: it was written again by another program."
        lines = [
            _format_rows(self.changed, "has other values", "have other values"),
            _format_rows(self.missing, "is missing", "are missing"),
            f"{_rows(self.added)} {'is' if self.added == 1 else 'are'} in no ledger" if self.added else "",
        ]
        more = "" if self.whole else " There are more that were not counted."
        return f"Of its rows, {'; '.join(filter(None, lines))}.{more}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _format_rows(keys: Sequence[str], one: str, several: str) -> str:
    if not keys:
        return ""
    names = ", ".join(keys[:_MOST_KEYS]) + (" ..." if len(keys) > _MOST_KEYS else "")
    return f"{_rows(len(keys))} {one if len(keys) == 1 else several} ({names})"


async def difference(path: Path, row_format: RowFormat, blocks: Blocks) -> Difference | None:
    """Return how the file differs from its expected rows, or None if it has other columns. Raises OSError.

    Notation does not matter: quotes, line ends, a byte order mark, or another delimiter.
    """
    result = Difference()
    file = await asyncio.to_thread(_opened, path)
    try:
        rows = await asyncio.to_thread(_rows_in, file, row_format)
        if rows is None:
            return None
        there: deque[Row] = deque()
        wanted: deque[tuple[str, Row]] = deque()
        expected = _expected(row_format, blocks)
        while result.count < MOST:
            there.extend(await asyncio.to_thread(lambda: list(islice(rows, WINDOW - len(there)))))
            while len(wanted) < WINDOW and (each := await anext(expected, None)) is not None:
                wanted.append(each)
            if not (there or wanted):
                return result
            _step(result, there, wanted)
        result.whole = False
        return result
    finally:
        file.close()


def _step(result: Difference, there: deque[Row], wanted: deque[tuple[str, Row]]) -> None:
    """Skip the rows that agree. If two rows differ, skip to the next rows that agree."""
    while there and wanted and there[0] == wanted[0][1]:
        there.popleft()
        wanted.popleft()
    if not (there or wanted):
        return
    at = {row: place for place, (_, row) in reversed(list(enumerate(wanted)))}
    meets = [(here + at[row], here, at[row]) for here, row in enumerate(there) if row in at]
    # If nothing agrees within the window, one row replaces the other, or one file has ended.
    _, here, ahead = min(meets, default=(0, min(1, len(there)), min(1, len(wanted))))
    both = min(here, ahead)
    keys = [wanted.popleft()[0] for _ in range(ahead)]
    result.changed += keys[:both]
    result.missing += keys[both:]
    result.added += here - both
    for _ in range(here):
        there.popleft()


def _opened(path: Path) -> TextIO:
    with path.open("rb") as file:
        head = file.read(4)
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
    return path.open(encoding=encoding, errors="replace", newline="")


def _rows_in(file: TextIO, row_format: RowFormat) -> Iterator[Row] | None:
    """Return the rows of the file, or None if it has other columns."""
    if row_format.name.endswith(".jsonl"):
        return (_values(line, row_format) for line in file if line.strip())
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARS))
    titles = list(map(str, row_format.table.titles))
    head = file.readline()
    for delimiter in _DELIMITERS:
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        if next(reader, None) == titles and head:
            return (tuple(row) for row in reader if row)
    return None


def _values(line: str, row_format: RowFormat) -> Row:
    try:
        row = codec.loads_exact(line)
        return tuple(codec.dumps(row.get(title)) for title in row_format.table.titles)
    except (ValueError, AttributeError):
        return (line,)


async def _expected(row_format: RowFormat, blocks: Blocks) -> AsyncIterator[tuple[str, Row]]:
    async for block in blocks:
        for _, outcome in block:
            text = row_format.block([outcome]).decode()
            if row_format.name.endswith(".jsonl"):
                rows: Iterator[Row] = (_values(line, row_format) for line in text.splitlines())
            else:
                rows = (tuple(row) for row in csv.reader(io.StringIO(text, newline="")) if row)
            for row in rows:
                yield outcome.record.key, row
