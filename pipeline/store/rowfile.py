"""Writes a file of rows from beginning to end: CSV, JSON Lines, or Parquet."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from pipeline.codec import clean
from pipeline.records import JSON
from pipeline.store.columntypes import convert
from pipeline.store.formats import csv_block, json_block
from pipeline.store.parquet import require

#: The most rows, and characters of text, in a group of rows in a Parquet file.
GROUP_ROWS, GROUP_CHARACTERS = 10_000, 4_000_000


class _Text:
    """A CSV or JSON Lines file."""

    def __init__(self, path: Path, titles: Sequence[str], *, escape_formulas: bool) -> None:
        self._titles = titles
        self._is_csv, self._escapes = ".csv" in path.suffixes, escape_formulas
        self._file: BinaryIO = path.open("wb")
        if self._is_csv:
            self._file.write(csv_block([titles], escape_formulas=escape_formulas))

    def add(self, rows: Sequence[Sequence[JSON]]) -> None:
        self._file.write(
            csv_block(rows, escape_formulas=self._escapes) if self._is_csv else json_block(self._titles, rows)
        )

    def close(self) -> None:
        _sync(self._file)


class _Parquet:
    """A Parquet file. Rows are buffered until they make a full group, so that memory stays flat."""

    def __init__(self, path: Path, titles: Sequence[str], kinds: Sequence[str]) -> None:
        self._arrow, self._kinds = require(), kinds
        types = {"bool": self._arrow.bool_, "int64": self._arrow.int64, "double": self._arrow.float64}
        columns = [
            (clean(title), types.get(kind, self._arrow.string)()) for title, kind in zip(titles, kinds, strict=True)
        ]
        self._schema = self._arrow.schema(columns)
        self._file: BinaryIO = path.open("wb")
        self._writer: Any = self._arrow.parquet.ParquetWriter(self._file, self._schema)
        # Mutable state: the rows that are not written yet, and how many characters they contain.
        self._rows: list[Sequence[JSON]] = []
        self._length = 0

    def add(self, rows: Sequence[Sequence[JSON]]) -> None:
        self._rows += rows
        self._length += sum(len(value) for row in rows for value in row if isinstance(value, str))
        if len(self._rows) >= GROUP_ROWS or self._length >= GROUP_CHARACTERS:
            self._write()

    def close(self) -> None:
        if self._rows:
            self._write()
        self._writer.close()
        _sync(self._file)

    def _write(self) -> None:
        columns = zip(self._kinds, self._schema.types, zip(*self._rows, strict=True), strict=True)
        arrays = [
            self._arrow.array([convert(kind, value) for value in values], type_) for kind, type_, values in columns
        ]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
        self._rows, self._length = [], 0


#: `add` takes rows, and `close` waits until they are all on the disk. Whoever opens the file closes it. Both raise
#: OSError.
RowFile: TypeAlias = _Text | _Parquet


def open_rows(
    path: Path, titles: Sequence[str], kinds: Sequence[str] = (), *, escape_formulas: bool = False
) -> RowFile:
    """Open a new file in the format of its name, which may end in `.part`.

    `kinds` are the types of a Parquet file's columns: bool, int64, double, or string.
    Raises OSError, and MissingExtraError for Parquet without pyarrow.
    """
    if ".parquet" in path.suffixes:
        return _Parquet(path, titles, kinds)
    return _Text(path, titles, escape_formulas=escape_formulas)


def _sync(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
