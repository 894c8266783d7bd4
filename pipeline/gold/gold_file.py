"""Reads a gold file: CSV or JSONL with the records' keys and a column for each label field."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import NamedTuple

from pipeline import codec
from pipeline.errors import InputError, did_you_mean, list_names
from pipeline.gold.label_fields import has_value
from pipeline.readers import Source, key_from_value, read_rows
from pipeline.records import JSON
from pipeline.store import safe_cell

#: The key column of any gold file. The name of the key column in the run's input also works.
KEY = "key"
#: Rows in a batch.
BATCH = 2_000
#: Bytes that are read at once for the digest.
_BLOCK_BYTES = 1024 * 1024
#: Formats in which all rows have the same columns.
_TABLES = frozenset({"csv", "tsv", "parquet"})
#: Formats in which we write an apostrophe before what a spreadsheet would take for a formula.
_WRITTEN = frozenset({"csv", "tsv"})
#: The first characters of keys that need a closer look. An empty key is one of them.
_ODD = frozenset({"", "(", "\\", "'"})
#: Line, fields, digest (0), and what is wrong with the row.
_Row = tuple[int, dict[str, JSON], int, str]


class GoldRow(NamedTuple):
    """The gold of one record: its values by column, without unanswered ones. `line` is 1-based."""

    key: str
    line: int
    values: Mapping[str, JSON]


def _with_gold_prefix(error: InputError) -> str:
    text = str(error).removeprefix("input.path: ")
    return text if text.startswith("gold: ") else f"gold: {text}"


def _unescape(value: JSON) -> JSON:
    """Return the value without the apostrophe before a formula."""
    if type(value) is str and value[:1] == "'" and safe_cell(value[1:]) == value:
        return value[1:]
    return value


def _column_answers(batch: Sequence[_Row], column: str, plain: Callable[[JSON], JSON]) -> list[JSON]:
    """Return each row's value in a column; None if it has none. Labels are few, so each text is checked only once."""
    values = [fields.get(column) for _, fields, _, _ in batch]
    texts = {value for value in values if type(value) is str}
    known = {text: plain(text) if has_value(text) else None for text in texts}
    return [known[value] if type(value) is str else value for value in values]


@asynccontextmanager
async def open_gold(
    source: Source,
    *,
    keys: Sequence[str] = (KEY,),
    wanted: Sequence[str] = (),
    known: Sequence[str] = (),
    beside: Collection[str] | None = None,
) -> AsyncGenerator[GoldFile, None]:
    """Open a gold file. Raises InputError for a missing column.

    `keys` are the possible key columns, the likeliest first. `wanted` are the required label columns. If it is empty,
    the columns of `known` that exist are used. If there are none either, and `beside` is given, the only column is used
    that is neither a key nor in `beside`.
    """
    try:
        async with aclosing(read_rows(source, batch=BATCH)) as rows:
            gold = GoldFile(source, wanted, rows)
            await gold.begin(tuple(dict.fromkeys(keys)), known, beside)
            yield gold
    except InputError as error:
        raise InputError(_with_gold_prefix(error)) from error


class GoldFile:
    """An open gold file. `columns` are its label columns. Its rows can be read only once.

    `rows` counts those read so far. `unusable` counts those that cannot be used, by reason; `first_unusable` has the
    first place of each.
    """

    def __init__(self, source: Source, wanted: Sequence[str], batches: AsyncGenerator[list[_Row], None]) -> None:
        self.source = source
        self._wanted, self._batches = wanted, batches
        self._content = hashlib.sha256()
        # Mutable state: the columns, the first rows, the counts, and the columns that the rows had so far.
        self.key_column = ""
        self.columns: list[str] = []
        self.rows = 0
        self.unusable: Counter[str] = Counter()
        self.first_unusable: dict[str, str] = {}
        self._first: list[list[_Row]] = []
        self._present: dict[str, None] = {}

    async def begin(self, keys: Sequence[str], known: Sequence[str], beside: Collection[str] | None) -> None:
        """Read until a row shows which columns there are. Raises InputError."""
        async for batch in self._batches:
            self._first.append(batch)
            if readable := [row for row in batch if not row[-1]]:
                self._choose(readable, keys, known, beside)
                return
        reason = next((f": {row[-1]}" for batch in self._first for row in batch if row[-1]), "")
        raise InputError(f"gold: {self.source.name} has no readable row{reason}")

    async def batches(self) -> AsyncGenerator[list[GoldRow], None]:
        """Yield the rows with a key, in batches. Raises InputError for a wanted column that no row has."""
        first, self._first = self._first, []
        for batch in first:
            yield self._usable(batch)
        async for batch in self._batches:
            yield self._usable(batch)
        self._need_all()

    @property
    def digest(self) -> str:
        """The file's digest, as `sha256sum` prints it; for a single-pass source, of its keys and values."""
        if self.source.path is None or self.source.single_pass:
            return self._content.hexdigest()
        content = hashlib.sha256()
        with self.source.path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                content.update(block)
        return content.hexdigest()

    def _usable(self, batch: Sequence[_Row]) -> list[GoldRow]:
        self.rows += len(batch)
        rows = []
        plain = _unescape if self.source.format in _WRITTEN else lambda value: value
        key_column, columns, make_row = self.key_column, self.columns, partial(tuple.__new__, GoldRow)
        answers = zip(*(_column_answers(batch, column, plain) for column in columns), strict=True)
        # CSV rows with equal values share one mapping. In other formats, 1 and true may both occur, and are equal here.
        known: dict[tuple[JSON, ...], Mapping[str, JSON]] = {}
        shares = self.source.format in _WRITTEN
        for (line, fields, _, trouble), values in zip(batch, answers, strict=True):
            if trouble:
                self._refuse("unreadable", trouble)
                continue
            key = fields.get(key_column)
            # Nearly every key is a text that does not begin like a generated or an escaped one.
            name = key if type(key) is str and key[:1] not in _ODD else key_from_value(plain(key))
            if name:
                answered = known.get(values) if shares else None
                if answered is None:
                    answered = {column: one for column, one in zip(columns, values, strict=True) if one is not None}
                    if shares:
                        known[values] = answered
                rows.append(make_row((name, line, answered)))
            else:
                self._refuse("without_key", f"{self.source.name}:{line}")
        if self.source.format not in _TABLES:
            for _, fields, _, _ in batch:
                self._present.update(dict.fromkeys(fields))
        if self.source.path is None or self.source.single_pass:
            for row in rows:
                self._content.update(codec.dumps([row.key, row.values]))
        return rows

    def _refuse(self, why: str, where: str) -> None:
        self.unusable[why] += 1
        self.first_unusable.setdefault(why, where)

    def _choose(
        self, rows: Sequence[_Row], keys: Sequence[str], known: Sequence[str], beside: Collection[str] | None
    ) -> None:
        """Find the key column and the label columns among the first rows' fields. Raises InputError."""
        self._present = dict.fromkeys(name for _, fields, _, _ in rows for name in fields)
        key_columns = [name for name in keys if name in self._present]
        name, where = self.source.name, f"line {rows[0][0]}"
        if not key_columns:
            raise InputError(
                f"gold: {name}: no column holds the records' keys: expected {' or '.join(map(repr, keys))}"
                f"{did_you_mean(keys[0], self._present)}; {where} has {list_names(self._present)}"
            )
        self.key_column = key_columns[0]
        self.columns = list(self._wanted) or [column for column in known if column in self._present]
        if not self.columns and beside is not None:
            others = [column for column in self._present if column not in beside and column not in keys]
            self.columns = others if len(others) == 1 else []
        if not self.columns:
            raise InputError(
                f"gold: {name}: no column has the name of a label field: expected {list_names(known)}"
                f"{did_you_mean(next(iter(known), ''), self._present)}; {where} has {list_names(self._present)}. "
                "Name the column with --column, and the label field that it belongs to with --field"
            )
        if self.source.format in _TABLES:
            self._need_all()

    def _need_all(self) -> None:
        for column in self._wanted:
            if column not in self._present:
                raise InputError(
                    f"gold: {self.source.name}: there is no column {column!r}{did_you_mean(column, self._present)}; "
                    f"it has {list_names(self._present)}"
                )
